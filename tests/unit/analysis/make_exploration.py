"""A made-up exploration of any size, in milliseconds: points in heaps, neighbours at random."""

from __future__ import annotations

import numpy as np

from convit_ssl.analysis.explore import Exploration, Images, Near
from convit_ssl.analysis.explore.choosing import Choice
from convit_ssl.analysis.explore.voting import Votes


def make_exploration(count, classes=12, groups=40, seed=0):
    """(what was found, images), of which every tenth has no label."""
    draw = np.random.default_rng(seed)
    heap = draw.integers(0, 20, count)
    centres = draw.normal(0, 6, (20, 2))
    points = (centres[heap] + draw.normal(0, 0.8, (count, 2))).astype(np.float32)
    targets = np.where(np.arange(count) % 10 == 3, -1, heap % classes)
    names = [f"class {k}" for k in range(classes)]
    group_of = draw.integers(0, groups, count)
    group_names = [f"patient {k:03d}" for k in range(groups)]
    near = draw.integers(0, count, (count, 12))
    share = draw.uniform(0.5, 1, count)
    found = Exploration(
        points=points,
        layout="UMAP",
        near=Near(near, np.sort(draw.uniform(0.5, 1, (count, 12)), axis=1)[:, ::-1]),
        cluster_of=heap - (heap == 19) * 20,
        clustered_by="HDBSCAN on the map",
        cluster_examples=[np.flatnonzero(heap == k)[:24].tolist() for k in range(19)],
        outlier=draw.lognormal(0, 0.2, count),
        classes=names,
        targets=targets,
        group_names=group_names,
        group_of=group_of,
        votes=Votes(heap % classes, targets * 0, share, 2 * share - 1),
        to_label=[Choice(row, "stands for 9 images") for row in range(3, min(count, 303), 10)],
        to_check=[Choice(0, "neighbours: class 2, 93 %")],
    )
    images = Images(
        [f"/data/a collection/patient {group_of[i]:03d}/<b>{i:06d}.png" for i in range(count)],
        ["train"] * count,
        [names[target] if target >= 0 else "" for target in targets],
        [group_names[group] for group in group_of],
    )
    return found, images
