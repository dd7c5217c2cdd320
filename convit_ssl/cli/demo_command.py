"""``convit-ssl demo``: from images to a pretrained, evaluated, exported and pictured trunk."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convit_ssl.errors import UserError
from convit_ssl.leftovers import temporary_folder
from convit_ssl.runs import RunFolder

SUMMARY = (
    "Pretrain convit_nano with DINO on 1,000 of scikit-learn's digits, without labels; compare it "
    "with raw pixels and the untrained network; export it, load it in timm, and draw it."
)
EXAMPLE = "convit-ssl demo"
# Everything else is set from the data.
OVERRIDES = ("config=convit_dino", "data=digits", "run=cpu", "trunk=convit_nano")

SECONDS = 225.0  # that the whole demo should take
MOST_EPOCHS, FEWEST_EPOCHS = 56, 6
OTHER_STEPS = 10  # epochs that take as long as the figures, the probes and the report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="run folder")
    parser.add_argument(
        "--epochs",
        type=int,
        help="epochs of pretraining (default: what fits into four minutes, after timing one epoch)",
    )
    parser.add_argument("--record", metavar="STEM", help="also write the result to the folder STEM")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="further options of the experiment"
    )


def run(args: argparse.Namespace) -> int:
    """Each step by the command a user would call; a table at the end."""
    started = time.monotonic()
    folder = str(args.out)
    _step("1/5  pretrain without labels")
    epochs = args.epochs or _epochs_that_fit(args.overrides, started)
    length = f"optim.epochs={epochs}"
    _call("train", *OVERRIDES, length, f"run.dir={folder}", "run.overwrite=true", *args.overrides)
    results = {}
    for number, kind in ((2, "knn"), (3, "linear")):
        _step(f"{number}/5  {kind}, compared with raw pixels and the untrained network")
        path = args.out / f"{kind}.json"
        _call(kind, folder, "--data", "digits", "--references", "--json", str(path))
        results[kind] = json.loads(path.read_text())["results"]
    _step("4/5  export, and load it back in timm")
    _call("export", folder, "--to", "safetensors", "timm", "--out", str(args.out / "export"))
    _step("5/5  pictures")
    picture = draw(args.out)
    _call("report", folder, "--data", "digits")
    seconds = time.monotonic() - started
    show(results, args.out, picture, seconds)
    if args.record:
        from convit_ssl.cli.demo_record import write

        write(args.record, results, args.out, seconds)
    return 0


def _epochs_that_fit(overrides: Sequence[str], started: float) -> int:
    """Time an epoch in a run of two, and say what follows."""
    seconds = measure_epoch(overrides)
    epochs = fitting_epochs(seconds, time.monotonic() - started)
    words = f"an epoch takes {seconds:.1f} s on this machine, so this demo trains {epochs} epochs"
    if epochs < MOST_EPOCHS:
        words += f" instead of {MOST_EPOCHS}, to finish in about four minutes"
    print(f"{words} (--epochs N sets another length)", flush=True)
    return epochs


def measure_epoch(overrides: Sequence[str]) -> float:
    """Seconds of the second epoch, without the start of the loaders, in a folder that goes away."""
    short = ("optim.epochs=2", "watch.every=0", "run.tensorboard=false", "run.overwrite=true")
    with temporary_folder("convit_ssl-demo-") as folder:
        where = f"run.dir={Path(folder) / 'run'}"
        with contextlib.redirect_stdout(io.StringIO()):
            _call("train", *OVERRIDES, *overrides, *short, where)
        result = RunFolder(Path(folder, "run")).read_result()
    return float(result["figures"]["seconds"])


def fitting_epochs(seconds: float, spent: float) -> int:
    """Epochs after which the demo ends within `SECONDS`; at least `FEWEST_EPOCHS`.

    Args:
        seconds: of an epoch.
        spent: since the demo began.
    """
    epochs = int((SECONDS - spent) / max(seconds, 1e-3)) - OTHER_STEPS
    return min(max(epochs, FEWEST_EPOCHS), MOST_EPOCHS)


def draw(folder: Path) -> Path:
    """Gates and attention before and after, as one PNG in the run folder."""
    import torch

    from convit_ssl.analysis.before_after import before_after_figure
    from convit_ssl.analysis.images import open_image, prepare_image
    from convit_ssl.data import open_dataset
    from convit_ssl.drawing import save_figure
    from convit_ssl.export import load_trunk
    from convit_ssl.models import ConViT

    after = load_trunk(folder)
    torch.manual_seed(0)
    before = ConViT(after.config).eval()
    digits = open_dataset("digits", None, "val")
    firsts = [digits.targets.index(target) for target in (0, 2, 3, 5, 7, 8)]
    images = [prepare_image(open_image(Path(digits.path(i))), after) for i in firsts]
    figure = before_after_figure(before, after, images, "ConViT before and after DINO on digits")
    return save_figure(figure, folder / "before_after.png")


def show(results: dict[str, list[Any]], folder: Path, picture: Path, seconds: float) -> None:
    """The table at the end, and where everything lies."""
    from rich.table import Table

    from convit_ssl.evaluation.probes.knn import knn_name
    from convit_ssl.terminal import Terminal

    table = Table(title="accuracy on 797 held-out digits", title_justify="left")
    for heading in ("features", knn_name(20), "linear probe"):
        table.add_column(heading, justify="left" if heading == "features" else "right")
    for knn, linear in zip(results["knn"], results["linear"], strict=True):
        table.add_row(knn["name"], *(f"{100 * r['accuracy']:.1f} %" for r in (knn, linear)))
    console = Terminal()
    console.print(table)
    console.print(f"trunk     {folder / 'export'}\npicture   {picture}", soft_wrap=True)
    console.print(f"report    {folder / 'report' / 'report.html'}", soft_wrap=True)
    next_command = "convit-ssl train config=convit_dino data=folder data_dir=/images run=cpu"
    console.print(
        f"in {seconds:.0f} s. Your own images: {next_command} trunk=convit_nano", soft_wrap=True
    )


def _step(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _call(name: str, *arguments: str) -> None:
    from convit_ssl.cli.main import run_command

    code = run_command(name, arguments)
    if code > 128:  # stopped by a signal, and has said so
        raise SystemExit(code)
    if code:
        raise UserError(f"`convit-ssl {name} {' '.join(arguments)}` failed; see the message above")
