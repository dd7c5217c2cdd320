"""What ``convit-ssl bench`` does with its options."""

from __future__ import annotations

import argparse
import itertools
from typing import Any

import torch

from convit_ssl.bench import figures, models, options, record, report
from convit_ssl.errors import UserError
from convit_ssl.machine import available_cores
from convit_ssl.models.compiling import why_no_compiler

NOTES = [
    "The networks take turns in one process. 'Ours is' is the median, over rounds, of the "
    "other network's time divided by ours: above 1, ours is faster. 'At best' compares the "
    "fastest rounds, because other load on the machine only ever adds time. Saved memory is "
    "what autograd keeps, per image and, as '+ a step', once per step; it is counted exactly. "
    "Peak memory is the most that a call holds beyond weights and images. Operations are "
    "those of a forward pass, not counting views. Training is forward, backward and a fused "
    "AdamW step.",
    "On CPUs where oneDNN multiplies float32 matrices faster, our network uses it, as in a "
    "run, and so does the large matrix product that 'of GEMM' refers to; the other networks "
    "use PyTorch's default.",
]


def run(args: argparse.Namespace) -> None:
    """Dispatch to one benchmark.

    Raises:
        UserError: options that cannot be measured or written, or memory that does not suffice.
    """
    options.check_options(args)
    if hasattr(args, "threads"):
        torch.set_num_threads(args.threads)  # before the record is asked whether they are its own
    record.check_record(args.kind, args.json, args.add)
    if getattr(args, "compile", False) and (why := why_no_compiler(torch.device(args.device))):
        raise UserError(f"{why}, or leave out --compile")
    runs = {
        "model": run_models,
        "step": run_steps,
        "accumulate": run_accumulate,
        "scaling": run_scaling,
        "data": run_data,
        "startup": run_startup,
        "threads": run_threads,
        "linear": run_probes,
        "builds": run_builds,
        "cluster": run_cluster,
    }
    try:
        runs[args.kind](args)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{args.device} ran out of memory; what was measured before is in the --json file, if "
            "one was named. Use fewer --images or smaller --sides"
        ) from error


