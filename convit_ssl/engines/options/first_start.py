"""Machine-dependent choices made at the first start and reused on resume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from convit_ssl.checksums import say_once
from convit_ssl.engines.checkpoints.files import CHECKPOINTS, sorted_checkpoints
from convit_ssl.errors import UserError
from convit_ssl.methods.scale import Budget
from convit_ssl.reading import check_yaml
from convit_ssl.runs import RunFolder
from convit_ssl.sealed import yaml_is_whole


@dataclass(frozen=True)
class Begun:
    """What a run began with that depends on the machine.

    Attributes:
        budget: what that machine allowed; None where it set no limit.
    """

    budget: Budget | None


def read_options(folder: Path) -> dict[str, Any]:
    """The options that a run recorded; empty where the file is missing or damaged.

    Damage is said on standard error. Resuming compares with the options in the checkpoint, whatever
    this gives.

    Args:
        folder: of the run.
    """
    path = RunFolder(folder).config
    try:
        check_yaml(path)
        text = path.read_text(encoding="utf-8")
        if not yaml_is_whole(text):
            say_once(f"warning: {path} is not what the run wrote, and is ignored")
            return {}
        found: Any = OmegaConf.to_container(OmegaConf.create(text))
    except (UserError, OSError, ValueError, OmegaConfBaseException, YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def find_begun(folder: Path, images: int) -> Begun | None:
    """What the run in a folder began with; None without one, or with another number of images.

    Args:
        folder: of the run, which has begun when it holds a checkpoint.
        images: number of training images now.
    """
    if not sorted_checkpoints(folder / CHECKPOINTS):
        return None
    try:
        config = read_options(folder)
        budget = config["derived"]["budget"]
        if config["facts"]["images"] != images:
            return None
        return Begun(None if budget is None else Budget(**budget))
    except (KeyError, TypeError, ValueError):
        return None  # an older run, or a damaged file: the checkpoint tells whether it goes on
