"""What is said of a collection is right where the answer is known."""

from __future__ import annotations

import csv
import io
import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.neighbors import LocalOutlierFactor

from convit_ssl.analysis.explore import Images, explore, write_folder
from convit_ssl.analysis.explore.choosing import cover, doubtful, label_next, unsure
from convit_ssl.analysis.explore.clusters import cluster, examples
from convit_ssl.analysis.explore.folder import COLUMNS, common_root, table
from convit_ssl.analysis.explore.layout import place, principal_axes
from convit_ssl.analysis.explore.outliers import local_outlier_factor, outlier_score
from convit_ssl.analysis.explore.thumbnails import by_place, write_sheets
from convit_ssl.analysis.explore.voting import vote
from convit_ssl.cli.explore_command import without_self
from convit_ssl.cli.main import run_command
from convit_ssl.errors import UserError
from convit_ssl.evaluation.probes.neighbours import nearest_neighbours

_make = runpy.run_path(str(Path(__file__).with_name("make_exploration.py")))["make_exploration"]


def heaps(count=90, dim=12, seed=0):
    """Three heaps of directions; (features of length one, heap)."""
    draw = np.random.default_rng(seed)
    centres = np.eye(dim)[:3] * 4
    heap = np.arange(count) % 3
    features = (centres[heap] + draw.normal(0, 0.4, (count, dim))).astype(np.float32)
    return features / np.linalg.norm(features, axis=1, keepdims=True), heap


def near_of(features, k=15):
    rows, similarities = nearest_neighbours(features, features, k + 1)
    return without_self(rows.numpy(), similarities.numpy())


def images_of(labels, groups=None):
    count = len(labels)
    paths = [f"/images/{i:03d}.png" for i in range(count)]
    return Images(paths, ["all"] * count, labels, groups or [""] * count)


def test_outlier_factor_is_that_of_scikit_learn():
    features, _ = heaps()
    near = near_of(features)
    reference = LocalOutlierFactor(n_neighbors=15, metric="euclidean").fit(features)
    ours = local_outlier_factor(near.rows, near.distances())
    assert np.allclose(ours, -reference.negative_outlier_factor_, rtol=1e-3)


def test_copies_make_nothing_near_them_odd():
    features, _ = heaps()
    features = np.vstack([features, np.repeat(features[:1], 20, axis=0)])
    odd = np.roll(features[0], 3)
    near = near_of(np.vstack([features, odd]))
    score = outlier_score(near.rows, near.distances())
    assert score.argmax() == len(features)
    assert np.sort(score)[-2] < 2


def test_odd_images_that_are_like_each_other_are_still_odd():
    features, _ = heaps()
    draw = np.random.default_rng(1)
    few = np.eye(12, dtype=np.float32)[6] * 4 + draw.normal(0, 0.8, (20, 12))
    near = near_of(np.vstack([features, few]).astype(np.float32))
    score = outlier_score(near.rows, near.distances())
    assert local_outlier_factor(near.rows, near.distances())[90:].mean() < 1.1
    assert score[90:].min() > 1.15 * np.median(score[:90])


def test_an_image_is_never_its_own_neighbour():
    features, _ = heaps(30)
    features[10:25] = features[9]  # more copies than neighbours are asked for
    near = near_of(features, 5)
    assert near.rows.shape == (30, 5)
    assert not (near.rows == np.arange(30)[:, None]).any()


def test_images_of_ones_own_group_do_not_vote():
    rows = np.array([[1, 2, 3], [0, 2, 3], [3, 0, 1], [2, 0, 1]])
    targets = np.array([0, 0, 1, 1])
    alike = np.array([[0.9, 0.5, 0.4]] * 4)
    free = vote(rows, alike, targets, 2, np.full(4, -1))
    assert free.first.tolist() == [0, 0, 1, 1]
    grouped = vote(rows, alike, targets, 2, np.array([7, 7, 8, 8]))
    assert grouped.first.tolist() == [1, 1, 0, 0]
    nobody = vote(rows, alike, targets, 2, np.zeros(4, np.int64))
    assert nobody.first.tolist() == [-1] * 4 and np.isnan(nobody.margin).all()


def test_unlabelled_images_do_not_vote_and_shares_add_up():
    rows, alike = np.array([[1, 2, 3]] * 4), np.full((4, 3), 0.5)
    targets = np.array([-1, 0, 1, -1])
    votes = vote(rows, alike, targets, 2, np.full(4, -1))
    assert votes.share == pytest.approx(0.5) and votes.margin == pytest.approx(0)


def test_coverage_takes_one_of_each_heap_first_and_no_odd_one():
    features, heap = heaps()
    features = np.vstack([features, -features[:1]])  # far from everything
    components, _ = principal_axes(features, 8)
    chosen = [one.row for one in cover(components, np.zeros(91, bool), 10)]
    assert sorted(heap[chosen[:3]]) == [0, 1, 2]
    assert len(set(chosen)) == 10


