"""Every kind of damage, in every place that weights are read from: right, said, or refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from convit_ssl.checksums import say_once
from convit_ssl.engines.checkpoints.files import checkpoint_name, find_checkpoint, write_checkpoint
from convit_ssl.errors import UserError
from convit_ssl.export import load_trunk
from convit_ssl.export.save import save_trunk
from convit_ssl.models import ConViT, ConViTConfig
from convit_ssl.models.fingerprint import weights_fingerprint

CONFIG = ConViTConfig(
    img_size=8, patch_size=4, embed_dim=16, depth=2, num_heads=4, num_gpsa_layers=1, num_classes=0
)


def zeroed(data: bytearray) -> bytearray:
    quarter = len(data) // 4
    return data[:quarter] + bytes(quarter) + data[2 * quarter :]


def one_bit(data: bytearray) -> bytearray:
    data[len(data) // 2] ^= 1
    return data


# From the bytes of a file to those in its place; None deletes it.
FAULTS: dict[str, Callable[[bytearray], bytearray] | None] = {
    "truncated": lambda data: data[: len(data) // 2],
    "zeroed part": zeroed,
    "one bit": one_bit,
    "empty": lambda data: bytearray(),
    "missing": None,
    "foreign": lambda data: bytearray(b"GIF89a" + os.urandom(5000)),
}


def spoil(path: Path, fault: str) -> None:
    harm = FAULTS[fault]
    data = bytearray(path.read_bytes())
    path.unlink()
    if harm is not None:
        path.write_bytes(harm(data))


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, list[str]]:
    """A run folder with two checkpoints, and the fingerprints of their weights."""
    prints = []
    for step in (1, 2):
        torch.manual_seed(step)
        model = ConViT(CONFIG).eval()
        save_trunk(model, tmp_path / "one.torch")
        state = torch.load(tmp_path / "one.torch", weights_only=True)
        write_checkpoint(tmp_path / "run" / "checkpoints", checkpoint_name(step, step), state, 3)
        prints.append(weights_fingerprint(model))
    say_once.cache_clear()
    return tmp_path / "run", prints


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()


@pytest.mark.parametrize("place", ["", "checkpoints", "checkpoints/last.torch"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_falls_back_and_says_so(
    place: str, fault: str, run: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, prints = run
    newest = folder / "checkpoints" / checkpoint_name(2, 2)
    assert weights_fingerprint(load_trunk(folder / place)) == prints[1]
    spoil(newest, fault)
    assert weights_fingerprint(load_trunk(folder / place)) == prints[0]
    said = capsys.readouterr().err
    assert newest.name in said and f"using {checkpoint_name(1, 1)} instead" in said
    if fault != "missing":
        with pytest.raises(UserError, match="is damaged"):
            load_trunk(newest)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Path.mkdir, "is a folder"),
        (os.mkfifo, "is a pipe or a device"),
        (lambda path: path.symlink_to("/dev/zero"), "is a pipe or a device"),
        (lambda path: path.symlink_to("/nowhere"), "is a link that leads nowhere"),
    ],
)
def test_a_newest_that_is_not_a_file_is_said(
    make: Callable[[Path], object],
    words: str,
    run: tuple[Path, list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, prints = run
    newest = folder / "checkpoints" / checkpoint_name(2, 2)
    newest.unlink()
    make(newest)
    assert weights_fingerprint(load_trunk(folder)) == prints[0]
    assert f"{newest.name}, {words}" in capsys.readouterr().err
    if words != "is a folder":  # which resuming refuses, because it writes a file of that name
        found = find_checkpoint(folder / "checkpoints")
        assert found is not None and words in found.skipped[0]


def test_swapped_checkpoints_are_both_refused(run: tuple[Path, list[str]]) -> None:
    folder = run[0] / "checkpoints"
    first, second = (folder / checkpoint_name(step, step) for step in (1, 2))
    data = first.read_bytes(), second.read_bytes()
    for path, other in zip((first, second), reversed(data), strict=True):
        path.unlink()
        path.write_bytes(other)
    with pytest.raises(UserError, match="every checkpoint in .* is damaged"):  # noqa: RUF043
        load_trunk(run[0])


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "missing"])
def test_checkpoints_without_checksums(fault: str, run: tuple[Path, list[str]]) -> None:
    """Of an older format, or copied without their .sha256 files."""
    folder, prints = run
    for path in (folder / "checkpoints").glob("*.sha256"):
        path.unlink()
    assert weights_fingerprint(load_trunk(folder)) == prints[1]
    spoil(folder / "checkpoints" / checkpoint_name(2, 2), fault)
    # A bit that nothing reads, such as padding, changes nothing.
    assert weights_fingerprint(load_trunk(folder)) in (prints[0], prints[1])


@pytest.mark.parametrize("ending", [".safetensors", ".torch", ".pth"])
@pytest.mark.parametrize("fault", FAULTS)
def test_exported_files_are_refused(ending: str, fault: str, tmp_path: Path) -> None:
    model = ConViT(CONFIG).eval()
    path = tmp_path / f"t{ending}"
    save_trunk(model, path)
    whole = weights_fingerprint(load_trunk(path, img_size=8))
    spoil(path, fault)
    try:
        found = weights_fingerprint(load_trunk(path, img_size=8))
    except UserError:
        return
    assert fault == "one bit" and found == whole  # of padding or a name that nothing reads


def test_a_line_of_progress_is_no_message() -> None:
    from tests.fault_commands import Ran
    from tests.fault_matrix import MESSAGE, SILENT, outcome

    progress = (
        "convit-ssl study: importing libraries (torch), 2 s\nconvit-ssl study: working, 4 s\n"
    )
    more = "convit-ssl study: 0 of 2 runs after 8 s\n"
    answers = {"newest": 1, "older": 2}
    assert outcome(Ran(1, progress + more + "failed: it is damaged\n"), answers) == MESSAGE
    assert outcome(Ran(1, progress + more), answers).startswith(SILENT)
    twice = "convit-ssl study: it is damaged\nfailed: it is damaged\n"
    assert outcome(Ran(1, twice), answers).startswith(SILENT)
