import warnings

import numpy as np
import pytest
from PIL import Image


def test_float_bytes_are_read_as_pixels_with_a_warning() -> None:
    array = np.random.default_rng(0).standard_normal((3, 64, 64)).astype(np.float32)

    with pytest.warns(UserWarning, match="float32 array are read as pixels of mode RGB"):
        image = Image.fromarray(array, mode="RGB")

    assert image.mode == "RGB"
    assert image.size == (64, 3)
    assert image.tobytes() == array.tobytes()[: 64 * 3 * 3]


def test_such_an_image_goes_through_multi_crop() -> None:
    from vissl.data.ssl_transforms.img_pil_to_multicrop import ImgPilToMultiCrop

    with pytest.warns(UserWarning, match="read as pixels"):
        image = Image.fromarray(np.ones((3, 64, 64), np.float32), mode="RGB")
    crops = ImgPilToMultiCrop(3, [1, 2], [32, 16], [[0.14, 1], [0.05, 0.14]])(image)

    assert [crop.size for crop in crops] == [(32, 32), (16, 16), (16, 16)]


def test_what_pillow_takes_is_as_before() -> None:
    array = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    np.testing.assert_array_equal(np.asarray(Image.fromarray(array)), array)
    assert Image.fromarray(array, "YCbCr").mode == "YCbCr"


def test_what_pillow_refused_before_is_still_refused() -> None:
    with pytest.raises(TypeError, match="Cannot handle this data type"):
        Image.fromarray(np.zeros((3, 4, 4), np.float32))


@pytest.mark.parametrize("mode", ["RGB", "no such mode"])
def test_too_few_bytes_or_an_unknown_mode_are_refused_without_a_warning(mode: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)  # Pillow 12 announcing 13
        with pytest.raises((ValueError, KeyError)):
            Image.fromarray(np.zeros((4, 4), np.uint8), mode)