def test_coverage_passes_by_what_is_labelled():
    features, heap = heaps()
    components, _ = principal_axes(features, 8)
    labelled = heap != 2
    chosen = cover(components, labelled, 5)
    assert {int(heap[one.row]) for one in chosen} == {2}
    assert cover(components, np.ones(90, bool)) == []


def test_clusters_are_the_heaps_and_examples_are_of_them():
    features, heap = heaps()
    components, shares = principal_axes(features, 8)
    assert shares[0] >= shares[1] and shares.sum() <= 1 + 1e-6
    found, _ = cluster(None, components)
    for k in range(3):
        assert len(set(found[heap == k])) == 1
    shown = examples(found, components, 6)
    assert [len(rows) for rows in shown] == [6, 6, 6]
    assert all(set(found[rows]) == {k} for k, rows in enumerate(shown))


def test_k_means_stands_in_where_density_shows_nothing():
    components = np.random.default_rng(0).uniform(size=(200, 3)).astype(np.float32)
    found, how = cluster(None, components)
    assert found.min() >= 0
    assert how.startswith("k-means") or "HDBSCAN" in how
    same, how = cluster(None, np.zeros((20, 3), np.float32))
    assert same.tolist() == [0] * 20 and how == "all images are identical: one cluster"


def test_pca_is_the_same_picture_each_time_and_umap_is_named_where_it_is_missing(monkeypatch):
    features, _ = heaps()
    near = near_of(features)
    components, _ = principal_axes(features, 8)
    first, name = place(features, components, near.rows, near.distances(), "pca")
    assert name == "PCA" and np.array_equal(first, components[:, :2])
    monkeypatch.setitem(sys.modules, "umap", None)
    assert place(features, components, near.rows, near.distances())[1] == "PCA"
    with pytest.raises(UserError, match=r"convit_ssl\[explore\]"):
        place(features, components, near.rows, near.distances(), "umap")


def test_a_wrong_label_is_the_first_to_check():
    features, heap = heaps()
    labels = ["abc"[k] for k in heap]
    labels[4] = "c" if labels[4] != "c" else "a"
    labels[7] = ""
    found = explore(features, images_of(labels), near_of(features), layout="pca")
    assert found.to_check[0].row == 4 and len(found.to_check) == 1
    assert [one.row for one in found.to_label] == [7]
    assert found.accuracy == pytest.approx(88 / 89)


def test_disagreement_is_told_with_its_classes():
    rows, alike = np.array([[1, 2]] * 3), np.full((3, 2), 0.5)
    targets = np.array([-1, 0, 1])
    votes = vote(rows, alike, targets, 2, np.full(3, -1))
    told = unsure(votes, targets >= 0, rows, ["cat", "dog"])
    assert [one.reason for one in told] == ["neighbours disagree: 50% cat, 50% dog"]
    assert doubtful(votes, targets, ["cat", "dog"]) == []
    assert [one.row for one in label_next(told, told)] == [0]


def test_two_images_and_no_labels_are_enough():
    features = np.eye(2, dtype=np.float32)
    found = explore(features, images_of(["", ""]), near_of(features, 15))
    assert found.layout == "PCA" and found.votes is None and len(found.to_label) == 2


def test_sheets_hold_the_images_in_the_order_of_the_map(tmp_path):
    points = np.array([[0, 0], [1, 1], [0.01, 0]], np.float32)
    order = by_place(points)
    assert order.tolist() == [0, 2, 1]
    (tmp_path / "9.jpg").write_bytes(b"of an earlier, larger collection")

    def load(row):
        if row == 2:
            raise OSError
        return Image.new("RGB", (40, 20), ("red", "lime")[row])

    sizes = write_sheets(tmp_path, order, load, 32)
    assert sizes.tolist() == [[32, 16], [32, 16], [0, 0]]
    assert [path.name for path in tmp_path.iterdir()] == ["0.jpg"]
    sheet = Image.open(tmp_path / "0.jpg")
    assert sheet.getpixel((16, 8))[0] > 200 and sheet.getpixel((64 + 16, 8))[1] > 200


