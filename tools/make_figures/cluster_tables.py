"""What training on many GPUs asks of a cluster."""

from __future__ import annotations

from typing import Any

from markdown_table import table


def cluster(results: list[dict[str, Any]]) -> str:
    """What so many GPUs ask for, a line for each number of them."""
    head = [
        "method", "GPUs", "batch", "steps an epoch", "epoch", "gradients out of a node, GB/s",
        "of linear scaling, 8 x 400 Gbit/s", "100 Gbit/s", "10 Gbit/s", "loader cores a node",
        "images in, GB/s", "too far",
    ]  # fmt: skip
    rows = []
    for comparison in (c for result in results for c in result["comparisons"]):
        for line in comparison["rows"]:
            minutes, seconds = divmod(round(line["epoch_seconds"]), 60)
            rows.append(
                [
                    comparison["setting"]["method"],
                    str(line["gpus"]),
                    f"{line['batch']:,}",
                    f"{line['steps_per_epoch']:,}",
                    f"{minutes}:{seconds:02d}",
                    f"{line['network_bytes_per_second'] / 1e9:.1f}",
                    *(f"{share:.2f}" for share in line["linear_shares"].values()),
                    f"{line['cores_per_node']:.0f}",
                    f"{line['storage_bytes_per_second'] / 1e9:.1f}",
                    ", ".join(line["breaks"]),
                ]
            )
    return table(head, rows)


def checkpoints(results: list[dict[str, Any]]) -> str:
    """The schedule of checkpoints, a line for each number of GPUs."""
    from convit_ssl.bench.cluster_checkpoints import COLUMNS, cells

    comparisons = [c for result in results for c in result["comparisons"]]
    rows = [
        [comparison["setting"]["method"], *cells(line)]
        for comparison in comparisons
        for line in comparison["checkpoints"]
    ]
    limits = " and ".join(f"{c['breaking_gpus']:,} ({c['setting']['method']})" for c in comparisons)
    return f"{table(['method', *COLUMNS], rows)}\n\n5 % of the time is lost at {limits} GPUs."
