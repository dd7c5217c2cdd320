"""Accuracy: the demo, and what pretraining brings in studies with baselines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from markdown_table import table


def demo(results: list[dict[str, Any]]) -> str:
    """The table that ``convit-ssl demo`` prints, with 95 % intervals."""
    (result,) = results
    probes = result["results"]
    rows = []
    for position, knn in enumerate(probes["knn"]):
        linear = probes["linear"][position]
        rows.append([knn["name"], with_interval(knn), with_interval(linear)])
    return table(["features", "weighted 20-NN", "linear probe"], rows)


def plain(results: list[dict[str, Any]]) -> str:
    """What the README's command says of each collection, less its references, in points."""
    names = ["untrained network", "raw pixels"]
    rows = []
    for row in (row for result in results for row in result["rows"]):
        found = [row["verdict"]["against"][name] for name in names]
        rows.append([
            f"{row['data']}, {row['images']:,} images",
            f"{row['epochs']}",
            f"{row['core_minutes']:.1f}",
            f"{row['verdict']['probe']}, {row['verdict']['metric']}",
            *(
                "{:+.1f} ({:+.1f} to {:+.1f})".format(
                    *(100 * x for x in (one["difference"], *one["interval_95"]))
                )
                for one in found
            ),
        ])  # fmt: skip
    head = ["collection", "epochs", "core-minutes", "measure", *(f"less {name}" for name in names)]
    return table(head, rows)


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
