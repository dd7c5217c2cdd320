"""Extract features once, memory-mapped, for every probe to reuse."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from convit_ssl import __version__
from convit_ssl.checksums import say_once
from convit_ssl.data.loading.loader_workers import shared_mib, workers_that_fit
from convit_ssl.data.loading.paths import is_url
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.errors import UserError
from convit_ssl.evaluation import processes
from convit_ssl.evaluation.features import fingerprint
from convit_ssl.evaluation.features.feature_set import FeatureSet, checksums, load_features
from convit_ssl.leftovers import release, remove_abandoned, working_folder
from convit_ssl.machine import start_method
from convit_ssl.models.products import onednn_products

__all__ = ["FeatureSet", "Progress", "extract_features", "fingerprint_parts", "load_features"]

Progress = Callable[[int, int], None]
FORMAT = 3  # 3: no rows for unreadable images


def extract_features(
    extractor: nn.Module,
    dataset: fingerprint.LabelledImages,
    folder: str | Path,
    *,
    batch_size: int = 256,
    workers: int = 0,
    device: torch.device | str | None = None,
    precision: str = "fp32",
    parts: dict[str, str] | None = None,
    progress: Progress | None = None,
    recompute: bool = False,
) -> FeatureSet:
    """Write the features of a data set into `folder`, or reuse those that are there.

    Images that cannot be read have no row; `images.json` lists them with the reason.

    All processes of a torch.distributed group work on one memory-mapped file. Batches are
    cut the same way whatever the number of processes, so the features are equal bit by bit.

    Args:
        extractor: `TokenFeatures(model)` or `PixelFeatures(transform)`: images to (B, D), with
            `layout`, the columns.
        dataset: gives (image, target, index), index -1 where the image could not be read
            (`open_dataset(..., replace=False)`); its transform must not be random.
        folder: replaced when it holds features of other weights, data or transforms.
        batch_size: images at a time in one process.
        workers: loader processes per process.
        device: this process's; a GPU where there is one by default.
        precision: "fp32", or "bf16" for autocast.
        parts: `fingerprint_parts` of the same arguments, where they are known already.
        progress: called with (images done, images in all), in rank 0.
        recompute: extract them even where `folder` holds the same ones.

    Raises:
        UserError: no images, none that can be read, a random transform, features that are not
            finite, or a folder that holds something else.
    """
    folder = Path(folder)
    _refuse_no_images(dataset, {})
    parts = parts or fingerprint_parts(extractor, dataset, precision)
    found = _reusable(folder, parts, recompute)
    if processes.broadcast(found is not None):
        return _as_named_now(found if found is not None else load_features(folder), dataset)
    device = torch.device(device) if device is not None else processes.default_device()
    with _partial(folder) as partial:
        started = time.perf_counter()
        layout = layout_of(extractor)
        _create(partial, dataset, max(last for _, last in layout.values()))
        batches = _batches(len(dataset), batch_size)
        loader = _loader(dataset, batches, workers, device)
        gaps = _fill(extractor, loader, partial, device, precision, progress)
        shares = processes.gather(_unreadable(dataset, gaps))
        unread = {row: reason for share in shares for row, reason in share}
        _refuse_no_images(dataset, unread)
        if processes.rank() == 0:
            _leave_out(partial, unread)
            seconds = time.perf_counter() - started
            _finish(partial, folder, parts, layout, seconds, getattr(extractor, "patches", None))
        processes.barrier()
    return load_features(folder, verify=False)


def _refuse_no_images(dataset: fingerprint.LabelledImages, unread: dict[int, str]) -> None:
    if len(dataset) == 0:
        raise UserError("the data set has no images, so there are no features to extract")
    if len(unread) == len(dataset):
        first = next(iter(dataset.paths))
        raise UserError(f"none of {len(dataset):,} images can be read; {first}: {unread[0]}")


def fingerprint_parts(
    extractor: nn.Module, dataset: fingerprint.LabelledImages, precision: str = "fp32"
) -> dict[str, str]:
    """What the features depend on: a hash of each part, and `all` over the parts.

    `data` says which images and labels, alike on every machine; `files` also says when they
    were changed last, and keeps a cache from outliving them.
    """
    data, files = fingerprint.data_fingerprints(dataset)
    parts = {
        "weights": fingerprint.weights_fingerprint(getattr(extractor, "model", extractor)),
        "data": data,
        "files": files,
        "transform": fingerprint.transform_fingerprint(dataset.transform),
        "columns": fingerprint.hash_json(layout_of(extractor)),
        "precision": precision,
        "software": f"convit_ssl {__version__}, torch {torch.__version__}",
    }
    reading = getattr(dataset, "reading", Reading()).describe()
    if reading:
        parts["reading"] = fingerprint.hash_json(reading)
    return {**parts, "all": fingerprint.combine({**parts, "format": FORMAT})}


def layout_of(extractor: nn.Module) -> dict[str, tuple[int, int]]:
    """Name -> (first, last + 1) channel of each column that an extractor makes."""
    layout: Any = extractor.layout
    return dict(layout)


def _reusable(folder: Path, parts: dict[str, str], recompute: bool) -> FeatureSet | None:
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(
                f"{folder} contains files that are not features; give another folder, or empty it"
            )
        return None
    try:
        if recompute or json.loads(manifest.read_text())["fingerprint"]["all"] != parts["all"]:
            return None
        found = load_features(folder)
    except (UserError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = error if isinstance(error, UserError) else f"{manifest} is damaged"
        say_once(f"warning: {reason}; extracting the features again")
        return None
    return replace(found, manifest={**found.manifest, "reused": True})


def _as_named_now(found: FeatureSet, dataset: fingerprint.LabelledImages) -> FeatureSet:
    """Features with the paths of a data set, whose folder may have moved since they were made."""
    first = str(next(iter(dataset.paths)))
    if first == found.paths[0] or first in found.unreadable or is_url(first):
        return found
    before = fingerprint.shared_folder([*found.paths, *found.unreadable])
    now = fingerprint.shared_folder(dataset.paths)

    def named(path: str) -> str:
        return now + path[len(before) :]

    unreadable = {named(path): reason for path, reason in found.unreadable.items()}
    return replace(found, paths=[named(path) for path in found.paths], unreadable=unreadable)


@contextlib.contextmanager
def _partial(folder: Path) -> Iterator[Path]:
    """Rank 0's temporary folder beside `folder`, in every process."""
    if processes.rank() != 0:
        yield Path(processes.broadcast(""))
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder.parent, f".{folder.name}.stale-")
    with working_folder(folder.parent, f".{folder.name}.partial-") as partial:
        yield Path(processes.broadcast(str(partial)))


