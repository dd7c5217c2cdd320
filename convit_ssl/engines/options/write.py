"""The run folder before anything runs: it can be written, and holds the resolved options."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from omegaconf import OmegaConf

from convit_ssl.data.listing.division import FILE as SPLIT
from convit_ssl.data.listing.division import DivisionSpec
from convit_ssl.data.opening import open_division
from convit_ssl.engines.options.plan import Plan
from convit_ssl.errors import UserError
from convit_ssl.evaluation.results import write_json
from convit_ssl.runs import RunFolder
from convit_ssl.sealed import seal_yaml


def write_config(plan: Plan) -> None:
    """Write the resolved configuration into the run folder, before anything runs."""
    folder = plan.folder
    text = OmegaConf.to_yaml(OmegaConf.create(plan.options))
    reasons = [f"# {name} = {c.written}: {c.reason}" for name, c in plan.choices.items()]
    make_folder(folder)
    with _writing_in(folder):
        written = seal_yaml("\n".join([*reasons, text]))
        RunFolder(folder).config.write_text(written, encoding="utf-8")
        if plan.race is not None:
            write_json(plan.race, RunFolder(folder).race)
    spec = DivisionSpec.of(plan.settings.data, not plan.settings.derived.test_model)
    if spec.divides:
        division = open_division(plan.facts["name"], plan.settings.data_dir, spec)
        division.write(folder / SPLIT)


def make_folder(folder: Path) -> None:
    """Make the run folder, where it is not there, with room in it for a file.

    Raises:
        UserError: it cannot be written.
    """
    with _writing_in(folder):
        folder.mkdir(parents=True, exist_ok=True)
        RunFolder(folder).lock.touch()


@contextlib.contextmanager
def _writing_in(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"the run folder {folder} cannot be written ({error.strerror}); choose another with "
            "run.dir=/path"
        ) from None
