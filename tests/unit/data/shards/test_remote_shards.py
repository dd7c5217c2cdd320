"""Shards behind a server: HTTP with and without ranges, and S3 where s3fs is installed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from convit_ssl.data import open_dataset
from convit_ssl.data.loading import retries, shard_cache
from convit_ssl.data.loading import storage as storage_module
from convit_ssl.data.loading.shard_cache import CACHE_VARIABLE
from convit_ssl.errors import UserError
from tests.unit.data.make_shards import pixels, write_shards
from tests.unit.data.servers import Bucket, Busy, Files, WholeFiles, serve

pytest.importorskip("aiohttp")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("CONVIT_SSL_DATA", str(tmp_path / "kept"))
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    storage_module._descriptor.cache_clear()
    yield write_shards(tmp_path / "served" / "bucket")
    storage_module._descriptor.cache_clear()


def check(data_dir: str, workers: int = 0) -> None:
    """All images, in this process and in loader workers, are those that were written."""
    dataset = open_dataset("shards", data_dir)
    assert list(dataset.targets) == [number % 3 for number in range(26)]
    loader: Any = DataLoader(dataset, batch_size=None, num_workers=workers)
    for image, _, index in loader:
        assert (np.asarray(image) == pixels(int(index))).all()
    assert not dataset.reader.fault_log.read()


@pytest.mark.parametrize("written_out", [False, True])
def test_http(folder: Path, written_out: bool) -> None:
    with serve(folder.parent, Files) as address:
        check(f"{address}/bucket" + ("/train/{0000..0003}.tar" if written_out else ""))


def test_http_in_workers_that_were_forked_after_the_first_read(folder: Path) -> None:
    with serve(folder.parent, Files) as address:
        open_dataset("shards", f"{address}/bucket")[0]
        check(f"{address}/bucket", workers=2)


def test_a_server_without_ranges(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(folder.parent, WholeFiles) as address:
        monkeypatch.setenv(CACHE_VARIABLE, "1")
        check(f"{address}/bucket", workers=2)
        monkeypatch.delenv(CACHE_VARIABLE)
        storage_module._descriptor.cache_clear()
        with pytest.raises(
            UserError, match=r"does not support range requests.*CONVIT_SSL_SHARD_CACHE="
        ):
            check(f"{address}/bucket")


@pytest.mark.parametrize("copies", ["0", "1"])
@pytest.mark.parametrize("names", ["", "/train/{0000..0003}.tar"])
def test_a_busy_server_is_asked_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, names: str, copies: str
) -> None:
    monkeypatch.setattr(retries, "RETRY_DELAYS", (0.01,) * 8)
    monkeypatch.setenv(CACHE_VARIABLE, copies)
    monkeypatch.setattr(Busy, "asked", Counter())
    with serve(folder.parent, Busy) as address:
        check(f"{address}/bucket{names}")


def test_val_behind_a_busy_server_is_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "RETRY_DELAYS", (0.01,) * 8)
    monkeypatch.setattr(Busy, "asked", Counter())
    for split in ("train", "val"):
        (folder / split / "0000.tar").rename(folder / f"{split}-0.tar")
    with serve(folder.parent, Busy) as address:
        assert len(open_dataset("shards", f"{address}/bucket/{{split}}-{{0..0}}.tar", "val")) == 5


def test_what_a_server_does_not_have_is_not_asked_for_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries.time, "sleep", None)
    with serve(folder.parent, Files) as address:
        place = f"{address}/bucket/train/{{0000..0004}}.tar"
        with pytest.raises(UserError, match=r"0004\.tar cannot be read: .*404"):
            open_dataset("shards", place)


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "RETRY_DELAYS", (0.0,))
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9/x.* cannot be (listed|read)"):
        open_dataset("shards", "http://127.0.0.1:9/x")
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9/0\.tar cannot be read"):
        open_dataset("shards", "http://127.0.0.1:9/{0..1}.tar")


def test_a_list_over_http(folder: Path) -> None:
    (folder / "pictures").mkdir()
    dataset = open_dataset("shards", folder)
    for number in range(3):
        dataset[number][0].save(folder / "pictures" / f"{number}.png")
    (folder / "train.txt").write_text("".join(f"pictures/{n}.png {n}\n" for n in range(3)))
    with serve(folder.parent, Files) as address:
        listed = open_dataset("list", f"{address}/bucket")
        assert (np.asarray(listed[2][0]) == pixels(2)).all() and listed[2][1] == 2


def test_s3(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs", reason="s3fs is not installed (pip install s3fs)")
    with serve(folder.parent, Bucket) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        check("s3://bucket")
        check("s3://bucket", workers=2)
        monkeypatch.setenv(CACHE_VARIABLE, "1")
        storage_module._descriptor.cache_clear()
        check("s3://bucket")


@pytest.mark.timeout(60)
def test_names_of_locks_that_are_alike_hold_nobody_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One lock in 256 has the same two digits as another; here all have."""
    sha256 = hashlib.sha256

    class Alike:
        def __init__(self, data: bytes = b"") -> None:
            self.digest = sha256(data)

        def hexdigest(self) -> str:
            return "00" + self.digest.hexdigest()[2:]

    monkeypatch.setattr(hashlib, "sha256", Alike)
    monkeypatch.setenv(CACHE_VARIABLE, "1")
    with serve(folder.parent, Files) as address:
        dataset = open_dataset("shards", f"{address}/bucket")
        assert (np.asarray(dataset[0][0]) == pixels(0)).all()


def test_a_remote_shard_that_changed_is_fetched_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv(CACHE_VARIABLE, "1")
    monkeypatch.setenv("CONVIT_SSL_DATA", str(tmp_path / "cache"))
    system, url = fsspec.filesystem("memory"), "memory://changing/a.tar"
    for content in (b"first", b"other"):  # of the same length
        system.pipe_file("/changing/a.tar", content)
        shard_cache._version.cache_clear()  # as in another process
        copy = shard_cache.local_copy(url)
        assert copy is not None and Path(copy).read_bytes() == content
        assert shard_cache.local_copy(url) == copy
    assert len(list((tmp_path / "cache").rglob("*.tar"))) == 1
    system.rm_file("/changing/a.tar")  # the server is gone: the copy answers
    shard_cache._version.cache_clear()
    assert shard_cache.local_copy(url) == copy