def _create(partial: Path, dataset: fingerprint.LabelledImages, width: int) -> None:
    if processes.rank() == 0:
        shape = (len(dataset), width)
        _map(partial / "features.npy", np.float32, shape).flush()
        unread = _map(partial / "targets.npy", np.int64, shape[:1])
        unread[:] = -1
        unread.flush()
        images = {
            "paths": [str(path) for path in dataset.paths],
            "classes": [str(name) for name in dataset.classes],
        }
        (partial / "images.json").write_text(json.dumps(images))
    processes.barrier()


def _map(path: Path, dtype: Any, shape: tuple[int, ...]) -> Any:
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def _batches(images: int, batch_size: int) -> list[list[int]]:
    """This process's share of the batches: every world_size-th."""
    starts = range(0, images, batch_size)[processes.rank() :: processes.world_size()]
    return [list(range(start, min(start + batch_size, images))) for start in starts]


def _loader(
    dataset: fingerprint.LabelledImages,
    batches: list[list[int]],
    workers: int,
    device: torch.device,
) -> Iterator[tuple[list[int], Any]]:
    fitting = _fitting(dataset, batches, min(workers, len(batches)))
    loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=batches,
        num_workers=fitting,
        multiprocessing_context=start_method() if fitting else None,
        pin_memory=device.type == "cuda",
    )
    return zip(batches, loader, strict=True)


def _fitting(dataset: Any, batches: list[list[int]], workers: int) -> int:
    """The workers, or as many as shared memory has room for."""
    if workers == 0:
        return 0
    each = processes.world_size() * shared_mib(dataset, len(batches[0]))
    return workers_that_fit(workers, each)


