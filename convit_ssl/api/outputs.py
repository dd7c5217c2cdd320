"""Trunks, exports and reports from Python."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convit_ssl.api.common import Weights, arguments_of, coded
from convit_ssl.api.common import weights_argument as name_of

if TYPE_CHECKING:
    from convit_ssl.export.trunk import Written
    from convit_ssl.models.trunks import Network


def load_trunk(weights: Weights, which: str = "teacher", **options: Any) -> Network:
    """Load the network of a run, a checkpoint or weights of another project, in eval mode.

    Args:
        weights: a run, a run folder, a file, or a name on the hub such as ``timm:convit_small``.
        which: "teacher" (default; the only weights if there is no teacher), "student",
            "ema", or part of a key prefix in the file.
        options: further arguments of `convit_ssl.export.load_trunk`, such as ``img_size``.

    Returns:
        A `torch.nn.Module`: (batch, 3, height, width) in, (batch, channels) out. A `ConViT`, or an
        `OtherTrunk` where the run was trained with another network.

    Raises:
        UserError: nothing was loaded, and why; `code` is weights.
    """
    import convit_ssl.adapters  # noqa: F401  lets timm be imported beside a CPU build of torch
    from convit_ssl.export.load import load_network as load

    with coded("weights"):
        return load(name_of(weights), which, **options)


def export(
    weights: Weights,
    to: str | Sequence[str],
    out: str | os.PathLike[str] | None = None,
    **options: Any,
) -> list[Written]:
    """Write a trunk for other libraries; each form is read back by that library and compared.

    Args:
        weights: as for `load_trunk`.
        to: safetensors, official, timm, hf, onnx, torch-export or vissl; one, or several.
        out: output folder; by default ``export`` in the run folder, or ``NAME_export``
            beside a file.
        options: further options of ``convit-ssl export``, such as ``name`` or ``license``.

    Returns:
        What was written, and the largest difference between the outputs.

    Raises:
        UserError: nothing was written, and why; `code` is weights or output.
    """
    from convit_ssl.cli import export_command

    forms = [to] if isinstance(to, str) else list(to)
    args = arguments_of("export", [name_of(weights), "--to", *forms], options)
    args.out = None if out is None else Path(out)
    with coded("weights"):
        model = export_command.read_model(args)
    with coded("output"):
        return export_command.write(args, model).written


def report(
    runs: Weights | Sequence[Weights],
    out: str | os.PathLike[str] | None = None,
    *,
    data: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Path:
    """Write a report of one or more runs, as one HTML page.

    Args:
        runs: one or more run folders.
        out: folder to write to; ``report`` in the first run's by default.
        data: data set to evaluate on; by default that of the first run.
        data_dir: its folder.
        options: further options of ``convit-ssl report``, such as ``images``.

    Returns:
        The page.

    Raises:
        UserError: an error that you can fix; `code` is output.
    """
    from convit_ssl.api.training import Run
    from convit_ssl.cli import report_command

    many = [runs] if isinstance(runs, (str, os.PathLike, Run)) else runs
    folders = [Path(name_of(run)) for run in many]
    where = {"data": data, "data_dir": None if data_dir is None else os.fspath(data_dir)}
    args = arguments_of("report", list(map(str, folders)), {**where, **options})
    args.out = None if out is None else Path(out)
    with coded("output"):
        report_command.run(args)
    return (args.out or folders[0] / "report") / "report.html"
