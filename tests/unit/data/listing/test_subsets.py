"""Choices among images: the same everywhere, nested, and honest about what is missing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convit_ssl.cli.main import run_command
from convit_ssl.data.images import files_digest
from convit_ssl.data.listing.folders import Listing, find_images
from convit_ssl.data.listing.subsets import SubsetSpec, choose, parse_subset, write_list
from convit_ssl.errors import UserError


def listing(counts: dict[str, int], root: str = "/data/train") -> Listing:
    files, targets = [], []
    for target, (name, count) in enumerate(sorted(counts.items())):
        files += [f"{name}/{name}_{number}.JPEG" for number in range(count)]
        targets += [target] * count
    return Listing(Path(root), files, targets, sorted(counts))


IMAGES = listing({"n01": 40, "n02": 60, "n03": 20})


@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    fraction=st.floats(0.01, 1.0),
    seed=st.integers(0, 5),
)
def test_a_fraction_is_taken_of_each_class(counts: list[int], fraction: float, seed: int) -> None:
    images = listing({f"c{i}": count for i, count in enumerate(counts)})
    chosen = choose(images, SubsetSpec(fraction=fraction, seed=seed))
    found = Counter(chosen.targets)
    assert [found[i] for i in range(len(counts))] == [max(1, round(c * fraction)) for c in counts]
    assert chosen.files == sorted(chosen.files, key=images.files.index)
    larger = choose(images, SubsetSpec(fraction=min(1.0, 2 * fraction), seed=seed))
    assert set(chosen.files) <= set(larger.files)


def test_seeds_differ_and_other_classes_do_not_matter() -> None:
    one, other = (choose(IMAGES, f"per_class=5,seed={seed}") for seed in (0, 1))
    assert set(one.files) != set(other.files)
    alone = choose(listing({"n02": 60}), "per_class=5,seed=0")
    assert alone.files == [file for file in one.files if file.startswith("n02")]
    # Written down, so that a subset of today is that of any later version.
    assert files_digest(one.files) == ONE_DIGEST


ONE_DIGEST = "2fcff3b4a4217b46"


def test_classes_are_numbered_anew_in_train_and_val(tmp_path: Path) -> None:
    names = tmp_path / "classes.txt"
    names.write_text("# mine\nn03 tench\n\nn01\n")
    for text, classes in (
        ("classes=first:2", ["n01", "n02"]),
        ("classes=n03+n01", ["n01", "n03"]),
        (f"classes=file:{names}", ["n01", "n03"]),
    ):
        for split in ("train", "val"):
            chosen = choose(IMAGES, text, split)
            assert chosen.classes == classes
            assert sorted(set(chosen.targets)) == [0, 1]
            named = {classes[t] for t in chosen.targets}
            assert named == {file.split("/")[0] for file in chosen.files}


def test_val_stays_whole_but_for_classes() -> None:
    assert choose(IMAGES, "per_class=1", "val") == IMAGES
    assert len(choose(IMAGES, "per_class=1,classes=first:2", "val").files) == 100


def test_lists_in_simclrs_format_go_out_and_in(tmp_path: Path) -> None:
    path = tmp_path / "1percent.txt"
    chosen = choose(IMAGES, "fraction=0.1,seed=2")
    write_list(chosen, path)
    lines = path.read_text().splitlines()
    assert lines[0].startswith("n01_")
    assert choose(IMAGES, f"list={path}").files == chosen.files
    path.write_text("".join(f"./n01/{line}\n" for line in lines if line.startswith("n01")))
    assert len(choose(IMAGES, f"list={path}").files) == 4
    plain = Listing(Path("/d"), ["a/1.png", "b/1.png"], [0, 1], ["a", "b"])
    write_list(plain, path)
    assert path.read_text() == "a/1.png\nb/1.png\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["1percent.txt"]


def test_a_list_and_classes_meet(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    write_list(choose(IMAGES, "fraction=0.1"), path)
    chosen = choose(IMAGES, f"list={path},classes=first:1")
    assert len(chosen.files) == 4
    assert chosen.classes == ["n01"]


@pytest.mark.parametrize(
    "text",
    ["fraction=0.05,seed=0", "per_class=10,seed=3", "list=a.txt", "classes=first:100"],
)
def test_the_text_is_read_and_written(text: str) -> None:
    assert str(parse_subset(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fraction=5", "5 % is 0.05"),
        ("fraction=0", "above 0"),
        ("fraction=nan", "above 0"),
        ("fraction=x", "not a number"),
        ("per_class=0", "at least 1"),
        ("per_class=1.5", "not a number"),
        ("fraction=0.1,per_class=3", "not both"),
        ("fraction=0.1,fraction=0.2", "given twice"),
        ("size=3", "cannot read 'size=3'"),
        ("0.05", "for example fraction=0.05"),
        ("fraction=", "cannot read"),
        ("fraction=0.1,seed=-1", "at least 0"),
        ("per_class=30", r"n03 \(20\)"),
        ("classes=first:4", "from 1 to 3"),
        ("classes=first:x", "from 1 to 3"),
        ("classes=n01+n9", "not in /data/train: n9"),
        ("classes=file:/nowhere.txt", "No such file"),
        ("list=/nowhere.txt", "cannot read the list /nowhere.txt"),
    ],
)
def test_messages(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose(IMAGES, text)


def test_messages_about_lists(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"

    def message(text: str | bytes, images: Listing = IMAGES) -> str:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        with pytest.raises(UserError) as caught:
            choose(images, f"list={path}")
        return str(caught.value)

    assert "2 files of the list" in message("n01_0.JPEG\nn01_99.JPEG\n../../etc/passwd\n")
    assert "../../etc/passwd" in message("../../etc/passwd\n")
    assert "is empty" in message("\n# nothing\n")
    assert "not a text file" in message(b"\x89PNG\xff\xfe")
    assert "twice" in message("n01_0.JPEG\nn01/n01_0.JPEG\n")
    doubled = Listing(Path("/d"), ["a/1.png", "b/1.png"], [0, 1], ["a", "b"])
    assert "several folders" in message("1.png\n", doubled)
    unlabelled = Listing(Path("/d"), ["1.png"], [-1], [])
    with pytest.raises(UserError, match="have none"):
        choose(unlabelled, "per_class=1")
    with pytest.raises(UserError, match="have none"):
        choose(unlabelled, "classes=first:1")


def test_a_list_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write the list"):
        write_list(IMAGES, tmp_path / "nowhere" / "list.txt")
    odd = Listing(Path("/d"), ["a/b\nc.png"], [0], ["a"])
    with pytest.raises(UserError, match="cannot stand on a line"):
        write_list(odd, tmp_path / "list.txt")
    assert not any(tmp_path.iterdir())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in IMAGES.files:
        (tmp_path / "data" / "train" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "train" / file).touch()
    out = tmp_path / "ten.txt"
    common = ["--data-dir", str(tmp_path / "data")]
    assert run_command("subset", [*common, "--per-class", "10", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "30 of 120 images" in said
    chosen = choose(find_images(tmp_path / "data"), f"list={out}")
    assert files_digest(chosen.files) in said
    assert run_command("subset", [*common, "--per-class", "30"]) == 2
    assert "n03 (20)" in capsys.readouterr().err
    assert run_command("subset", []) == 2


def test_a_share_that_was_rounded_up_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listing = Listing(
        tmp_path,
        [f"{n % 5}/{n}.png" for n in range(125)],
        [n % 5 for n in range(125)],
        list("abcde"),
    )
    assert len(choose(listing, "fraction=0.01").files) == 5
    assert "fraction=0.01 of 125 images" in caplog.text and "5 were taken, 4.0 %" in caplog.text
    caplog.clear()
    choose(listing, "fraction=0.2")
    choose(listing, "per_class=1")
    assert not caplog.text


def test_a_rare_class_of_which_more_than_the_share_is_taken_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The share of all images stays right, but that of the rare classes does not."""
    chosen = choose(listing({"common": 1000, "rare": 3, "rarer": 2}), "fraction=0.1")
    assert Counter(chosen.targets) == {0: 100, 1: 1, 2: 1}
    assert "rare (1 of 3), rarer (1 of 2)" in caplog.text
    caplog.clear()
    choose(listing({"common": 1000, "rare": 30}), "fraction=0.1")
    assert not caplog.text
