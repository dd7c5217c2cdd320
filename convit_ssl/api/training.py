"""Training from Python."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convit_ssl.api.common import Data, coded, data_arguments
from convit_ssl.children import safe_command, safe_environment
from convit_ssl.errors import UserError
from convit_ssl.leftovers import temporary_folder
from convit_ssl.runs import RunFolder

if TYPE_CHECKING:
    from convit_ssl.models.trunks import Network


@dataclass(frozen=True)
class Run:
    """A training run and its files.

    Attributes:
        folder: the run folder.
    """

    folder: Path

    def __fspath__(self) -> str:
        """The folder, so that a run can be used wherever a path can."""
        return os.fspath(self.folder)

    @property
    def finished(self) -> bool:
        """Whether it was trained to its last epoch."""
        return RunFolder(self.folder).finished()

    @property
    def result(self) -> dict[str, Any]:
        """The contents of `result.json`: metrics, data, versions.

        Raises:
            UserError: the run is not finished.
        """
        from convit_ssl.reading import read_json

        with coded("training"):
            if not self.finished:
                raise UserError(f"{self.folder} is not finished; call train() again to resume it")
            found: dict[str, Any] = read_json(RunFolder(self.folder).result)
            return found

    @property
    def history(self) -> list[dict[str, Any]]:
        """Metrics recorded during training, in order (`metrics.jsonl`)."""
        with contextlib.suppress(FileNotFoundError):
            return RunFolder(self.folder).rows()[0]
        return []

    def load(self, weights: str = "teacher") -> Network:
        """The network in evaluation mode; see `load_trunk`."""
        from convit_ssl.api.outputs import load_trunk

        return load_trunk(self.folder, weights)


def train(
    data: Data,
    out: str | os.PathLike[str],
    method: str = "dino",
    *,
    trunk: str | None = None,
    run: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    in_process: bool = False,
    **options: Any,
) -> Run:
    """Train a network on images; calling it again resumes what was interrupted.

    Training runs in a process of its own, so a plain script needs no
    ``if __name__ == "__main__":``, several GPUs work from a notebook, and the memory is free
    afterwards. Its output appears here. An interrupt (Ctrl-C, the stop button of a notebook) ends
    it with a checkpoint and raises `KeyboardInterrupt`.

    Args:
        data: a folder of images, or the name of a data set such as ``digits``.
        out: the run folder.
        method: one of `convit_ssl.methods.self_supervised`, such as dino, which need no labels;
            supervised, finetune or linear, which do; auto, which races some of them first
            (``auto__methods=["simclr", "vicreg"]`` says which); or one of a plugin, together with
            ``plugins=``.
        trunk: the network, such as ``convit_small`` or ``timm:resnet18``; by default that of
            `weights`, or else convit_small on a GPU, and ``convit_nano`` on a CPU.
        run: where to run: ``cpu``, ``gpu1``, ``gpu8``, ``slurm``; by default one GPU if there is
            one.
        weights: weights to start from; None for random init.
        config: an experiment of this package or a YAML file, in place of `method`'s.
        overwrite: delete what is in `out` and start over.
        quiet: show nothing but errors.
        in_process: train in this process, on one device. Methods and data sets that this script
            or notebook registered are known only here; put them into a module and name it with
            ``plugins=`` to train elsewhere.
        options: any option that ``convit-ssl options`` lists, with ``__`` for the dot, or sections
            as dictionaries: ``optim__epochs=20`` or ``optim={"epochs": 20}``.

    Returns:
        The finished run.

    Raises:
        UserError: an error that you can fix; `code` is options, data or training.
        KeyboardInterrupt: it was interrupted, after it had written a checkpoint.
    """
    words = _words(data, method, trunk, run, weights, config)
    words += [f"run.dir={os.fspath(out)}", f"run.overwrite={_text(overwrite)}"]
    words += [f"{key}={_text(value)}" for key, value in _flat(options)]
    with coded("training"):
        code = _here(words) if in_process else _elsewhere(words, quiet)
    if code in (128 + signal.SIGINT, -signal.SIGINT):
        raise KeyboardInterrupt(f"stopped; call train() again to resume {os.fspath(out)}")
    if code:
        with coded("training"):
            raise UserError(f"training ended with exit code {code}; see {RunFolder(out).log}")
    return Run(Path(out))


def _words(
    data: Data,
    method: str,
    trunk: str | None,
    run: str | None,
    weights: str | os.PathLike[str] | None,
    config: str | os.PathLike[str] | None,
) -> list[str]:
    """The command line's choices."""
    from convit_ssl.engines.options.compose import group_names

    experiment = f"convit_{method}"
    extra: list[str] = []
    if config is None and experiment not in group_names("config"):
        experiment, extra = "convit_dino", [f"method={method}"]
    words = [f"config={os.fspath(config) if config is not None else experiment}", *extra]
    if config is not None:
        words[0] = f"config={_config(config)}"
    where = data_arguments(data)
    words += [f"{key}={value}" for key, value in where.items()]
    if run is None:
        run = "gpu1" if _has_gpu() else "cpu"
    if trunk is None and config is None and weights is None:
        trunk = "convit_nano" if run == "cpu" else "convit_small"
    words += [f"run={run}"] + ([f"trunk={trunk}"] if trunk else [])
    return words + ([f"weights={os.fspath(weights)}"] if weights is not None else [])


