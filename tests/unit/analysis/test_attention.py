"""Attention maps of one image, their packed form, attribution, and pictures of any shape."""

from __future__ import annotations

import base64
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from convit_ssl.analysis.attention import image_attention, pack_attention
from convit_ssl.analysis.attention_figure import attention_figure
from convit_ssl.analysis.attribution import attribute
from convit_ssl.analysis.images import input_size, open_image, prepare_image
from convit_ssl.cli.main import main
from convit_ssl.drawing import save_figure
from convit_ssl.errors import UserError
from convit_ssl.export.save import save_trunk
from convit_ssl.models import create_model


def perturbed(name="convit_nano", **overrides):
    model = create_model(name, **{"num_classes": 0, **overrides}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def picture(width=90, height=60):
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 3000), width=st.integers(1, 3000), most=st.integers(1, 800))
def test_any_shape_becomes_whole_patches_within_the_limit(height, width, most):
    model = _META
    rows, columns = (side // 4 for side in input_size((height, width), model, most))
    assert rows >= 1
    assert columns >= 1
    # Rounding a side up may cross the limit by at most half a row or column.
    assert rows * columns <= most + (rows + columns) / 2 + 1


_META = create_model("convit_nano", num_classes=0)


def test_image_attention_equals_the_model_s_dense_maps():
    model = perturbed()
    prepared = prepare_image(picture(), model)
    maps = image_attention(model, prepared)
    assert prepared.grid == (8, 12)
    _, inside = model.forward_intermediates(prepared.pixels[None], return_attention=True)
    for layer, dense in zip(maps.layers, inside.attention, strict=True):
        first = dense.mixed.shape[-1] - 96
        expected = dense.mixed[0, :, first:, first:].detach()
        np.testing.assert_allclose(layer.mixed, expected, rtol=1e-6)
        assert (layer.class_token is None) == (first == 0)


@pytest.mark.parametrize(("budget", "levels", "stride"), [(10**7, 255, 1), (21_000, 15, None)])
def test_packed_maps_unpack_to_the_dense_ones(budget, levels, stride):
    model = perturbed()
    maps = image_attention(model, prepare_image(picture(), model))
    packed = pack_attention([maps], model, budget)
    assert packed["levels"] == levels
    assert stride is None or packed["stride"] == stride
    image = packed["images"][0]
    assert len(image["content"]) <= budget
    codes = np.frombuffer(zlib.decompress(base64.b64decode(image["content"])), np.uint8)
    if levels == 15:
        codes = np.stack([codes >> 4, codes & 15], axis=1).ravel()
    queries = image["query_rows"] * image["query_columns"]
    codes = codes[: 6 * 4 * queries * 96].reshape(6, 4, queries, 96)
    peaks = np.frombuffer(zlib.decompress(base64.b64decode(image["peaks"])), "<f4")
    found = (codes / levels) ** 2 * peaks.reshape(6, 4, queries, 1)
    half = packed["stride"] // 2
    kept = np.arange(96).reshape(8, 12)[half :: packed["stride"], half :: packed["stride"]].ravel()
    for layer in range(6):
        dense = maps.layers[layer].content[:, kept]
        # Half a step of the square root at its largest value.
        bound = dense.max(axis=-1, keepdims=True) * 1.05 / levels + 1e-7
        assert (np.abs(found[layer] - dense) <= bound).all()


def test_figure_in_every_format(tmp_path):
    model = perturbed()
    maps = image_attention(model, prepare_image(picture(), model, "a picture"))
    for ending, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        figure = attention_figure(maps, layers=(0, 5), head=1, query=(2, 3))
        path = save_figure(figure, tmp_path / f"x.{ending}")
        assert path.read_bytes().startswith(start)
    assert b"positional" in (tmp_path / "x.svg").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.pdf", "x.png", "x.svg"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"layers": (6,)}, "layers 0 to 5"),
        ({"head": 4}, "heads 0 to 3"),
        ({"query": (8, 0)}, "outside the image's 8 x 12"),
    ],
)
def test_places_that_are_not_there(wrong, says):
    model = perturbed()
    maps = image_attention(model, prepare_image(picture(), model))
    with pytest.raises(UserError, match=says):
        attention_figure(maps, **wrong)


def test_files_that_are_no_picture(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match="cannot open"):
        open_image(tmp_path / "x.jpg")
    with pytest.raises(UserError, match="No such file"):
        open_image(tmp_path / "y.jpg")


def test_grey_models_take_colour_pictures():
    model = perturbed(in_chans=1)
    assert prepare_image(picture(), model).pixels.shape == (1, 32, 48)


def test_integrated_gradients_add_up_to_the_score():
    model = perturbed(num_classes=5)
    found = attribute(model, prepare_image(picture(32, 32), model), steps=64)
    pixels = found.image.pixels[None]
    with torch.no_grad():
        gap = (model(pixels) - model(torch.zeros_like(pixels)))[0, found.target].item()
    assert found.values.shape == (32, 32)
    assert found.values.sum() == pytest.approx(gap, rel=0.1)
    assert found.residual < 0.1


def test_occlusion_equals_covering_each_patch():
    model = perturbed(num_classes=5)
    image = prepare_image(picture(32, 24), model)
    found = attribute(model, image, "occlusion", target=2)
    assert found.values.shape == image.grid
    with torch.no_grad():
        covered = image.pixels.clone()
        covered[:, 4:8, 8:12] = 0
        expected = (model(image.pixels[None]) - model(covered[None]))[0, 2].item()
    assert found.values[1, 2] == pytest.approx(expected, abs=1e-4)


def test_attribution_needs_a_classifier():
    model = perturbed()
    with pytest.raises(UserError, match="needs a classifier"):
        attribute(model, prepare_image(picture(), model))


@pytest.mark.slow
def test_a_huge_picture_is_held_in_memory_once(tmp_path):
    """What is shown is small, so little is needed beside the decoded file."""
    side = 6000
    Image.new("RGB", (side, side), (200, 90, 10)).save(tmp_path / "huge.png", compress_level=1)
    Image.new("RGB", (64, 64)).save(tmp_path / "small.png")
    save_trunk(create_model("convit_nano", img_size=64, patch_size=8), tmp_path / "w.pth")
    words = "'attention', {}, '--checkpoint', 'w.pth', '--out', 'a.png'"
    code = f"""
import pathlib
from convit_ssl.cli.main import main
def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
assert main([{words.format("'small.png'")}]) == 0
before = peak()
assert main([{words.format("'huge.png'")}]) == 0
print("MIB", peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    more = float(done.stdout.split("MIB")[1])
    assert more < 1.6 * 4 * side**2 / 2**20, more  # Pillow takes four bytes for a pixel


def test_a_picture_beyond_pillow_s_limit_is_refused(tmp_path, monkeypatch, capsys):
    Image.new("L", (300, 300)).save(tmp_path / "large.png")
    save_trunk(create_model("convit_nano", img_size=64, patch_size=8), tmp_path / "w.pth")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300 * 300 // 2 - 1)
    monkeypatch.chdir(tmp_path)
    assert main(["attention", "large.png", "--checkpoint", "w.pth", "--out", "a.png"]) != 0
    assert "90000 pixels" in capsys.readouterr().err
