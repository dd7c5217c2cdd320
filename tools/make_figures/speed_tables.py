"""Speed of training: the network's, and what idle cores add."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

from markdown_table import Rows, table

from convit_ssl.bench.builds import shown


def speed(results: list[dict[str, Any]]) -> str:
    """Training speed of ours as a multiple of the others', one line per setting."""
    head = ["training", "plain ViT", "timm's ConViT", "saved memory / ViT's", "/ timm's"]
    rows = []
    for comparison in (c for result in results for c in result["comparisons"]):
        setting = comparison["setting"]
        if setting["mode"] != "training" or setting["compiled"]:
            continue
        by_name = {row["name"]: row for row in comparison["rows"]}
        ours = by_name["ours"]["saved_mib"]
        where = "GPU" if setting["device"] == "cuda" else "CPU"
        cells = [
            f"{where}, {setting['size']}, {setting['side']} px, {setting['dtype']}, "
            f"batch {setting['batch']}"
        ]
        for name in ("vit", "timm"):
            other = by_name.get(name)
            cells.append(f"{other['ours_is_faster']:.2f} x" if other else "")
        for name in ("vit", "timm"):
            other = by_name.get(name)
            cells.append(f"{ours / other['saved_mib']:.2f}" if other else "")
        rows.append(cells)
    return table(head, rows)


def speed_summary(results: list[dict[str, Any]]) -> str:
    """One line per device and size; where a side was measured in two batches, the worse ratio."""
    groups: dict[str, dict[int, dict[str, float]]] = {}
    for comparison in (c for result in results for c in result["comparisons"]):
        setting = comparison["setting"]
        if setting["mode"] != "training" or setting["compiled"]:
            continue
        where = "GPU" if setting["device"] == "cuda" else "CPU"
        key = f"{where}, ConViT-{setting['size'].capitalize()}, {setting['dtype']}"
        worst = groups.setdefault(key, {}).setdefault(setting["side"], {})
        for row in comparison["rows"]:
            if row["name"] in ("vit", "timm"):
                faster = row["ours_is_faster"]
                worst[row["name"]] = min(faster, worst.get(row["name"], faster))
    rows = []
    for key, by_side in groups.items():
        sides = sorted(by_side)
        ratios = [" / ".join(f"{by_side[s][name]:.2f}" for s in sides) for name in ("vit", "timm")]
        rows.append([key, " / ".join(map(str, sides)), *ratios])
    return table(["training speed, ours relative to", "px", "plain ViT", "timm's ConViT"], rows)


def builds(results: list[dict[str, Any]]) -> str:
    """Core-seconds and accuracy of an earlier commit's training and of today's, means of seeds."""
    rows: Rows = []
    for comparison in (c for result in results for c in result["comparisons"]):
        options = dict(word.split("=", 1) for word in comparison["training"])
        method = options["config"].removeprefix("convit_")
        subset = options.get("data.subset", "").partition(",")[0]
        data = options["data"] if "data_dir" not in options else Path(options["data_dir"]).name
        training = ", ".join(filter(None, (data, subset, method)))
        before = comparison["rows"][0]["runs"]
        for row in comparison["rows"]:
            runs = row["runs"]
            name = shown(comparison["against"]) if row["arm"] == "earlier" else "today"
            shares = [
                one["core_seconds"] / other["core_seconds"]
                for one, other in zip(runs, before, strict=True)
            ]
            rows.append([
                training,
                f"{name}, {row['epochs']} epochs",
                f"{mean(run['core_seconds'] for run in runs):.0f}",
                f"{mean(shares):.2f}",
                *(
                    f"{100 * mean(run[probe] for run in runs):.1f}" if probe in runs[0] else ""
                    for probe in ("knn_5", "linear")
                ),
            ])  # fmt: skip
    head = ["training", "build", "core-seconds", "share of the time", "5-NN, %", "linear, %"]
    return table(head, rows)


def ceiling(results: list[dict[str, Any]]) -> str:
    """How much of a large matrix product's speed training reaches, ours and a plain ViT."""
    rows = []
    for comparison in (c for result in results for c in result["comparisons"]):
        setting = comparison["setting"]
        shares = {row["name"]: row["of_ceiling"] for row in comparison["rows"]}
        if setting["mode"] != "training" or shares["ours"] is None:
            continue
        where = "GPU" if setting["device"] == "cuda" else f"CPU, {setting['threads']} thread"
        how = ", compiled" if setting["compiled"] else ""
        rows.append(
            [
                f"{where}, {setting['size']}, {setting['side']} px, {setting['dtype']}, "
                f"batch {setting['batch']}{how}",
                f"{100 * shares['ours']:.0f} %",
                f"{100 * shares['vit']:.0f} %" if shares.get("vit") else "",
            ]
        )
    return table(["training", "ConViT", "plain ViT"], rows)


def cores(results: list[dict[str, Any]]) -> str:
    """Steps per second of each way to use the cores, as a multiple of one thread's."""
    rows: Rows = []
    head: list[str] = ["training on idle cores"]
    for comparison in (c for result in results for c in result["comparisons"]):
        setting, found = comparison["threads"], comparison["rows"]["summary"][0]["of_one_thread"]
        names = [name for name in found if name != "1 thread"]
        head = [head[0], *names]
        where = f"{setting['size']}, {setting['side']} px, batch {setting['images']}"
        rows.append([where, *(f"{found[name]:.2f} x" for name in names)])
    return table(head, rows)