def _config(config: str | os.PathLike[str]) -> str:
    """A name, or an absolute path."""
    text = os.fspath(config)
    return os.path.abspath(text) if text.endswith((".yaml", ".yml")) else text


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _flat(options: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted keys and values of nested options."""
    found: list[tuple[str, Any]] = []
    for name, value in options.items():
        key = f"{prefix}{name.replace('__', '.')}"
        found += _flat(value, f"{key}.") if isinstance(value, Mapping) else [(key, value)]
    return found


def _text(value: Any) -> str:
    """A value as a command line has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{','.join(_text(one) for one in value)}]"
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def _here(words: Sequence[str]) -> int:
    import convit_ssl.adapters  # noqa: F401  installs what VISSL needs
    from convit_ssl.engines.launch.command import run_experiment

    return run_experiment(words)


def _elsewhere(words: Sequence[str], quiet: bool) -> int:
    """Run the command in a process of its own; what it could not do is raised here."""
    with temporary_folder("convit_ssl-train-") as place:
        said = Path(place, "error.json")
        command = safe_command([sys.executable, "-m", "convit_ssl.api.child", str(said), *words])
        shown = sys.stdout.isatty() and not quiet and sys.stdout is sys.__stdout__
        pipe = None if shown else subprocess.PIPE
        process = subprocess.Popen(
            command,
            stdout=pipe,
            stderr=None if shown else subprocess.STDOUT,
            env=safe_environment(os.environ),
            text=True,
            errors="replace",
            start_new_session=True,  # so that an interrupt comes once, from here
        )
        reader = threading.Thread(target=_relay, args=(process, quiet), daemon=True)
        if not shown:
            reader.start()
        code = _wait(process)
        if not shown:
            reader.join(10)
        if said.is_file():
            told = json.loads(said.read_text(encoding="utf-8"))
            error = UserError(told["message"])
            error.code, error.exit_code = told["code"], told["exit_code"]
            raise error
    return code


def _relay(process: subprocess.Popen[str], quiet: bool) -> None:
    """Show what a process writes, line by line, wherever this process's output goes."""
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            if not quiet:
                print(line, end="", flush=True)


def _wait(process: subprocess.Popen[str]) -> int:
    """Wait for a process; the first interrupt asks it to stop, a second one ends it."""
    asked = False
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            if asked:
                process.kill()
                raise
            asked = True
            process.send_signal(signal.SIGINT)
