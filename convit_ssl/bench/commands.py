"""What ``convit-ssl bench`` does with its options."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from convit_ssl.bench import contenders, figures, models, record, report
from convit_ssl.errors import UserError

NOTES = [
    "Alternating in one process. 'Ours is' is the median, over rounds, of the contender's time "
    "over ours: above 1 we are faster. 'At best' compares the fastest rounds, since neighbours on "
    "a busy machine only ever add time. Saved memory is what autograd keeps, per image and "
    "besides once a step, counted exactly; peak memory is the most that a call holds beyond "
    "weights and images; operations are those of a forward pass, views left out. Training is "
    "forward, backward and a fused AdamW step."
]


def run(args: argparse.Namespace) -> None:
    """Dispatch to one benchmark.

    Raises:
        UserError: a device that is not there, or an unknown name.
    """
    _check_device(args.device)
    record.check_record(args.kind, args.json, args.add)
    if args.repeats < 1:
        raise UserError(f"--repeats {args.repeats}: give at least 1")
    if args.kind == "data":
        run_data(args)
        return
    if args.kind == "startup":
        run_startup(args)
        return
    torch.set_num_threads(args.threads)
    if args.clock == "cpu" and (args.threads > 1 or args.device != "cpu"):
        raise UserError("--clock cpu counts one thread; it needs --threads 1 and --device cpu")
    {"model": run_models, "step": run_steps, "scaling": run_scaling}[args.kind](args)


def run_models(args: argparse.Namespace) -> None:
    """``bench model``."""
    for given, valid, option in (
        (args.contenders, list(contenders.CONTENDERS), "--contenders"),
        (args.modes, models.MODES, "--modes"),
    ):
        for name in given:
            if name not in valid:
                raise UserError(f"{option} {name}: there are {', '.join(valid)}")
    comparisons: list[dict[str, Any]] = []
    for setting in models.settings(
        args.sizes, args.sides, args.images, args.dtype, args.modes, args.compile, args.device,
        args.clock,
    ):  # fmt: skip
        rows = models.compare(setting, args.contenders, args.repeats)
        comparisons.append(models.as_json(setting, rows))
        last = comparisons[-1]
        report.print_table(report.model_title(last), report.MODEL_COLUMNS, report.model_cells(last))
    made = record.make_record("model", comparisons, args.json, args.add)
    comparisons = sorted(made["comparisons"], key=models.place)
    clock = "CPU time of the one thread" if args.clock == "cpu" else "Wall time"
    report.write_markdown(
        args.markdown,
        f"Models side by side on {args.device}",
        made,
        [
            (report.RATIO_TITLE, report.RATIO_COLUMNS, report.ratio_cells(comparisons)),
            *(
                (report.model_title(c), report.MODEL_COLUMNS, report.model_cells(c))
                for c in comparisons
            ),
        ],
        [*NOTES, f"{clock}.", *_not_measured(args.device, "model --images 256 --dtype bf16")],
    )
    figures.draw_models(args.figure, comparisons)


def _not_measured(device: str, options: str) -> list[str]:
    """What to run where there is a GPU."""
    if device != "cpu":
        return []
    kind, rest = options.split(" ", 1)
    again = ", and again with `--compile`" if kind == "model" else ""
    return [f"GPU: not measured. `convit-ssl bench {kind} --device cuda {rest}`{again}."]


def run_steps(args: argparse.Namespace) -> None:
    """``bench step``."""
    from convit_ssl.bench import steps

    comparisons = []
    for method in args.methods:
        if method not in steps.METHODS:
            raise UserError(f"--methods {method}: there are {', '.join(steps.METHODS)}")
        for size in args.sizes:
            for dtype in args.dtype:
                plan = steps.Plan(
                    method, size, args.images, args.global_side, args.local_side,
                    args.local_crops, args.out_dim, dtype, args.device, args.clock,
                )  # fmt: skip
                comparison = steps.compare(plan, args.repeats)
                comparisons.append(comparison)
                report.print_table(*steps.table(comparison))
    made = record.make_record("step", comparisons, args.json, args.add)
    report.write_markdown(
        args.markdown,
        "Training steps, part by part",
        made,
        [steps.table(comparison) for comparison in made["comparisons"]],
        [*steps.NOTES, *_not_measured(args.device, "step --images 32 --dtype bf16 --sizes small")],
    )


def run_data(args: argparse.Namespace) -> None:
    """``bench data``."""
    from convit_ssl.bench import inputs

    device = args.device if args.device != "cpu" else None
    rows = inputs.measure(args.repeats, device)
    report.print_table(inputs.TITLE, inputs.COLUMNS, inputs.cells(rows))
    comparison = {"device": args.device, "rows": rows}
    made = record.make_record("data", [comparison], args.json, args.add)
    report.write_markdown(
        args.markdown,
        "Input pipelines",
        made,
        [(inputs.TITLE, inputs.COLUMNS, inputs.cells(rows))],
        inputs.NOTES,
    )


def run_startup(args: argparse.Namespace) -> None:
    """``bench startup``."""
    from convit_ssl.bench import startup

    comparison = startup.measure(args.repeats)
    report.print_table(*startup.table(comparison))
    made = record.make_record("startup", [comparison], args.json, args.add)
    report.write_markdown(
        args.markdown, "Start-up", made, [startup.table(comparison)], startup.NOTES
    )


def run_scaling(args: argparse.Namespace) -> None:
    """``bench scaling``."""
    from convit_ssl.bench import scaling

    comparisons: list[dict[str, Any]] = []
    for size in args.sizes:
        for dtype in args.dtype:
            comparisons.append(
                scaling.growth(size, args.sides, dtype, args.device, args.clock, args.repeats)
            )
            report.print_table(*scaling.table(comparisons[-1]))
        if args.processes:
            comparisons.append(
                scaling.processes(
                    size, args.side, args.images, args.processes, args.device, args.repeats
                )
            )
            report.print_table(*scaling.table(comparisons[-1]))
    made = record.make_record("scaling", comparisons, args.json, args.add)
    report.write_markdown(
        args.markdown,
        "Scaling",
        made,
        [scaling.table(comparison) for comparison in made["comparisons"]],
        [
            *scaling.NOTES,
            *_not_measured(args.device, "scaling --images 64 --side 224 --processes 1 2 4 8"),
        ],
    )
    figures.draw_growth(args.figure, [c for c in made["comparisons"] if "growth" in c])


def _check_device(name: str) -> None:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name}: give cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: PyTorch {torch.__version__} sees no CUDA device here")
