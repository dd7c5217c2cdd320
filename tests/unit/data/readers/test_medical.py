"""DICOM and NIfTI, against what pydicom and nibabel themselves give."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convit_ssl.data import open_dataset
from convit_ssl.data.readers import reads_by_path
from convit_ssl.data.reading.channel_reading import read_channels, read_planes
from convit_ssl.data.reading.pixels import image_header
from convit_ssl.data.reading.value_range import Reading

pydicom = pytest.importorskip("pydicom")
nibabel = pytest.importorskip("nibabel")

NATIVE = Reading(depth="native")
# Uncompressed, RLE, JPEG 2000, JPEG-LS, JPEG lossy, two frames, palette, colour.
DICOM = (
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "JPEG2000.dcm",
    "693_J2KI.dcm",
    "examples_rgb_color.dcm",
    "examples_palette.dcm",
)


def dicom(name: str) -> Path:
    from pydicom.data import get_testdata_file

    found = get_testdata_file(name, download=False)
    if found is None:
        pytest.skip(f"{name} does not come with this pydicom")
    return Path(str(found))


@pytest.mark.parametrize("name", DICOM)
def test_dicom_in_the_numbers_of_pydicom(name: str) -> None:
    path = dicom(name)
    data = pydicom.dcmread(path)
    expected = data.pixel_array
    if data.PhotometricInterpretation == "PALETTE COLOR":
        expected = pydicom.pixels.apply_color_lut(expected, data)
    elif expected.ndim == 2:
        expected = pydicom.pixels.apply_rescale(expected, data)
    planes = read_planes(str(path), path.read_bytes(), NATIVE)
    assert np.array_equal(np.squeeze(planes.values), np.squeeze(expected))
    header = image_header(str(path))
    assert (header.height, header.width) == planes.values.shape[:2]


def test_ct_in_hounsfield_units_and_its_window() -> None:
    path = dicom("CT_small.dcm")
    planes = read_planes(str(path), path.read_bytes(), NATIVE)
    assert planes.values.dtype == np.int16 and planes.values.min() < -800
    assert planes.spacing == pytest.approx((0.661468, 0.661468))
    window = Reading(depth="native", window=(-100.0, 300.0))
    read = read_channels(str(path), path.read_bytes(), window)
    assert read == pytest.approx(np.clip((planes.values + 100) / 400, 0, 1), abs=1e-6)


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    data = pydicom.dcmread(dicom("MR_small.dcm"))
    plain = tmp_path / "plain.dcm"
    data.save_as(plain)
    data.PhotometricInterpretation = "MONOCHROME1"
    inverted = tmp_path / "inverted.dcm"
    data.save_as(inverted)
    window = Reading(depth="native", window=(0.0, 2000.0))
    one, other = (read_channels(str(path), path.read_bytes(), window) for path in (plain, inverted))
    assert one == pytest.approx(1.0 - other, abs=1e-6)


def test_a_folder_of_dicom_with_and_without_suffixes(tmp_path: Path) -> None:
    for label, name in enumerate(("CT_small.dcm", "MR_small.dcm")):
        folder = tmp_path / f"class{label}"
        folder.mkdir()
        shutil.copy(dicom(name), folder / "a.dcm")
        shutil.copy(dicom(name), folder / "1.2.840.113")
        shutil.copy(dicom(name), folder / "IM0001")
    for reading in (Reading(), NATIVE):
        images = open_dataset("folder", tmp_path, reading=reading)
        assert len(images) == 6 and images.targets == [0] * 3 + [1] * 3
        shapes = {np.asarray(images[place][0]).shape[2] for place in range(6)}
        assert shapes == ({1} if reading.native else {3})


def test_frames_are_images(tmp_path: Path) -> None:
    path = dicom("examples_ybr_color.dcm")
    data = pydicom.dcmread(path)
    shutil.copy(path, tmp_path / "film.dcm")
    images = open_dataset("folder", tmp_path, reading=Reading(depth="native", parts="frame:10"))
    assert len(images) == -(-int(data.NumberOfFrames) // 10)
    assert images.files[1] == "film.dcm#frame=10"
    wanted = pydicom.pixels.pixel_array(path, index=10)
    assert np.rint(images[1][0] * 255) == pytest.approx(wanted, abs=0)


def enhanced(path: Path) -> Any:
    """Three frames, each with a slope, an intercept and a window of its own; one pixel size."""
    from pydicom.dataset import Dataset

    data = pydicom.dcmread(dicom("CT_small.dcm"))
    values = np.random.default_rng(0).integers(0, 2000, (3, 12, 16)).astype(np.int16)
    data.Rows, data.Columns, data.NumberOfFrames = 12, 16, 3
    data.PixelData = values.tobytes()
    for name in ("RescaleSlope", "RescaleIntercept", "PixelSpacing", "PixelPaddingValue"):
        if name in data:
            delattr(data, name)
    groups = []
    for frame in range(3):
        units, window, group = Dataset(), Dataset(), Dataset()
        units.RescaleSlope, units.RescaleIntercept = 2, -1000 - frame
        window.WindowCenter, window.WindowWidth = 40.5 + frame, 401
        group.PixelValueTransformationSequence = [units]
        group.FrameVOILUTSequence = [window]
        groups.append(group)
    size, shared = Dataset(), Dataset()
    size.PixelSpacing = [0.5, 0.25]
    shared.PixelMeasuresSequence = [size]
    data.PerFrameFunctionalGroupsSequence = groups
    data.SharedFunctionalGroupsSequence = [shared]
    data.save_as(path)
    return values.astype(int)


def test_frames_with_values_and_windows_of_their_own(tmp_path: Path) -> None:
    values = enhanced(tmp_path / "a.dcm")
    for frame in range(3):
        path = f"{tmp_path}/a.dcm#frame={frame}"
        planes = read_planes(path, (tmp_path / "a.dcm").read_bytes(), NATIVE)
        assert np.array_equal(planes.values[..., 0], 2 * values[frame] - 1000 - frame)
        assert planes.window == pytest.approx((-160 + frame, 240 + frame))
        assert planes.spacing == (0.5, 0.25)
        assert image_header(path).kind == "signed"


def test_a_frame_costs_no_more_than_itself(tmp_path: Path) -> None:
    """Frames of a file on disk are read one by one; those in memory give the same."""
    shutil.copy(dicom("examples_ybr_color.dcm"), tmp_path / "a.dcm")
    path = f"{tmp_path}/a.dcm#frame=7"
    assert reads_by_path(path, NATIVE) and not reads_by_path(f"{tmp_path}/a.dcm", NATIVE)
    assert not reads_by_path("https://example.org/a.dcm#frame=7", NATIVE)
    whole = read_planes(path, (tmp_path / "a.dcm").read_bytes(), NATIVE)
    assert np.array_equal(read_planes(path, None, NATIVE).values, whole.values)
    enhanced(tmp_path / "b.dcm")
    path = f"{tmp_path}/b.dcm#frame=2"
    whole = read_planes(path, (tmp_path / "b.dcm").read_bytes(), NATIVE)
    one = read_planes(path, None, NATIVE)
    assert np.array_equal(one.values, whole.values) and one.window == whole.window


@pytest.mark.parametrize(("signed", "padding"), [(1, -2000), (0, 63536)])
def test_padding_is_no_data(tmp_path: Path, signed: int, padding: int) -> None:
    data = pydicom.dcmread(dicom("CT_small.dcm"))
    values = np.full((8, 8), 1100, np.int32)
    values[:2], values[2] = padding, padding + 5
    data.Rows = data.Columns = 8
    data.PixelRepresentation = signed
    data.PixelData = values.astype(np.int16 if signed else np.uint16).tobytes()
    data.add_new(0x00280120, "SS" if signed else "US", padding)
    data.save_as(tmp_path / "a.dcm")
    planes = read_planes(str(tmp_path / "a.dcm"), (tmp_path / "a.dcm").read_bytes(), NATIVE)
    assert planes.valid is not None
    assert planes.valid.sum(axis=1).tolist() == [0, 0] + [8] * 6
    data.add_new(0x00280121, "SS" if signed else "US", padding + 5)
    data.save_as(tmp_path / "a.dcm")
    planes = read_planes(str(tmp_path / "a.dcm"), (tmp_path / "a.dcm").read_bytes(), NATIVE)
    assert planes.valid is not None and planes.valid.sum(axis=1).tolist() == [0] * 3 + [8] * 5


def test_a_broken_dicom_is_one_message(tmp_path: Path) -> None:
    content = dicom("CT_small.dcm").read_bytes()
    (tmp_path / "good.dcm").write_bytes(content)
    (tmp_path / "short.dcm").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.dcm").write_bytes(b"hello " * 100)
    images = open_dataset("folder", tmp_path, reading=NATIVE, max_corrupt=1.0, replace=False)
    assert [images[place][2] for place in range(3)] == [0, -1, -1]
    assert len(images.reader.fault_log.read()) == 2


def volume(path: Path, zooms: Any = (1.0, 1.0, 1.0)) -> np.ndarray[Any, Any]:
    values = np.arange(6 * 7 * 5, dtype=np.int16).reshape(6, 7, 5) - 100
    nibabel.save(nibabel.Nifti1Image(values, np.diag([*zooms, 1.0])), path)
    return values


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_slices_of_a_volume(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").mkdir()
    values = volume(tmp_path / "a" / name)
    images = open_dataset("folder", tmp_path, reading=NATIVE)
    assert list(images.files) == [f"a/{name}#axial={place}" for place in range(5)]
    for axis, parts in ((2, ""), (1, "coronal"), (0, "sagittal:2")):
        found = open_dataset("folder", tmp_path, reading=Reading(depth="native", parts=parts))
        step = 2 if ":" in parts else 1
        assert len(found) == -(-values.shape[axis] // step)
        planes = read_planes(found.paths[1], None, NATIVE).values[..., 0]
        assert np.array_equal(planes, np.rot90(np.take(values, step, axis=axis)))
        header = image_header(found.paths[1])
        assert (header.height, header.width, header.kind) == (*planes.shape, "signed")


def test_orientation_and_spacing(tmp_path: Path) -> None:
    values = volume(tmp_path / "plain.nii")
    affine = np.array([[0, -1, 0, 0], [0, 0, 1, 0], [2, 0, 0, 0], [0, 0, 0, 1.0]])
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "turned.nii")
    expected = nibabel.as_closest_canonical(nibabel.load(tmp_path / "turned.nii"))
    path = f"{tmp_path}/turned.nii#axial=1"
    read = read_planes(path, None, NATIVE)
    assert np.array_equal(read.values[..., 0], np.rot90(np.asarray(expected.dataobj)[..., 1]))
    coronal = read_planes(f"{tmp_path}/turned.nii#coronal=1", None, NATIVE)
    across, _, up = expected.shape
    assert coronal.values.shape[:2] == (2 * up, across)  # voxels of 2 mm by 1 mm
    header = image_header(f"{tmp_path}/turned.nii#coronal=1")
    assert (header.height, header.width) == (2 * up, across)


def test_nibabels_own_volume() -> None:
    path = Path(nibabel.__file__).parent / "tests" / "data" / "example4d.nii.gz"
    if not path.is_file():
        pytest.skip("this nibabel comes without its test data")
    image = nibabel.as_closest_canonical(nibabel.load(path))
    values = np.asarray(image.dataobj)
    read = read_planes(f"{path}#axial=3,t=1", None, NATIVE)
    assert np.array_equal(read.values[..., 0], np.rot90(values[:, :, 3, 1]))


def test_a_broken_volume_is_one_message(tmp_path: Path) -> None:
    volume(tmp_path / "a.nii.gz")
    content = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(content[:60])
    images = open_dataset("folder", tmp_path, reading=NATIVE, max_corrupt=1.0, replace=False)
    assert len(images) == 6 and images[5][2] == -1


def test_slices_of_a_volume_stay_on_one_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from convit_ssl.cli.main import main

    for label in range(2):
        (tmp_path / f"class{label}").mkdir()
        for number in range(3):
            volume(tmp_path / f"class{label}" / f"{number}.nii")
    command = ["knn", "pixels", "--data-dir", str(tmp_path), "--holdout", "0.34"]
    assert main([*command, "--cache", str(tmp_path / "cache")]) == 0
    assert "10 held-out images, from 20 others" in capsys.readouterr().out
