from PIL import Image


def test_the_larger_side_gets_the_size() -> None:
    from vissl.data.ssl_transforms.img_pil_resize_larger_side import ImgPilResizeLargerSide

    transform = ImgPilResizeLargerSide.from_config({"size": 64})
    assert transform(Image.new("RGB", (200, 100))).size == (64, 32)
    assert transform(Image.new("RGB", (30, 60))).size == (32, 64)
