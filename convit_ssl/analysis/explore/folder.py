"""The folder that ``convit-ssl explore`` writes: a page, its data, thumbnails and a table."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convit_ssl.analysis.explore.collection import Exploration, Images
from convit_ssl.analysis.explore.thumbnails import (
    FOLDER,
    PER_ROW,
    PER_SHEET,
    by_place,
    side_for,
    write_sheets,
)
from convit_ssl.analysis.page import build_page, write_text
from convit_ssl.errors import UserError
from convit_ssl.writing import whole_file

PAGE, TABLE = "index.html", "explore.csv"
_ODD = 120  # images on the page; all of them are in the table
COLUMNS = (
    "file", "part", "label", "group", "cluster", "outlier_score", "x", "y", "knn_label",
    "knn_share", "label_next_rank", "label_next_reason",
)  # fmt: skip


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something else.

    Raises:
        UserError: it is a file, or holds files and no page of ours.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder} is a file; give a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / TABLE).is_file():
        raise UserError(
            f"--out {folder} holds other files; give a new folder, or one that an earlier "
            "convit-ssl explore wrote"
        )


def write_folder(
    folder: Path,
    found: Exploration,
    images: Images,
    load: Callable[[int], Image.Image] | None,
    title: str,
    subtitle: str,
    facts: Mapping[str, str],
    side: int | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write everything; the page comes last.

    Args:
        folder: made where it is missing; an earlier exploration in it is replaced.
        found: what to show.
        images: paths, parts, labels and groups.
        load: the image of a row; None leaves thumbnails out.
        title: of the page.
        subtitle: one line below it.
        facts: name -> text, shown at the bottom: where the features come from.
        side: pixels of a thumbnail; by the number of images where None.
        workers: threads that read images.
        progress: called with (images read, images).

    Returns:
        The page.

    Raises:
        UserError: see `check_folder`.
    """
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # The table first: it is the mark by which this folder is known, if anything stops.
    with whole_file(folder / TABLE) as partial:
        # Names that are not UTF-8 stay what they are, so that a script finds the files.
        partial.write_text(table(found, images), encoding="utf-8", errors="surrogateescape")
    order = by_place(found.points)
    sheet: dict[str, Any] | None = None
    extra: dict[str, np.ndarray] = {}
    if load is not None:
        side = side or side_for(len(order))
        sizes = write_sheets(folder / FOLDER, order, load, side, workers, progress)
        sheet = {"folder": FOLDER, "side": side, "row": PER_ROW, "count": PER_SHEET}
        spot = np.empty(len(order), np.uint32)
        spot[order] = np.arange(len(order))
        extra = {"spot": spot, "size": sizes}
    main, later = _data(found, images, extra)
    main |= {"sheet": sheet, "facts": dict(facts), "table": TABLE}
    _write_script(folder / "data.js", "main", main)
    _write_script(folder / "neighbours.js", "later", later)
    text = build_page("explore", title, subtitle, {"explore": True})
    write_text(folder / PAGE, text)
    return folder / PAGE


def table(found: Exploration, images: Images) -> str:
    """A row an image as CSV, in the order of the features; see `COLUMNS`."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    ranks = {one.row: (rank, one.reason) for rank, one in enumerate(found.to_label, 1)}
    for row, path in enumerate(images.paths):
        guess = share = ""
        if found.votes is not None and found.votes.first[row] >= 0:
            guess = found.classes[found.votes.first[row]]
            share = f"{found.votes.share[row]:.3f}"
        rank, reason = ranks.get(row, ("", ""))
        number = int(found.cluster_of[row])
        x, y = found.points[row]
        rows.writerow((
            path, images.parts[row], images.labels[row], images.groups[row],
            number + 1 if number >= 0 else "", f"{found.outlier[row]:.4f}", f"{x:.4f}",
            f"{y:.4f}", guess, share, rank, reason,
        ))  # fmt: skip
    return text.getvalue()


def _data(
    found: Exploration, images: Images, extra: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the page draws with at once, and what it needs when an image is chosen."""
    parts = sorted(set(images.parts))
    number = {name: position for position, name in enumerate(parts)}
    votes = found.votes
    low, high = found.points.min(axis=0), found.points.max(axis=0)
    span = float(max((high - low).max(), 1e-9))
    arrays = {
        "points": ((found.points - (low + high) / 2) / span).astype(np.float32),
        "target": found.targets.astype(np.int32),
        "group": found.group_of.astype(np.int32),
        "cluster": found.cluster_of.astype(np.int16),
        "part": np.array([number[part] for part in images.parts], np.uint8),
        "outlier": found.outlier.astype(np.float32),
        **extra,
    }
    if votes is not None:
        arrays["guess"] = votes.first.astype(np.int32)
        arrays["share"] = np.rint(votes.share * 255).astype(np.uint8)
    root = common_root(images.paths)
    odd = np.argsort(-found.outlier, kind="stable")[:_ODD]
    main = {
        "images": len(images.paths),
        "layout": found.layout,
        "classes": [_shown(name) for name in found.classes],
        "groups": [_shown(name) for name in found.group_names],
        "parts": parts,
        "clustered_by": found.clustered_by,
        "examples": found.cluster_examples,
        "odd": odd.tolist(),
        "to_label": [[one.row, _shown(one.reason)] for one in found.to_label],
        "to_check": [[one.row, _shown(one.reason)] for one in found.to_check],
        "accuracy": found.accuracy,
        "arrays": {name: _packed(values) for name, values in arrays.items()},
    }
    later = {
        "root": _shown(root),
        "names": [_shown(path[len(root) :]) for path in images.paths],
        "arrays": {
            "near": _packed(found.near.rows.astype(np.uint32)),
            "similarity": _packed(found.near.similarities.astype(np.float32)),
        },
    }
    return main, later


def common_root(paths: Sequence[str]) -> str:
    """The start that all paths share, up to and with a slash; "" if there is none."""
    low, high = min(paths), max(paths)
    same = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    return low[: low.rfind("/", 0, same) + 1]


def _shown(name: str) -> str:
    """Bytes of a name that are not UTF-8 as a replacement sign."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _packed(values: np.ndarray) -> dict[str, str]:
    """Little-endian numbers in base64."""
    kind = values.dtype.newbyteorder("<")
    raw = np.ascontiguousarray(values, kind).tobytes()
    return {"type": values.dtype.name, "data": base64.b64encode(raw).decode("ascii")}


def _write_script(path: Path, name: str, data: Mapping[str, Any]) -> None:
    """A script that hands data over: pages opened from a disk cannot fetch, but load scripts."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    write_text(path, f'exploreData("{name}", {text});\n')