def _fill(
    extractor: nn.Module,
    batches: Iterator[tuple[list[int], Any]],
    partial: Path,
    device: torch.device,
    precision: str,
    progress: Progress | None,
) -> list[int]:
    """Write this process's rows; returns those whose images could not be read."""
    gaps: list[int] = []
    features = np.load(partial / "features.npy", mmap_mode="r+")
    targets = np.load(partial / "targets.npy", mmap_mode="r+")
    extractor = extractor.to(device).eval()
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    for rows, (images, labels, indices) in batches:
        try:
            with torch.inference_mode(), autocast, onednn_products(device.type == "cpu"):
                made = extractor(images.to(device, non_blocking=True)).float().cpu().numpy()
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"{device} ran out of memory with {len(rows)} images at a time; use a smaller "
                f"--batch-size"
            ) from error
        if not np.isfinite(made).all():
            raise UserError("the features are not finite; the weights may come from a diverged run")
        span = slice(rows[0], rows[-1] + 1)
        features[span] = made
        targets[span] = np.asarray(labels)
        gaps += [row for row, index in zip(rows, np.asarray(indices), strict=True) if index < 0]
        if progress is not None and processes.rank() == 0:
            done = min(span.stop + (processes.world_size() - 1) * len(rows), len(features))
            progress(done, len(features))
    features.flush()
    targets.flush()
    return gaps


def _unreadable(dataset: Any, gaps: Sequence[int]) -> list[tuple[int, str]]:
    """Rows whose images this process could not read, each with why."""
    fault_log = getattr(getattr(dataset, "reader", None), "fault_log", None)
    faults = {} if fault_log is None else fault_log.read()
    paths = list(map(str, dataset.paths)) if faults else []
    # Where the data set put other images in their place, the rows are of those.
    replaced = {row for row, path in enumerate(paths) if path in faults}
    return [
        (row, faults.get(str(dataset.paths[row]), "cannot be read"))
        for row in sorted(replaced | set(gaps))
    ]


def _leave_out(partial: Path, unread: Mapping[int, str]) -> None:
    """Take the rows of unreadable images out, and list these images."""
    if not unread:
        return
    gone = sorted(unread)
    images = json.loads((partial / "images.json").read_text())
    kept = np.delete(np.arange(len(images["paths"])), gone)
    for name in ("features.npy", "targets.npy"):
        whole = np.load(partial / name, mmap_mode="r")
        shorter = _map(partial / f"kept-{name}", whole.dtype, (len(kept), *whole.shape[1:]))
        for first in range(0, len(kept), 65536):
            shorter[first : first + 65536] = whole[kept[first : first + 65536]]
        shorter.flush()
        os.replace(partial / f"kept-{name}", partial / name)
    paths = images["paths"]
    images["paths"] = [paths[row] for row in kept]
    images["unreadable"] = [{"path": paths[row], "reason": unread[row]} for row in gone]
    (partial / "images.json").write_text(json.dumps(images))


def _finish(
    partial: Path,
    folder: Path,
    parts: dict[str, str],
    layout: dict[str, tuple[int, int]],
    seconds: float,
    patches: tuple[int, int, int] | None = None,
) -> None:
    targets = np.load(partial / "targets.npy")
    images = json.loads((partial / "images.json").read_text())
    manifest = {
        "format": FORMAT,
        "fingerprint": parts,
        "columns": layout,
        "images": len(targets),
        "labelled": int((targets >= 0).sum()),
        "unreadable": len(images.get("unreadable", [])),
        "seconds": round(seconds, 3),
        "images_per_s": round(len(targets) / seconds, 1),
        "processes": processes.world_size(),
    }
    if patches is not None:  # rows, columns and channels of a map
        manifest["patches"] = list(patches)
    manifest["sha256"] = checksums(partial, manifest)
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    release(partial)
    if folder.exists():
        stale = Path(tempfile.mkdtemp(prefix=f".{folder.name}.stale-", dir=folder.parent))
        os.replace(folder, stale)
        shutil.rmtree(stale)
    os.chmod(partial, 0o755)
    os.replace(partial, folder)
