"""Divisions: stratified, whole groups, the same everywhere, written down and read again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convit_ssl.data.listing.division import TRAIN, Division, DivisionSpec, divide, part_of
from convit_ssl.data.listing.folders import Listing
from convit_ssl.errors import UserError


def folders(counts: dict[str, int]) -> Listing:
    files, targets = [], []
    for target, (name, count) in enumerate(sorted(counts.items())):
        files += [f"{name}/{number:04d}.png" for number in range(count)]
        targets += [target] * count
    return Listing(Path("/data"), files, targets, sorted(counts))


def patients(sizes: list[int], classes: int = 2, seed: int = 0) -> Listing:
    """patient/image.png with labels by draw, as a table would give them."""
    draw = np.random.default_rng(seed)
    files = [f"p{p:02d}/{i:03d}.png" for p, size in enumerate(sizes) for i in range(size)]
    targets = [int(t) for t in draw.integers(0, classes, len(files))]
    return Listing(Path("/data"), files, targets, [f"c{i}" for i in range(classes)])


def counts_of(division: Division, rows: np.ndarray) -> list[int]:
    return np.bincount(np.asarray(division.listing.targets)[rows], minlength=2).tolist()


@settings(max_examples=20, deadline=None)
@given(
    counts=st.lists(st.integers(2, 40), min_size=1, max_size=5),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 3),
)
def test_a_holdout_takes_its_share_of_each_class(
    counts: list[int], share: float, seed: int
) -> None:
    images = folders({f"c{i}": count for i, count in enumerate(counts)})
    division = divide(images, DivisionSpec(holdout=share, seed=seed))
    tested = Counter(images.targets[i] for i in division.test_rows())
    for label, count in enumerate(counts):
        assert tested[label] == min(max(round(count * share), 1), count - 1)
    assert sorted([*division.test_rows(), *division.train_rows()]) == list(range(len(images.files)))


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 30), min_size=4, max_size=25), seed=st.integers(0, 3))
def test_no_group_is_torn_apart_and_no_class_is_tested_unlearned(
    sizes: list[int], seed: int
) -> None:
    images = patients(sizes, seed=seed)
    try:
        divisions = [
            divide(images, DivisionSpec(holdout=0.25, group_by="folder:1", seed=seed)),
            divide(images, DivisionSpec(folds=3, group_by="folder:1", seed=seed)),
        ]
    except UserError:
        return
    for division in divisions:
        for fold in range(division.folds):
            test, train = division.test_rows(fold), division.train_rows(fold)
            assert len(test) and not set(division.groups[test]) & set(division.groups[train])
            targets = np.asarray(images.targets)
            assert set(targets[test]) <= set(targets[train])


def test_groups_come_near_the_share_that_was_asked_for() -> None:
    images = patients([25] * 20 + [10] * 3)
    for seed in range(5):
        division = divide(images, DivisionSpec(holdout=0.2, group_by="folder:1", seed=seed))
        assert len(division.group_names) == 23
        assert 0.13 < len(division.test_rows()) / len(images.files) < 0.27
        for tested, all_of in zip(
            counts_of(division, division.test_rows()), np.bincount(images.targets), strict=True
        ):
            assert 0.1 < tested / all_of < 0.3
    first, second = (
        divide(images, DivisionSpec(holdout=0.2, group_by="folder:1", seed=s)) for s in (0, 1)
    )
    assert first.digest() != second.digest()


def test_each_image_is_tested_in_one_fold() -> None:
    images = patients([13] * 23, classes=3)
    for group_by in (None, "folder:1"):
        division = divide(images, DivisionSpec(folds=5, group_by=group_by))
        tested = np.concatenate([division.test_rows(fold) for fold in range(5)])
        assert sorted(tested) == list(range(len(images.files)))


def test_half_of_the_images_is_a_holdout_too() -> None:
    division = divide(folders({"a": 10, "b": 6}), DivisionSpec(holdout=0.5))
    assert counts_of(division, division.test_rows()) == [5, 3]
    assert set(division.parts) == {TRAIN, 0}


@pytest.mark.parametrize(
    ("spec", "images", "words"),
    [
        (DivisionSpec(holdout=0.2), folders({"a": 1, "b": 1}), "no class of"),
        (DivisionSpec(holdout=1.2), folders({"a": 5}), "between 0 and 1"),
        (DivisionSpec(holdout=0.2, folds=5), folders({"a": 5}), "holdout and folds were given"),
        (
            DivisionSpec(group_by="folder:1"),
            folders({"a": 5}),
            "together with holdout=0.2 or folds=5",
        ),
        (
            DivisionSpec(holdout=0.2, group_by="folder:1"),
            folders({"a": 5, "b": 9}),
            "where the labels are",
        ),
        (DivisionSpec(holdout=0.2, group_by="folder:3"), folders({"a": 5}), "finds no group"),
        (DivisionSpec(holdout=0.2, group_by="column:p"), folders({"a": 5}), "needs a table"),
        (DivisionSpec(holdout=0.2, group_by="name:("), folders({"a": 5}), "regular expression"),
        (DivisionSpec(folds=5, group_by="name:^"), patients([4, 4]), "finds no group"),
        (DivisionSpec(folds=5, group_by="folder:1"), patients([4, 4]), "2 groups"),
    ],
)
def test_what_cannot_be_divided_is_said(spec: DivisionSpec, images: Listing, words: str) -> None:
    with pytest.raises(UserError, match=words):
        divide(images, spec)


def write_table(tmp_path: Path, images: Listing, **columns: list[str]) -> Path:
    path = tmp_path / "table.csv"
    rows = zip(images.files, *columns.values(), strict=True)
    lines = [";".join(["file", *columns]), *(";".join(row) for row in rows)]
    path.write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_labels_and_groups_come_from_a_table(tmp_path: Path) -> None:
    flat = Listing(Path("/data"), [f"{i:03d}.png" for i in range(60)], [-1] * 60, [])
    labels = ["sick" if i % 3 else "well" for i in range(60)]
    labels[7] = ""
    path = write_table(tmp_path, flat, state=labels, patient=[str(i // 6) for i in range(60)])
    spec = DivisionSpec(holdout=0.2, labels=f"{path}:file,state,patient", group_by="column:patient")
    division = divide(flat, spec)
    assert division.listing.classes == ["sick", "well"]
    assert [division.listing.targets[i] for i in (0, 1, 7)] == [1, 0, -1]
    assert len(division.group_names) == 10
    assert list(division.unlabelled_rows()) == [7]
    assert not set(division.groups[division.test_rows()]) & set(
        division.groups[division.train_rows()]
    )
    assert division.notes == ("1 of 60 images are unlabelled and not used for testing",)


def test_a_table_may_lie_beside_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, images = tmp_path / "here", tmp_path / "images"
    (images / "Train").mkdir(parents=True)
    here.mkdir()
    monkeypatch.chdir(here)
    spec = DivisionSpec(holdout=0.5, labels="labels.csv:file,label")

    def classes(root: Path) -> list[str]:
        files = [f"{number}.png" for number in range(8)]
        return divide(Listing(root, files, [-1] * 8, []), spec).listing.classes

    def write(folder: Path, *words: str) -> None:
        rows = [f"{number}.png,{words[number % 2]}" for number in range(8)]
        (folder / "labels.csv").write_text("\n".join(["file,label", *rows]))

    with pytest.raises(UserError, match=r"labels\.csv: there is no such file in .*here.*images"):
        classes(images)
    write(images, "cat", "dog")
    assert classes(images) == classes(images / "Train") == ["cat", "dog"]
    write(here, "sick", "well")  # the current folder comes first
    assert classes(images) == ["sick", "well"]


def test_a_parquet_table_divides_as_a_csv_does(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    flat = Listing(Path("/data"), [f"{i:03d}.png" for i in range(60)], [-1] * 60, [])
    labels = ["sick" if i % 3 else "well" for i in range(60)]
    path = write_table(tmp_path, flat, state=labels, patient=[f"p{i // 6}" for i in range(60)])
    pandas.read_csv(path, sep=";", dtype=str).to_parquet(tmp_path / "same.parquet")
    parts = [
        divide(flat, DivisionSpec(holdout=0.2, labels=f"{one}:file,state,patient",
                                  group_by="column:patient")).test_rows().tolist()
        for one in (path, tmp_path / "same.parquet")
    ]  # fmt: skip
    assert parts[0] == parts[1] and len(parts[0]) == 12


def test_a_table_that_names_other_images_is_refused(tmp_path: Path) -> None:
    flat = Listing(Path("/data"), ["a.png", "b.png"], [-1, -1], [])
    other = Listing(Path("/data"), ["x.png", "y.png"], [-1, -1], [])
    path = write_table(tmp_path, other, label=["0", "1"])
    with pytest.raises(UserError, match=r"none of the 2 files of column 'file'.*x\.png.*a\.png"):
        divide(flat, DivisionSpec(holdout=0.5, labels=f"{path}:file,label"))
    with pytest.raises(UserError, match="no column 'state'; its columns are file, label"):
        divide(flat, DivisionSpec(holdout=0.5, labels=f"{path}:file,state"))
    doubled = tmp_path / "double.csv"
    doubled.write_text("file,label\na.png,0\na.png,1\n")
    with pytest.raises(UserError, match=r"two different rows for a\.png: rows 2 and 3"):
        divide(flat, DivisionSpec(holdout=0.5, labels=f"{doubled}:file,label"))


def test_labels_come_from_a_folder_or_the_name() -> None:
    files = [f"p{p}/{'ab'[i % 2]}/{'xy'[i % 2]}_{i}.png" for p in range(5) for i in range(8)]
    images = Listing(Path("/data"), files, [int(f[1]) for f in files], [f"p{i}" for i in range(5)])
    for labels, classes in (("folder:2", ["a", "b"]), ("name:([xy])_", ["x", "y"])):
        spec = DivisionSpec(holdout=0.2, labels=labels, group_by="folder:1")
        division = divide(images, spec)
        assert division.listing.classes == classes
        assert counts_of(division, division.test_rows()) == [4, 4]


def test_a_division_is_written_down_and_read_again(tmp_path: Path) -> None:
    images = patients([7] * 11)
    for spec in (
        DivisionSpec(holdout=0.3, group_by="folder:1"),
        DivisionSpec(folds=4, seed=2),
    ):
        division = divide(images, spec)
        division.write(tmp_path / "split.csv")
        again = divide(images, DivisionSpec(file=str(tmp_path / "split.csv")))
        assert again.digest() == division.digest()
        assert (again.parts == division.parts).all() and again.folds == division.folds
        assert (again.groups == division.groups).all()
        assert again.listing == division.listing
    few = Listing(images.root, images.files[5:], images.targets[5:], images.classes)
    with pytest.raises(UserError, match=r"5 of 77 images of the split .* are not in /data"):
        divide(few, DivisionSpec(file=str(tmp_path / "split.csv")))


def test_the_division_depends_on_names_and_seed_alone() -> None:
    """A digest that was published stays what it is."""
    division = divide(folders({"a": 10, "b": 15}), DivisionSpec(holdout=0.2, seed=1))
    assert division.digest() == "6da3e0c6a730b0a0"
    assert len(part_of(division, "val").files) == 5 and len(part_of(division, "train").files) == 20


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (DivisionSpec(fold=-1), "fold=-1: give 0 or more, together with folds=5"),
        (DivisionSpec(folds=5, fold=-1), r"fold=-1: with folds=5 it is 0\.\.4"),
        (DivisionSpec(folds=5, fold=5), r"fold=5: with folds=5 it is 0\.\.4"),
    ],
)
def test_a_fold_that_there_is_not(spec: DivisionSpec, said: str) -> None:
    with pytest.raises(UserError, match=said):
        spec.check()
