"""Fill the figures of README.md and docs/ from the files of results/: ``make readme``.

A block in a page looks like this; what is between the two comments is replaced::

    <!-- figures: speed results/bench_model_cpu_2026-11-26 -->
    <!-- end of figures -->

``python tools/make_figures.py --check`` changes nothing and fails if a block is not up to date.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from convit_ssl.reading import read_json

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- figures: (\S+) ([^>]*?) -->\n)(.*?)(<!-- end of figures -->)", re.DOTALL)
Rows = list[list[str]]


def pages() -> list[Path]:
    """Every page that may hold a block."""
    return sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def filled(page: Path) -> str:
    """The text of a page with its blocks made anew."""

    def fill(match: re.Match[str]) -> str:
        opening, kind, words, _, closing = match.groups()
        folders = [ROOT / word for word in words.split()]
        files = [folder / "result.json" for folder in folders]
        body = KINDS[kind]([read_json(file) for file in files])
        links = ", ".join(
            f"[{folder.name}]({os.path.relpath(folder / 'README.md', page.parent)})"
            for folder in folders
        )
        return f"{opening}{body}\n\nFrom {links}.\n{closing}"

    return BLOCK.sub(fill, page.read_text(encoding="utf-8"))


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


def demo(results: list[dict[str, Any]]) -> str:
    """The table that ``convit-ssl demo`` prints, with 95 % intervals."""
    (result,) = results
    probes = result["results"]
    rows = []
    for position, knn in enumerate(probes["knn"]):
        linear = probes["linear"][position]
        rows.append([knn["name"], with_interval(knn), with_interval(linear)])
    return table(["features", "weighted 20-NN", "linear probe"], rows)


def evidence(results: list[dict[str, Any]]) -> str:
    """A line for each baselines study: what a user would try, and the best pretraining.

    Means over seeds with the 95 % interval over seeds, and core-minutes of training. Networks
    that did not learn labels are judged by the linear probe, the others by their own classifier.
    The method is the one that was best on images held out of train.
    """
    frozen = "frozen"
    columns = {
        "raw pixels": "raw pixels",
        frozen: "frozen ImageNet network",
        "untrained": "untrained",
        "labels alone, ConViT": "labels alone",
        "labels alone, ResNet-18": "ResNet-18, labels alone",
    }
    head = ["collection", *columns.values(), "pretrained, frozen", "pretrained, fine-tuned"]
    rows = []
    for result in results:
        method = result["chosen_method"]
        by_name = {row["row"]: row for row in result["rows"]}
        others = [row for name, row in by_name.items() if name.endswith(", frozen")]
        if others:
            by_name[frozen] = others[0]
        metric = result["metric"]
        line = [
            f"{result['data']}, {result['images']['train']:,} images, {metric.replace('_', ' ')}"
        ]
        for name in (*columns, method, f"pretrained ({method}), fine-tuned"):
            text = evidence_cell(by_name.get(name), metric)
            line.append(f"{method} {text}" if name == method else text)
        rows.append(line)
    return table(head, rows)


def differences(results: list[dict[str, Any]]) -> str:
    """A line for each method of each baselines study: paired differences in points, 95 % interval.

    All are of frozen features (the linear probe), on the same test images for all; intervals
    cover seeds and images.
    """
    others = {
        "raw pixels": "against raw pixels",
        "untrained": "untrained",
        "labels alone, ConViT": "labels alone",
        "labels alone, ResNet-18": "ResNet-18, labels alone",
    }
    rows = []
    for result in results:
        for method in result["methods"]:
            found = result["differences"][method]
            seeds = next(len(row["seeds"]) for row in result["rows"] if row["row"] == method)
            cells = []
            for other in others:
                value = 100 * found[other]["difference"]
                low, high = (100 * end for end in found[other]["interval_95"])
                cells.append(f"{value:+.1f} ({low:+.1f} to {high:+.1f})")
            rows.append([f"{result['data']}, {method}", str(seeds), *cells])
    return table(["collection, method", "seeds", *others.values()], rows)


def probes(results: list[dict[str, Any]]) -> str:
    """A line for each row of baselines studies: kNN, linear probe and core-minutes.

    Rows that studies of one collection share, such as raw pixels, are of the first of them.
    """
    rows, shown = [], set()
    for result in results:
        metric = result["metric"]
        for row in result["rows"]:
            if (result["data"], row["row"]) in shown:
                continue
            shown.add((result["data"], row["row"]))
            cells = []
            for probe in ("knn", "linear"):
                found = row["probes"].get(probe)
                spent = {"judged_by": probe, "probes": row["probes"], "core_minutes": 0}
                cells.append(evidence_cell(spent if found else None, metric))
            rows.append([f"{result['data']}, {row['row']}", *cells, f"{row['core_minutes']:.1f}"])
    metrics = " and ".join(dict.fromkeys(one["metric"].replace("_", " ") for one in results))
    return table([f"{metrics} in %", "kNN", "linear probe", "core-minutes"], rows)


def deit(results: list[dict[str, Any]]) -> str:
    """A line for each study with ``--deit``: each row of ConViT minus the same row with DeiT."""
    kinds: dict[str, Callable[[str], bool]] = {
        "untrained, frozen": lambda name: name == "untrained",
        "pretrained, frozen": lambda name: "," not in name and name != "untrained",
        "labels alone": lambda name: name.startswith("labels alone"),
        "pretrained, fine-tuned": lambda name: name.startswith("pretrained ("),
    }
    rows = []
    for result in results:
        found = result["against_deit"]
        cells = []
        for of_kind in kinds.values():
            name = next(name for name in found if of_kind(name))
            low, high = (100 * end for end in found[name]["interval_95"])
            cells.append(f"{100 * found[name]['difference']:+.1f} ({low:+.1f} to {high:+.1f})")
        seeds = str(max(len(row["seeds"]) for row in result["rows"]))
        images = f"{result['data']}, {result['images']['train']} labelled images"
        rows.append([images, seeds, *cells])
    return table(["ConViT minus DeiT, points", "seeds", *kinds], rows)


def race(results: list[dict[str, Any]]) -> str:
    """A line for each study with ``auto``: its accuracy, and how it differs from fixed methods."""
    rows = []
    for result in results:
        own = next(row for row in result["rows"] if row["row"] == "auto")
        seeds = str(len(own["seeds"]))
        taken = ", ".join(
            " ".join((one["method"], *one["settings"])) for one in result["race"]["taken"].values()
        )
        spent = [one["core_seconds"] / 60 for one in result["race"]["taken"].values()]
        against = [f"{name} {text}" for name, text in result["race"]["in_words"].items()]
        rows.append(
            [result["data"], seeds, evidence_cell(own, result["metric"]),
             f"{sum(spent) / len(spent):.2f} core-min", taken, "; ".join(against)]
        )  # fmt: skip
    head = [
        "collection",
        "seeds",
        "auto, frozen",
        "of it the race",
        "taken",
        "against fixed choices",
    ]
    return table(head, rows)


def evidence_cell(row: dict[str, Any] | None, metric: str) -> str:
    """Such as 71.3 (70.1 to 72.5), 3.0 core-min."""
    if row is None:
        return "not measured"
    found = row["probes"][row["judged_by"]][metric]
    text = f"{100 * found['mean']:.1f}"
    if found["interval_95"] and found["sd"]:
        low, high = found["interval_95"]
        text += f" ({100 * low:.1f} to {100 * high:.1f})"
    return f"{text}, {row['core_minutes']:.1f} core-min" if row["core_minutes"] else text


def with_interval(probe: dict[str, Any]) -> str:
    """Such as 98.0 % (96.8 to 98.8)."""
    low, high = probe["interval_95"]
    return f"{100 * probe['accuracy']:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def label_free(results: list[dict[str, Any]]) -> str:
    """Rank correlations of label-free figures with kNN, over the runs of a study."""
    from convit_ssl.evaluation.label_free.ranking import rank_correlation

    head = ["collection", "runs", "RankMe", "feature deviation", "gate motion"]
    rows = []
    for result in results:
        runs = [run["figures"] for run in result["runs"] if "knn" in (run["figures"] or {})]
        gated = [figures for figures in runs if figures.get("gates")]
        cells = []
        for chosen, values in (
            (runs, [figures["rankme"] for figures in runs]),
            (runs, [figures["feature_std"] for figures in runs]),
            (gated, [gate_motion(figures["gates"]) for figures in gated]),
        ):
            found = rank_correlation(values, [figures["knn"] for figures in chosen])
            cells.append(
                f"{found.value:+.2f} ({found.low:+.2f} to {found.high:+.2f}), {len(chosen)} runs"
            )
        rows.append([result["runs"][0]["data"]["name"], str(len(runs)), *cells])
    return table(head, rows)


def label_free_study(results: list[dict[str, Any]]) -> str:
    """What a study of label-free scores found: which passed, and rank correlations with 5-NN.

    A study with too few networks of a collection was stopped early and passes nothing.
    """
    from convit_ssl.evaluation.label_free.ranking import NETWORKS
    from convit_ssl.evaluation.label_free.scores import SCORES

    (result,) = results
    collections = result["collections"]
    runs = {name: len(found["runs"]) for name, found in collections.items()}
    titles = [SCORES[name].title for name in result["passed"]]
    if min(runs.values()) < NETWORKS:
        done = ", ".join(f"{count} on {name}" for name, count in runs.items())
        said = f"**The study was stopped early ({done}), so no score has passed.**"
    else:
        said = f"**Passed: {', '.join(titles)}.**" if titles else "**None passed.**"
    rows = []
    for name, found in result["correlations"]["knn"].items():
        if name not in SCORES:
            continue
        cells = [f"{one['rho']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f})"
                 for one in found.values()]  # fmt: skip
        mean = sum(one["rho"] for one in found.values()) / len(found)
        rows.append([SCORES[name].title, *cells, f"{mean:+.2f}"])
    heads = [f"{name}, {count} networks" for name, count in runs.items()]
    return f"{said}\n\n" + table(["score", *heads, "mean"], rows)


def gate_motion(gates: list[list[float]]) -> float:
    """Mean distance of the gates from sigmoid(1), where they start."""
    values = [value for layer in gates for value in layer]
    return sum(abs(value - 0.7310586) for value in values) / len(values)


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table; figures are set to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


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
    return f"{table(['method', *COLUMNS], rows)}\n\n5 % of the time are lost at {limits} GPUs."


KINDS: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    "speed": speed,
    "speed_summary": speed_summary,
    "ceiling": ceiling,
    "cores": cores,
    "demo": demo,
    "evidence": evidence,
    "deit": deit,
    "differences": differences,
    "race": race,
    "probes": probes,
    "label_free": label_free,
    "label_free_study": label_free_study,
    "cluster": cluster,
    "checkpoints": checkpoints,
}


def main(arguments: list[str]) -> int:
    """Fill all pages, or with --check name those that are out of date."""
    stale = [page for page in pages() if filled(page) != page.read_text(encoding="utf-8")]
    if "--check" in arguments:
        for page in stale:
            print(f"{page.relative_to(ROOT)}: figures are out of date; run make readme")
        return 1 if stale else 0
    for page in stale:
        page.write_text(filled(page), encoding="utf-8")
        print(f"filled {page.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
