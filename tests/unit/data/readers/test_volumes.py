"""NIfTI beyond the plain case: orientations, scaled voxels, colours, and what is kept in memory."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convit_ssl.data import open_dataset
from convit_ssl.data.reading.channel_reading import read_planes
from convit_ssl.data.reading.pixels import image_header
from convit_ssl.data.reading.value_range import Reading

nibabel = pytest.importorskip("nibabel")
nifti = pytest.importorskip("convit_ssl.data.readers.nifti")
volumes = pytest.importorskip("convit_ssl.data.readers.volumes")

NATIVE = Reading(depth="native")
TURNS = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in ((1, 1, 1), (-1, 1, -1), (-1, -1, 1))
]


def affine(order: tuple[int, ...], signs: tuple[int, ...]) -> Any:
    made = np.zeros((4, 4))
    made[3, 3] = 1
    for stored, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        made[axis, stored] = sign
    return made


def write(path: Path, values: Any, matrix: Any = None, scale: Any = None) -> str:
    image = nibabel.Nifti1Image(values, np.eye(4) if matrix is None else matrix)
    if scale is not None:
        image.header.set_slope_inter(*scale)
    nibabel.save(image, path)
    return str(path)


@pytest.mark.parametrize(("order", "signs"), TURNS)
@pytest.mark.parametrize("scale", [None, (0.5, -3.0)])
def test_slices_in_any_orientation(tmp_path: Path, order: Any, signs: Any, scale: Any) -> None:
    """The first slice is read from the file, later ones from memory: both as nibabel gives them."""
    values = np.random.default_rng(0).integers(-900, 900, (3, 4, 5, 2)).astype(np.int16)
    path = write(tmp_path / "a.nii.gz", values, affine(order, signs), scale)
    turned = nibabel.as_closest_canonical(nibabel.load(path))
    expected = np.asanyarray(turned.dataobj)
    for axis, number in nifti.AXES.items():
        nifti.VOLUMES.clear()
        for place, time in itertools.product((0, expected.shape[number] - 1), (0, 1)):
            part = f"{path}#{axis}={place},t={time}"
            wanted = np.rot90(np.take(expected[..., time], place, axis=number))
            assert np.array_equal(read_planes(part, None, NATIVE).values[..., 0], wanted)
            header = image_header(part)
            assert (header.height, header.width) == wanted.shape
            assert header.kind == ("float" if scale else "signed")


def test_scaled_voxels_have_a_header_of_floats(tmp_path: Path) -> None:
    """nibabel takes slope and intercept out of the header of a file that it opens."""
    path = write(tmp_path / "a.nii", np.ones((3, 4, 5), np.int16), scale=(0.5, 100.0))
    assert image_header(f"{path}#axial=1").kind == "float"
    assert read_planes(f"{path}#axial=1", None, NATIVE).values == pytest.approx(100.5)


def test_pixels_made_square_have_the_finer_spacing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", np.ones((4, 5, 6), np.int16), np.diag([1.0, 1.0, 3.0, 1.0]))
    planes = read_planes(f"{path}#coronal=2", None, NATIVE)
    assert planes.values.shape == (18, 4, 1)
    assert planes.spacing == (1.0, 1.0)


def test_flat_images_and_colours(tmp_path: Path) -> None:
    flat = np.arange(12, dtype=np.int16).reshape(3, 4)
    path = write(tmp_path / "flat.nii", flat, np.diag([-1.0, 1.0, 1.0, 1.0]))
    assert np.array_equal(read_planes(path, None, NATIVE).values[..., 0], np.rot90(flat[::-1]))
    colour = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    pixels = np.random.default_rng(0).integers(0, 255, (3, 4, 2, 3), np.uint8)
    path = write(tmp_path / "colour.nii.gz", pixels.view(colour)[..., 0])
    planes = read_planes(f"{path}#axial=1", None, NATIVE)
    assert np.array_equal(planes.values, np.rot90(pixels[:, :, 1])) and planes.names[0] == "R"
    assert not image_header(f"{path}#axial=1").grey
    complex_path = write(tmp_path / "complex.nii", np.ones((3, 4, 2), np.complex64))
    with pytest.raises(ValueError, match="complex"):
        read_planes(complex_path, None, NATIVE)


def test_a_volume_is_kept_where_there_is_room(tmp_path: Path) -> None:
    voxels = np.zeros((4, 4, 8), np.int16)  # 256 bytes
    paths = [write(tmp_path / f"{n}.nii.gz", voxels) for n in range(3)]
    kept = volumes.Volumes(most_bytes=600)

    def loaded() -> list[bool]:
        return [kept.get(path).loaded for path in paths]

    kept.to_be_read(paths[0])
    assert loaded() == [False] * 3  # one slice of a volume costs no more than that slice
    for path in (paths[0], paths[1], paths[1]):
        kept.to_be_read(path)
    assert loaded() == [True, True, False]
    for path in (paths[2], paths[0], paths[2], paths[1]):
        kept.to_be_read(path)  # in no order: what is in memory stays
    assert loaded() == [True, True, False]
    for _ in range(2):
        kept.to_be_read(paths[2])  # from end to end: what was used longest ago makes room
    assert loaded() == [False, True, True]


def test_a_volume_that_changes_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", np.zeros((3, 3, 3), np.int16))
    for value in (0, 7):
        write(tmp_path / "a.nii", np.full((3, 3, 3), value, np.int16))
        Path(path).touch()
        for _ in range(3):
            assert (read_planes(f"{path}#axial=1", None, NATIVE).values == value).all()


def write_pair(path: Path, values: Any) -> None:
    nibabel.save(nibabel.Nifti1Pair(values, np.diag([-1.0, 1.0, 1.0, 1.0])), path)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_pair_of_header_and_voxels_is_one_volume(tmp_path: Path, ending: str) -> None:
    values = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    path = tmp_path / f"a.img{ending}"
    write_pair(path, values)
    assert {file.name for file in tmp_path.iterdir()} == {path.name, f"a.hdr{ending}"}
    images = open_dataset("folder", tmp_path, reading=NATIVE)
    assert list(images.files) == [f"a.img{ending}#axial={n}" for n in range(5)]
    for place, part in enumerate(images.paths):
        planes = read_planes(part, None, NATIVE)
        assert np.array_equal(planes.values[..., 0], np.rot90(values[::-1, :, place]))
    assert image_header(images.paths[0]).width == 3
    # A table may name the header.
    planes = read_planes(f"{tmp_path}/a.hdr{ending}#axial=1", None, NATIVE)
    assert np.array_equal(planes.values[..., 0], np.rot90(values[::-1, :, 1]))


def test_headers_of_other_formats_are_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "scan.nii", np.zeros((3, 4, 2), np.int16))
    (tmp_path / "scene.hdr").write_bytes(b"ENVI\nsamples = 3\n" + b" " * 400)
    (tmp_path / "scene.img").write_bytes(bytes(24))
    nibabel.save(nibabel.AnalyzeImage(np.zeros((3, 4, 2), np.int16), np.eye(4)), tmp_path / "b.img")
    assert len(open_dataset("folder", tmp_path)) == 2
    assert "2 .hdr files" in caplog.text and "2 .img files" in caplog.text
    assert "of .hdr and .img files, only NIfTI pairs are read" in caplog.text


def test_a_broken_pair_is_one_message(tmp_path: Path) -> None:
    write_pair(tmp_path / "a.img", np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    write_pair(tmp_path / "b.img", np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    (tmp_path / "b.img").unlink()
    (tmp_path / "a.img").write_bytes(bytes(10))
    images = open_dataset("folder", tmp_path, max_corrupt=1.0, replace=False)
    assert {file.partition("#")[0] for file in images.files} == {"a.img", "b.hdr"}
    assert [images[n][2] for n in range(len(images))] == [-1] * 10
    for name in ("a.img", "b.hdr"):
        with pytest.raises((OSError, ValueError), match=r"[ab]\.img"):
            read_planes(f"{tmp_path}/{name}#axial=0", None, NATIVE)
