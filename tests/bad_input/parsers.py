"""Every parser of files that a user can hand in, with whole files for it to be damaged.

Each reads one file and gives a value or raises `UserError`; readers of images raise
`UnreadableImageError`. Formats whose library is not installed have no entry.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from convit_ssl.analysis.metrics import read_metrics
from convit_ssl.analysis.runs import read_run
from convit_ssl.analysis.study_points import read_study
from convit_ssl.bench import cluster, format_cases
from convit_ssl.data.listing.annotations import labelled
from convit_ssl.data.listing.folders import Listing
from convit_ssl.data.listing.lists import find_listed_images
from convit_ssl.data.listing.masks import read_mask
from convit_ssl.data.listing.part_names import split_part
from convit_ssl.data.listing.table_collections import find_table_images
from convit_ssl.data.loading.samples import FaultLog, SampleReader, UnreadableImageError
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.data.shards.tables import read_table as read_contents_table
from convit_ssl.data.shards.tables import write_table as write_contents_table
from convit_ssl.data.shards.tar import read_contents
from convit_ssl.engines.callbacks.heartbeat import describe_stall, read_beats
from convit_ssl.engines.checkpoints.files import read_state
from convit_ssl.engines.options.compose import compose_experiment
from convit_ssl.engines.options.plan import make_plan
from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.feature_set import load_features
from convit_ssl.evaluation.results import read_rows, results_table
from convit_ssl.export import load_trunk
from convit_ssl.export.figures import figures_from_results
from convit_ssl.export.stated import stated_beside
from convit_ssl.reading import read_yaml
from convit_ssl.runs import RunFolder
from tests.bad_input import corpus

LONGEST = 20_000  # bytes of a seed: what is read in a millisecond finds more
_ROWS = ("a.png", "b.png", "c/d.jpg")


@dataclass(frozen=True)
class Parser:
    """One way in.

    Attributes:
        name: of the file, which may say what it is.
        seeds: whole or nearly whole files.
        read: what is done with a path.
        refusals: what it may raise.
    """

    name: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[Path], Any]
    refusals: type[Exception] | tuple[type[Exception], ...] = UserError


def _of(kind: str, suffix: str) -> Callable[[], list[bytes]]:
    """Files of the corpus that are short, and whose mistake is not in their first bytes."""
    files: corpus.Files = getattr(corpus, kind)()
    return lambda: [
        data for name, (data, _) in files.items() if name.endswith(suffix) and len(data) < LONGEST
    ]


def _beside(path: Path) -> Any:
    (path.parent / "config.json").write_bytes(path.read_bytes())
    return stated_beside(path)


def _results(path: Path) -> Any:
    return results_table(read_rows([path]))


def _table() -> list[bytes]:
    rows = [f"{name},{'cat' if name < 'b' else 'dog'},p{name[0]},train" for name in _ROWS]
    comma = "\n".join(["file,label,patient,split", *rows, "v.png,cat,q,val"])
    return [comma.encode(), comma.replace(",", ";").encode(), comma.replace(",", "\t").encode()]


def _lines() -> list[bytes]:
    rows = [{"file_name": name, "label": 1, "split": "train", "more": [1]} for name in _ROWS]
    return ["\n".join(map(json.dumps, rows)).encode()]


def _parquet() -> list[bytes]:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    file = io.BytesIO()
    parquet.write_table(arrow.table({"file": list(_ROWS), "label": [0, 1, None]}), file)
    return [file.getvalue()]


def _list() -> list[bytes]:
    return ["\n".join(f"{name} {n % 2}" for n, name in enumerate(_ROWS)).encode(),
            "\n".join(_ROWS).encode("utf-16")]  # fmt: skip


def _labels(path: Path) -> Any:
    return labelled(Listing(path.parent, list(_ROWS), [-1] * 3, []), f"{path}:file,label,patient")


def _shard() -> list[bytes]:
    made = []
    for form in (tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=form) as archive:
            for name in ("0.png", "0.cls", f"{'long/' * 30}1.jpg", "1.json"):
                member = tarfile.TarInfo(name)
                member.size = 3
                archive.addfile(member, io.BytesIO(b"1\n2"[:3] if name != "0.cls" else b"cat"))
        made.append(file.getvalue())
    return made


def _contents() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "contents.json"
        write_contents_table(path, [[("0.png", 512, 3, "1"), ("1.png", 1024, 3, None)]])
        return [path.read_bytes()]


def _picture(kind: str, mode: str = "RGB", side: int = 16) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, kind)
    return file.getvalue()


def _pictures(kind: str) -> Callable[[], list[bytes]]:
    modes = {"PNG": ("RGB", "L", "P", "LA", "1", "I;16"), "TIFF": ("RGB", "I;16", "F", "1")}
    return lambda: [_picture(kind, mode) for mode in modes.get(kind, ("RGB", "L"))]


def _array() -> list[bytes]:
    made = []
    for dtype in (np.uint8, np.int16, np.float32, np.bool_):
        file = io.BytesIO()
        np.save(file, np.ones((5, 7, 3), dtype))
        made.append(file.getvalue())
    return made


def _image(reading: Reading, part: str = "") -> Callable[[Path], Any]:
    def read(path: Path) -> Any:
        reader = SampleReader([""] * 10**6, fault_log=FaultLog(), reading=reading)
        made = reader.channels if reading.native else reader.array
        return made(str(path) + part)

    return read


def _folder(change: str) -> Callable[[Path], Any]:
    """A folder of features, one of whose files is the one that is read."""

    def read(path: Path) -> Any:
        folder = path.parent / "features"
        folder.mkdir(exist_ok=True)
        for name, data in _features().items():
            (folder / name).write_bytes(path.read_bytes() if name == change else data)
        found = load_features(folder)
        return np.asarray(found.features).sum(), found.labelled(), found.column()

    return read


def _features() -> dict[str, bytes]:
    arrays = {"features.npy": np.ones((3, 4), np.float32), "targets.npy": np.arange(3)}
    files = {}
    for name, array in arrays.items():
        file = io.BytesIO()
        np.save(file, array)
        files[name] = file.getvalue()
    images = {"paths": list(_ROWS), "classes": ["a", "b", "c"], "unreadable": []}
    manifest = {"columns": {"cls": [0, 4]}, "fingerprint": {"all": "0"}, "seconds": 1.0}
    files["images.json"] = json.dumps(images).encode()
    files["manifest.json"] = json.dumps(manifest).encode()
    return files


def _feature_seeds(name: str) -> Callable[[], list[bytes]]:
    return lambda: [_features()[name]]


def _state() -> list[bytes]:
    made = []
    ours = {"config": {"seed": 0}, "ranks": [{"a": torch.zeros(2)}]}
    for new in (True, False):
        file = io.BytesIO()
        state = {"classy_state_dict": {"w": torch.ones(3)}, "convit_ssl": ours}
        torch.save(state, file, _use_new_zipfile_serialization=new)
        made.append(file.getvalue())
    return made


def _metrics() -> list[bytes]:
    rows: list[dict[str, Any]] = [
        {"kind": "step", "step": n, "epoch": 1 + n // 2, "loss": 1.0 / (n + 1)} for n in range(4)
    ]
    rows.append({"kind": "epoch", "epoch": 1, "step": 2, "loss": 0.5, "gates": [[0.1, 0.2]]})
    rows.append({"kind": "watch", "epoch": 2, "knn": 0.5})
    return ["\n".join(map(json.dumps, rows)).encode()]


def _beat(path: Path) -> Any:
    folder = path.parent / "heartbeat"
    folder.mkdir(exist_ok=True)
    (folder / "rank_00000.json").write_bytes(path.read_bytes())
    return describe_stall(read_beats(path.parent), 10.0)


def _beats() -> list[bytes]:
    beat = {"rank": 0, "host": "a", "pid": 3, "step": 7, "stage": "loss", "since": 1.0}
    return [json.dumps({**beat, "written": 2.0}).encode()]


def _run(path: Path) -> Any:
    folder = path.parent / "run"
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_bytes(path.read_bytes())
    (folder / "metrics.jsonl").write_bytes(_metrics()[0])
    return read_run(folder)


def _study() -> list[bytes]:
    row = {"name": "a", "kind": "study", "accuracy": 0.5, "seed": 0, "fraction": 0.1}
    row |= {"settings": {"trunk": "convit_nano"}, "fingerprint": "0", "images_per_s": 3}
    content = {"results": [row, {**row, "seed": 1}], "summary": [{"name": "a", "paper": 0.4}]}
    return [json.dumps(content).encode()]


def _steps() -> list[bytes]:
    return [json.dumps({"kind": "step", "comparisons": [{"rows": [{"a": 1}]}]}).encode()]


def _config(path: Path) -> Any:
    import contextlib

    place = path.parent / "configs" / "config" / "mine.yaml"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(path.read_bytes())
    with contextlib.chdir(path.parent):
        composed = compose_experiment(["config=mine"])
        return make_plan(composed) if composed.is_ours else composed


def _configs() -> list[bytes]:
    return [(corpus.BASE + "optim:\n  epochs: 2\n").encode()]


def _special() -> Iterator[tuple[str, Parser]]:
    """Formats beyond Pillow's, each written by its own library."""
    values = np.sort(np.random.default_rng(0).integers(0, 4000, (32, 32, 4)), axis=1)  # smooth
    side, format_cases.SIDE = format_cases.SIDE, 32
    try:
        for case in format_cases.CASES:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    path = case.write(Path(folder), values.astype(np.uint16))
                except ImportError:
                    continue
                if "Zarr" in case.name:
                    continue  # a folder; its files are JSON and raw bytes
                file, part = split_part(path)
                data = Path(file).read_bytes()
                name = Path(file).name
                part = f"#{part}" if part else ""
            native = Reading(depth="native")
            read = _image(native, part)
            word = case.name.split(",")[0].split(" (")[0].lower()
            seeds = [data]
            yield word, Parser(name, lambda seeds=seeds: seeds, read, UnreadableImageError)  # type: ignore[misc]
    finally:
        format_cases.SIDE = side