def run_models(args: argparse.Namespace) -> None:
    """``bench model``."""
    comparisons: list[dict[str, Any]] = []
    for setting in models.settings(
        args.sizes, args.sides, args.images, args.dtype, args.modes, args.compile, args.device,
        args.clock,
    ):  # fmt: skip
        rows = models.compare(setting, args.contenders, args.repeats)
        comparisons.append(models.as_json(setting, rows, args.contenders))
        record.keep("model", comparisons, args.json, args.add)
        last = comparisons[-1]
        report.print_table(report.model_title(last), report.MODEL_COLUMNS, report.model_cells(last))
    made = record.make_record("model", comparisons, args.json, args.add)
    comparisons = sorted(made["comparisons"], key=models.place)
    clock = "Times are CPU time of the one thread" if args.clock == "cpu" else "Times are wall time"
    report.write_markdown(
        args.markdown,
        f"Models compared on {args.device}",
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
    return [
        f"Not measured on a GPU. To do so: `convit-ssl bench {kind} --device cuda {rest}`{again}."
    ]


def run_steps(args: argparse.Namespace) -> None:
    """``bench step``."""
    from convit_ssl.bench import steps

    comparisons = []
    for method in args.methods:
        for size in args.sizes:
            for dtype in args.dtype:
                plan = steps.Plan(
                    method, size, args.images, args.global_side, args.local_side,
                    args.local_crops, args.out_dim, dtype, args.device, args.clock,
                )  # fmt: skip
                comparison = steps.compare(plan, args.repeats)
                comparisons.append(comparison)
                record.keep("step", comparisons, args.json, args.add)
                report.print_table(*steps.table(comparison))
    made = record.make_record("step", comparisons, args.json, args.add)
    report.write_markdown(
        args.markdown,
        "Training steps",
        made,
        [steps.table(comparison) for comparison in made["comparisons"]],
        [*steps.NOTES, *_not_measured(args.device, "step --images 32 --dtype bf16 --sizes small")],
    )


def run_accumulate(args: argparse.Namespace) -> None:
    """``bench accumulate``."""
    from convit_ssl.bench import accumulate

    comparisons = []
    for method, size, dtype, parts in itertools.product(
        args.methods, args.sizes, args.dtype, args.parts
    ):
        plan = accumulate.Plan(
            method, size, args.images, parts, args.global_side, args.local_side,
            args.local_crops, args.out_dim, dtype, args.device, args.clock, args.threads,
        )  # fmt: skip
        comparisons.append(accumulate.compare(plan, args.repeats))
        record.keep("accumulate", comparisons, args.json, args.add)
        report.print_table(*accumulate.table(comparisons[-1]))
    made = record.make_record("accumulate", comparisons, args.json, args.add)
    gpu = "accumulate --methods simclr --images 1024 --sizes small --dtype bf16"
    report.write_markdown(
        args.markdown,
        "Gradient accumulation",
        made,
        [accumulate.table(comparison) for comparison in made["comparisons"]],
        [*accumulate.NOTES, *_not_measured(args.device, gpu)],
    )


def run_data(args: argparse.Namespace) -> None:
    """``bench data``."""
    from convit_ssl.bench import inputs

    if args.formats:
        run_formats(args)
        return
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


def run_formats(args: argparse.Namespace) -> None:
    """``bench data --formats``."""
    from convit_ssl.bench import formats

    rows = formats.measure(args.repeats)
    report.print_table(formats.TITLE, formats.COLUMNS, formats.cells(rows))
    comparison = {"device": "cpu", "what": "formats", "rows": rows}
    made = record.make_record("data", [comparison], args.json, args.add)
    report.write_markdown(
        args.markdown,
        "Image formats",
        made,
        [(formats.TITLE, formats.COLUMNS, formats.cells(rows))],
        formats.NOTES,
    )


def run_startup(args: argparse.Namespace) -> None:
    """``bench startup``."""
    from convit_ssl.bench import startup

    _report(args, "Start-up", [startup.measure(args.repeats)], startup)


def run_probes(args: argparse.Namespace) -> None:
    """``bench linear``."""
    from convit_ssl.bench import probes

    comparison = probes.measure(args.rows, args.classes, args.width, args.whole)
    _report(args, "The linear probe", [comparison], probes)


def run_builds(args: argparse.Namespace) -> None:
    """``bench builds``."""
    from convit_ssl.bench import builds, peers

    comparisons: list[dict[str, Any]] = []
    today = args.today_epochs or [args.epochs]
    asked = (args.against, args.epochs, today, args.seeds, args.linear, args.without_onednn)
    for method in args.methods:
        setting = builds.Setting(
            method, args.data, args.data_dir, args.trunk, tuple(args.set), tuple(args.today_set)
        )
        comparisons.append(builds.measure(setting, *asked))
        record.keep("builds", comparisons, args.json, args.add)
    made = record.make_record("builds", comparisons, args.json, args.add)
    tables = [builds.table(comparison) for comparison in builds.joined(made["comparisons"])]
    for table in tables:
        report.print_table(*table)
    is_peer = args.against in peers.PEERS
    title = f"Today's build against {'lightly' if is_peer else 'an earlier one'}"
    report.write_markdown(args.markdown, title, made, tables, builds.NOTES)


def _report(
    args: argparse.Namespace, title: str, comparisons: list[dict[str, Any]], of: Any
) -> None:
    """Print, and write the files; `of` is the module whose table and notes they are."""
    for comparison in comparisons:
        report.print_table(*of.table(comparison))
    made = record.make_record(args.kind, comparisons, args.json, args.add)
    tables = [of.table(comparison) for comparison in made["comparisons"]]
    report.write_markdown(args.markdown, title, made, tables, of.NOTES)


def run_threads(args: argparse.Namespace) -> None:
    """``bench threads``."""
    from convit_ssl.bench import threads

    comparisons = []
    for size, (side, patch, images) in itertools.product(args.sizes, _fields(args)):
        setting = threads.Setting(size, side, patch, images, available_cores())
        comparisons.append(threads.measure(setting, args.neighbours, args.seconds, args.repeats))
        record.keep("threads", comparisons, args.json, args.add)
        for make in (threads.table, threads.gains):
            report.print_table(*make(comparisons[-1]))
    made = record.make_record("threads", comparisons, args.json, args.add)
    report.write_markdown(
        args.markdown,
        "Threads on a busy machine",
        made,
        [
            make(comparison)
            for comparison in made["comparisons"]
            for make in (threads.table, threads.gains)
        ],
        threads.NOTES,
    )


def _fields(args: argparse.Namespace) -> list[tuple[int, int, int]]:
    """Sides, patches and numbers of images of ``bench threads``; a single one serves all sides."""
    lists = (args.side, args.patch, args.images)
    return list(zip(*(v * len(args.side) if len(v) == 1 else v for v in lists), strict=True))


def run_cluster(args: argparse.Namespace) -> None:
    """``bench cluster``."""
    from convit_ssl.bench import cluster, cluster_checkpoints

    tables = (cluster.table, cluster_checkpoints.table)
    jobs = cluster.jobs(args.step, args.data, args.methods, args.size)
    comparisons = cluster.work_out(jobs, args.gpus, args.gpus_per_node)
    for make in tables:
        for comparison in comparisons:
            report.print_table(*make(comparison))
    made = record.make_record("cluster", comparisons, args.json, args.add)
    report.write_markdown(
        args.markdown,
        "What a cluster has to deliver",
        made,
        [make(comparison) for make in tables for comparison in made["comparisons"]],
        [*cluster.NOTES, *cluster_checkpoints.NOTES],
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
            record.keep("scaling", comparisons, args.json, args.add)
            report.print_table(*scaling.table(comparisons[-1]))
        if args.processes:
            comparisons.append(
                scaling.processes(
                    size, args.side, args.images, args.processes, args.device, args.repeats
                )
            )
            record.keep("scaling", comparisons, args.json, args.add)
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