def test_names_cannot_end_the_scripts_and_the_table_has_every_image(tmp_path):
    found, images = _make(50)
    images = Images(["/a/</script>\u2028.png", *images.paths[1:]], *list(vars(images).values())[1:])
    page = write_folder(tmp_path / "out", found, images, None, "<t>", "", {"a": "</script>"})
    text = (page.parent / "neighbours.js").read_text() + (page.parent / "data.js").read_text()
    assert text.startswith('exploreData("later", {"root":"/"')
    assert "\u2028" not in text and "&lt;t&gt;" in page.read_text()
    assert not re.search(r"https?://(?!www\.w3\.org)", page.read_text())
    main = json.loads((page.parent / "data.js").read_text()[len('exploreData("main", ') : -3])
    assert main["images"] == 50
    rows = list(csv.DictReader(io.StringIO(table(found, images))))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 50
    assert rows[3]["label"] == "" and rows[3]["label_next_rank"] == "1"
    write_folder(tmp_path / "out", found, images, None, "again", "", {})


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    found, images = _make(5)
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="holds other files"):
        write_folder(tmp_path, found, images, None, "", "", {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_common_start_of_paths_ends_with_a_slash():
    assert common_root(["/a/bc/1.png", "/a/bd/2.png"]) == "/a/"
    assert common_root(["s3://x/1.png", "s3://x/10.png"]) == "s3://x/"
    assert common_root(["/a/1.png"]) == "/a/"
    assert common_root(["a.png", "b.png"]) == ""


@pytest.fixture
def collection(tmp_path):
    """40 images of two colours in five patients' folders, and a table that labels half."""
    draw = np.random.default_rng(0)
    rows = ["file,label,patient"]
    for number in range(40):
        colour = np.array([(220, 40, 40), (40, 40, 220)])[number % 2]
        pixels = np.clip(colour + draw.normal(0, 12, (16, 16, 3)), 0, 255).astype(np.uint8)
        path = tmp_path / "images" / f"p{number % 5}" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        label = ("red", "blue")[number % 2] if number < 20 else ""
        rows.append(f"{path.name},{label},p{number % 5}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_the_command_from_images_to_page_and_table(collection, capsys):
    out = collection / "out"
    options = ["pixels", "--data-dir", f"{collection / 'images'}", "--cache", f"{collection}/cache"]
    options += ["--labels", f"{collection / 'labels.csv'}:file,label,patient", "--layout", "pca"]
    asked = [*options, "--group-by", "column:patient", "--out", str(out), "--to", "csv"]
    assert run_command("explore", asked) == 0
    said = capsys.readouterr().out
    assert "40 images, 20 labelled; PCA map" in said and "right label for 100.0 %" in said
    rows = list(csv.DictReader((out / "explore.csv").open()))
    assert len(rows) == 40 and {row["group"] for row in rows} == {f"p{k}" for k in range(5)}
    assert rows[0]["file"] == str(collection / "images" / "p0" / "00.png")
    assert sorted(int(row["label_next_rank"]) for row in rows if not row["label"]) == [
        *range(1, 21)
    ]
    first, *others = csv.DictReader((out / "features.csv").open())
    assert len(others) == 39 and first["path"] == rows[0]["file"] and first["group"] == "p0"
    assert first["label"] == "red" and len(first) == 5 + 16 * 16 * 3
    assert (out / "thumbnails" / "0.jpg").is_file() and (out / "index.html").is_file()


def test_the_command_on_a_folder_of_features_whose_images_are_gone(collection, capsys):
    features = str(collection / "features")
    data = ["--data-dir", str(collection / "images")]
    assert run_command("features", ["pixels", *data, "--out", features]) == 0  # there is no val
    (collection / "images" / "p0" / "00.png").unlink()
    out = ["--layout", "pca", "--out", str(collection / "out")]
    assert run_command("explore", [features, *out]) == 0
    told = capsys.readouterr()
    assert "1 of 40 images could not be read for their thumbnails" in told.err
    assert "written" in told.out


def test_maps_of_patches_are_not_taken_for_vectors(collection, capsys):
    data = ["--data-dir", str(collection / "images"), "--img-size", "16"]
    made = ["--splits", "train", "--tokens", "patch", "--out", str(collection / "maps")]
    assert run_command("features", ["random:convit_nano", *data, *made]) == 0
    assert run_command("explore", [str(collection / "maps"), "--out", str(collection / "o")]) == 2
    assert "without --tokens patch" in capsys.readouterr().err


def test_bad_input_is_told_before_anything_is_read(collection, capsys, monkeypatch):
    data = ["--data-dir", str(collection / "images")]
    assert run_command("explore", ["pixels", *data, "--out", str(collection)]) == 2
    assert "holds other files" in capsys.readouterr().err
    out = ["--out", str(collection / "out")]
    assert run_command("explore", ["pixels", *data, *out, "--labels", "no.csv:file,label"]) == 2
    assert "no.csv" in capsys.readouterr().err
    assert run_command("explore", ["pixels", *data, *out, "--thumbnail", "999"]) == 2
    assert "at most 255" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "umap", None)
    assert run_command("explore", ["pixels", *data, *out, "--layout", "umap"]) == 2
    assert "convit_ssl[explore]" in capsys.readouterr().err