PARSERS: dict[str, Parser] = {
    "pth": Parser("a.pth", _of("wrong_weights", ".pth"), load_trunk),
    "safetensors": Parser("a.safetensors", _of("wrong_weights", ".safetensors"), load_trunk),
    "results": Parser("a.json", _of("results", ".json"), _results),
    "figures": Parser("a.json", _of("results", ".json"), lambda p: figures_from_results([p])),
    "yaml": Parser("a.yaml", _of("yamls", ".yaml"), read_yaml),
    "beside": Parser("a.json", _of("results", ".json"), _beside),
    "list": Parser("train.txt", _list, find_listed_images),
    "table": Parser("a.csv", _table, find_table_images),
    "lines": Parser("a.jsonl", _lines, find_table_images),
    "labels": Parser("a.csv", _table, _labels),
    "shard": Parser("a.tar", _shard, lambda path: read_contents(str(path))),
    "contents": Parser("a.json", _contents, read_contents_table),
    "mask": Parser("a.png", _pictures("PNG"), lambda path: read_mask(str(path))),
    "checkpoint": Parser("a.torch", _state, read_state),
    "metrics": Parser("metrics.jsonl", _metrics, lambda path: read_metrics(RunFolder(path.parent))),
    "beats": Parser("a.json", _beats, _beat),
    "run": Parser("a.yaml", _configs, _run),
    "study": Parser("a.json", _study, lambda path: read_study([path])),
    "steps": Parser("a.json", _steps, lambda path: cluster._comparisons(str(path), "step")),
    "config": Parser("a.yaml", _configs, _config),
    **{
        f"features {name}": Parser(name, _feature_seeds(name), _folder(name))
        for name in ("manifest.json", "images.json", "features.npy", "targets.npy")
    },
    **{
        kind.lower(): Parser(
            f"a.{kind.lower()}", _pictures(kind), _image(Reading()), UnreadableImageError
        )
        for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP")
    },
    "array": Parser("a.npy", _array, _image(Reading()), UnreadableImageError),
    **dict(_special()),
}
try:
    import pyarrow  # noqa: F401

    PARSERS["parquet"] = Parser("a.parquet", _parquet, find_table_images)
except ImportError:
    pass
