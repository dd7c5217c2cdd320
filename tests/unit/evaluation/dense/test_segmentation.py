"""Segmentation and retrieval with frozen features, on composed pictures with exact masks."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from convit_ssl.cli import segment_command
from convit_ssl.cli.main import run_command
from convit_ssl.cli.segment.images import MapTransform, pixel_map
from convit_ssl.data.listing.masks import mask_classes, numbered, read_mask
from convit_ssl.errors import UserError
from convit_ssl.evaluation.dense.scores import (
    SegmentationCounts,
    compare_miou,
    count_image,
)
from convit_ssl.evaluation.dense.segmentation import (
    LinearPatches,
    NearestPatches,
    class_shares,
    gather_patches,
    predict_mask,
)
from convit_ssl.evaluation.features.frozen import FrozenMaps, open_frozen
from convit_ssl.evaluation.probes.retrieval import retrieve


def compose(root: Path, images: int, size: tuple[int, int] = (40, 56)) -> None:
    """Digits, enlarged, on grounds of soft colours; masks of 0 and 255."""
    draw = np.random.default_rng(0)
    digits = load_digits().images
    for number in range(images):
        ground = Image.fromarray(draw.uniform(0, 90, (3, 4, 3)).astype(np.uint8))
        picture = np.array(ground.resize(size[::-1], Image.Resampling.BICUBIC))
        digit = np.kron(digits[number] > 7, np.ones((4, 4), bool))
        top, left = draw.integers(0, size[0] - 32), draw.integers(0, size[1] - 32)
        mask = np.zeros(size, bool)
        mask[top : top + 32, left : left + 32] = digit
        picture[mask] = 235
        for folder, image in (("images", picture), ("masks", 255 * mask.astype(np.uint8))):
            path = root / folder / f"p{number // 4}_{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)


def test_the_command_segments_a_composed_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compose(tmp_path, 20)
    words = ["random:convit_nano", "--data-dir", str(tmp_path / "images")]
    words += ["--masks", str(tmp_path / "masks"), "--holdout", "0.3", "--group-by", "name:^(p.)_"]
    words += ["--references", "--json", str(tmp_path / "found.json")]
    words += ["--predictions", str(tmp_path / "said"), "--cache", str(tmp_path / "cache")]
    assert run_command("segment", words) == 0
    said = capsys.readouterr().out
    assert "boundary IoU" in said and "masks, tested on" in said
    found = json.loads((tmp_path / "found.json").read_text())
    pixels = found["results"]["raw pixels"]
    assert pixels["knn"]["miou"] > 0.6 and pixels["linear"]["miou"] > 0.6
    assert set(found["verdicts"]) == {"knn", "linear"} and found["classes"] == [0, 255]
    assert found["verdicts"]["knn"]["against"]["raw pixels"]["units"] < 6  # groups, not images
    written = sorted((tmp_path / "said").glob("*.png"))
    assert len(written) == found["images"]["test"]
    mask = np.asarray(Image.open(written[0]))
    assert mask.shape == (40, 56) and set(np.unique(mask)) <= {0, 255}  # as the masks have them
    assert found["settings"]["holdout"] == 0.3


def test_no_part_of_the_work_is_silent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compose(tmp_path, 12)
    silent: list[str] = []

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            if all(thread.name != "progress" for thread in threading.enumerate()):
                silent.append(name)
            return function(*given)

        return call

    parts = ("read_masks", "mask_classes", "gather_patches", "predict_mask", "compare_miou")
    for name in parts:
        monkeypatch.setattr(segment_command, name, watched(name, getattr(segment_command, name)))
    probes = {name: watched(name, made) for name, made in segment_command.PROBES.items()}
    monkeypatch.setattr(segment_command, "PROBES", probes)
    words = ["random:convit_nano", "--data-dir", str(tmp_path / "images"), "--references"]
    words += ["--masks", str(tmp_path / "masks"), "--holdout", "0.3"]
    assert run_command("segment", [*words, "--cache", str(tmp_path / "cache")]) == 0
    assert silent == []


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda root: (root / "masks" / "p0_00.png").unlink(), "have no mask"),
        (
            lambda root: Image.new("L", (9, 9)).save(root / "masks" / "p0_00.png"),
            "has 9 x 9 pixels, but its image 40 x 56",
        ),
        (
            lambda root: Image.effect_noise((56, 40), 90).convert("RGB").point(
                list(range(256)) * 2 + [0] * 256
            ).save(root / "masks" / "p0_00.png"),
            "holds colours",
        ),
    ],
)  # fmt: skip
def test_bad_masks_are_refused_before_anything_is_computed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], break_it: object, message: str
) -> None:
    compose(tmp_path, 4)
    break_it(tmp_path)  # type: ignore[operator]
    words = ["random:convit_nano", "--data-dir", str(tmp_path / "images"), "--holdout", "0.3"]
    assert run_command("segment", [*words, "--masks", str(tmp_path / "masks")]) == 2
    assert message in capsys.readouterr().err


def published(folder: Path, name: str) -> str:
    """A network of timm with weights in a file, as --reference takes it."""
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model(name, pretrained=False)
    torch.save(model.state_dict(), folder / f"{name}.pth")
    return f"timm:{name}={folder / name}.pth"


@pytest.mark.parametrize(
    ("name", "patch", "fixed"), [("test_vit", 16, None), ("test_resnet", 32, None)]
)
def test_maps_of_a_frozen_network_cover_images_of_any_shape(
    tmp_path: Path, name: str, patch: int, fixed: tuple[int, int] | None
) -> None:
    extractor, transform = open_frozen(published(tmp_path, name))
    maps = FrozenMaps(extractor.model, name, transform.config["input_size"])
    assert maps.patch == patch and maps.size == fixed
    (made,) = maps.get_intermediate_layers(torch.zeros(1, 3, 2 * patch, 5 * patch))
    assert made.shape[-2:] == (2, 5)


def test_a_network_of_one_size_is_shown_that_size() -> None:
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(32, 16, embed_dim=32, depth=1, num_heads=2, num_classes=0).eval()
    assert FrozenMaps(model, "mine", (3, 32, 32)).size == (32, 32)
    with pytest.raises(UserError, match="has no maps of features"):
        FrozenMaps(torch.nn.Linear(2, 2), "mine", (3, 8, 8))


def test_frozen_networks_stand_beside_a_run_in_every_dense_and_plain_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compose(tmp_path, 10)
    name = published(tmp_path, "test_resnet")
    common = ["--data-dir", str(tmp_path / "images"), "--cache", str(tmp_path / "cache")]
    found = tmp_path / "found.json"
    words = ["--masks", str(tmp_path / "masks"), "--holdout", "0.3", "--json", str(found)]
    own = ["random:convit_nano", "--img-size", "32"]
    assert run_command("segment", [*own, *common, *words, "--reference", name]) == 0
    rows = json.loads(found.read_text())["results"]
    assert list(rows) == ["raw pixels", "timm:test_resnet, frozen", "random:convit_nano"]
    assert "timm:test_resnet, frozen" in json.loads(found.read_text())["verdicts"]["knn"]["against"]
    assert run_command("segment", [name, *common, *words, "--probe", "knn", "--references"]) == 0
    assert list(json.loads(found.read_text())["results"]) == ["raw pixels", "timm:test_resnet"]
    # A trunk of timm as a run would have it.
    trunk = ["random:timm:test_resnet", "--img-size", "64", *common]
    assert run_command("segment", [*trunk, *words, "--probe", "knn", "--references"]) == 0
    assert len(json.loads(found.read_text())["results"]) == 2
    by = ["--by", "group", "--group-by", "name:^(p.)_", "--json", str(found)]
    assert run_command("retrieve", [*own, *common, *by, "--reference", name]) == 0
    assert "timm:test_resnet, frozen" in json.loads(found.read_text())["results"]
    assert run_command("retrieve", [name, *common, *by, "--references"]) == 0
    assert run_command("retrieve", [*trunk, *by, "--references"]) == 0
    assert run_command("scores", [name, *common, "--images", "10", "--json", str(found)]) == 0
    assert len(json.loads(found.read_text())["scores"]) == 2
    out = ["--out", str(tmp_path / "explore"), "--layout", "pca", "--thumbnail", "0"]
    assert run_command("explore", [name, *common, *out]) == 0
    assert (tmp_path / "explore" / "index.html").is_file()
    capsys.readouterr()
    assert run_command("segment", ["pixels", *common, *words]) == 2
    assert "give a checkpoint as CKPT" in capsys.readouterr().err


def test_masks_are_numbers_whatever_they_are_stored_as(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).integers(0, 4, (6, 9)).astype(np.uint8)
    palette = Image.fromarray(mask, "P")
    palette.putpalette(list(range(256)) * 3)
    palette.save(tmp_path / "palette.png")
    Image.fromarray(mask.astype(np.uint16) * 300).save(tmp_path / "deep.png")
    Image.fromarray(np.repeat(mask[..., None], 3, axis=2)).save(tmp_path / "grey_as_rgb.png")
    np.save(tmp_path / "array.npy", mask)
    for name in ("palette.png", "grey_as_rgb.png", "array.npy"):
        assert (read_mask(str(tmp_path / name)) == mask).all()
    assert (read_mask(str(tmp_path / "deep.png")) == mask.astype(int) * 300).all()
    assert mask_classes([np.array([[0, 255]])], None) == ([0, 255], None)
    assert mask_classes([np.array([[0, 7, 255]])], None) == ([0, 7], 255)
    assert numbered(np.array([[0, 7, 255]]), [0, 7]).tolist() == [[0, 1, -1]]
    with pytest.raises(UserError, match="only one class"):
        mask_classes([np.zeros((2, 2), int)], None)


def test_shares_of_classes_on_a_grid_that_divides_nothing() -> None:
    mask = torch.full((5, 7), -1)
    mask[:, :3] = 1
    shares, known = class_shares(mask, (1, 1), 2)
    assert shares.tolist() == [[0.0, 1.0]] and known.item() == pytest.approx(3 / 7)


def test_figures_are_those_of_the_definition() -> None:
    truth = np.zeros((50, 50), int)
    truth[10:40, 10:40] = 1
    said = np.zeros((50, 50), int)
    said[10:40, 20:50] = 1
    found = SegmentationCounts.of([count_image(truth, said, 2)])
    assert found.class_iou()[1] == pytest.approx(600 / 1200)
    assert found.pixel_accuracy() == pytest.approx(1 - 600 / 2500)
    same = SegmentationCounts.of([count_image(truth, truth, 2)])
    assert same.boundary_iou() == same.miou() == 1.0
    # A rim of 1 pixel in 50 x 50: two squares of 30, shifted by 10, share 2 x 20 of 232 pixels.
    kept = count_image(truth, said, 2)[1][:, 1]
    assert kept.tolist() == [40, 192]
    truth[:] = -1
    assert count_image(truth, said, 2)[0].sum() == 0


def test_a_difference_of_miou_is_drawn_by_groups() -> None:
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 3, (12, 20, 20))
    good = np.where(draw.random(truth.shape) < 0.9, truth, 0)
    bad = np.where(draw.random(truth.shape) < 0.3, truth, 0)
    counts = [
        SegmentationCounts.of([count_image(t, s, 3) for t, s in zip(truth, one, strict=True)])
        for one in (good, bad)
    ]
    found = compare_miou(counts[0], counts[1])
    assert found.is_better and found.units == 12
    assert compare_miou(counts[0], counts[1], np.repeat([0, 1, 2], 4)).units == 3
    assert not compare_miou(counts[0], counts[0]).is_better


def test_classifiers_of_patches_learn_what_they_are_shown() -> None:
    draw = torch.Generator().manual_seed(0)
    masks = [torch.randint(0, 2, (4, 6), generator=draw).kron(torch.ones(8, 8)).long()
             for _ in range(6)]  # fmt: skip
    maps = [
        torch.stack([mask[::8, ::8].float(), 1 - mask[::8, ::8].float()], dim=-1) for mask in masks
    ]
    patches = gather_patches(maps[:5], masks[:5], 2)
    for made in (NearestPatches(patches), LinearPatches(patches)):
        said = predict_mask(made, maps[5], (32, 48))
        assert torch.equal(said[4::8, 4::8], masks[5][4::8, 4::8])


def test_images_keep_their_shape_up_to_whole_patches() -> None:
    transform = MapTransform(8, 64, None, (0.5,) * 3, (0.25,) * 3)
    assert transform(Image.new("RGB", (56, 40))).shape == (3, 40, 56)
    assert transform(Image.new("RGB", (300, 100))).shape == (3, 24, 64)
    assert transform(Image.new("RGB", (2, 3))).shape == (3, 8, 8)
    assert pixel_map(torch.arange(3 * 16 * 24.0).reshape(3, 16, 24), 8).shape == (2, 3, 48)


def test_retrieval_counts_what_it_says() -> None:
    features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [0.8, 0.3]])
    kinds = np.array([0, 0, 1, 1, 1])
    found = retrieve(features, kinds)
    assert found.first.tolist() == [1, 1, 1, 1, 3]
    assert found.recall(1) == pytest.approx(0.8) and found.recall(5) == 1.0
    assert found.precision[4] == pytest.approx((1 / 3 + 2 / 4) / 2)
    patients = np.array([0, 0, 1, 2, 3])
    apart = retrieve(features, kinds, patients)
    assert apart.queries.tolist() == [2, 3, 4]  # the others have their own patient alone
    with pytest.raises(UserError, match="no image has another"):
        retrieve(features, np.arange(5))


def test_the_command_retrieves_by_class_and_by_group(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compose(tmp_path, 12)
    words = ["random:convit_nano", "--data-dir", str(tmp_path / "images"), "--img-size", "32"]
    words += ["--cache", str(tmp_path / "cache"), "--json", str(tmp_path / "found.json")]
    assert run_command("retrieve", words) == 2
    assert "have no labels" in capsys.readouterr().err
    words += ["--by", "group", "--group-by", "name:^(p.)_", "--references"]
    assert run_command("retrieve", words) == 0
    said = capsys.readouterr().out
    assert "12 queries among 12 images" in said and "recall@1, tested on 12 queries" in said
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found["results"]) == {"raw pixels", "random:convit_nano"}
    assert 0.0 <= found["results"]["raw pixels"]["recall@1"] <= 1.0
