"""Trunks come out of every layout whole, or not at all."""

from __future__ import annotations

import argparse
import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convit_ssl.errors import UserError
from convit_ssl.evaluation.features import fingerprint as evaluation_fingerprint
from convit_ssl.export import load_trunk, resized, weights_fingerprint
from convit_ssl.export.load import set_layer_norm_eps
from convit_ssl.export.save import save_trunk
from convit_ssl.models import ConViT, ConViTConfig, create_model

HALF = {"mean": [0.5], "std": [0.5]}  # of images


def same(first: ConViT, second: ConViT) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def save(content: Any, folder: Path, name: str = "weights.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def test_our_checkpoint_gives_teacher_and_student(
    run_folder: Path, student: ConViT, teacher: ConViT
) -> None:
    loaded = load_trunk(run_folder)
    assert same(loaded, teacher)
    assert not loaded.training
    assert same(load_trunk(run_folder, weights="student"), student)
    provenance = loaded.provenance
    assert (provenance["method"], provenance["epoch"]) == ("dino", 7)
    assert set(provenance["available"]) == {"teacher", "student"}
    assert any("center" in name for name in provenance["not_loaded"])
    assert any("base_model.model.heads.0" in name for name in provenance["not_loaded"])


def test_weights_that_are_not_there_are_refused(run_folder: Path) -> None:
    with pytest.raises(UserError, match=r"holds no ema weights; it has: .*teacher"):
        load_trunk(run_folder, weights="ema")
    with pytest.raises(UserError, match="choose one of teacher, student, ema"):
        load_trunk(run_folder, weights="tutor")


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "_orig_mod.module.", "backbone.", "module.backbone.", "trunk."],
)
def test_prefixes_of_wrappers(prefix: str, tmp_path: Path, teacher: ConViT) -> None:
    tensors = {prefix + key: value for key, value in teacher.state_dict().items()}
    assert same(load_trunk(save(tensors, tmp_path)), teacher)


def test_a_wrapper_in_the_middle_of_keys(tmp_path: Path, teacher: ConViT) -> None:
    tensors = {
        key.replace("blocks.1.", "blocks.1._orig_mod."): value
        for key, value in teacher.state_dict().items()
    }
    assert same(load_trunk(save(tensors, tmp_path)), teacher)


def test_dino_files_with_their_arguments(tmp_path: Path, student: ConViT, teacher: ConViT) -> None:
    def wrapped(model: ConViT) -> dict[str, torch.Tensor]:
        tensors = {f"module.backbone.{key}": value for key, value in model.state_dict().items()}
        return tensors | {"module.head.mlp.0.weight": torch.ones(2)}

    content = {
        "student": wrapped(student),
        "teacher": wrapped(teacher),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}},
        "args": argparse.Namespace(arch="convit", lr=0.1),
        "loss": np.float64(0.5),
    }
    path = save(content, tmp_path)
    assert same(load_trunk(path), teacher)
    assert same(load_trunk(path, weights="student"), student)


def test_ema_weights_of_timm_and_deit(tmp_path: Path, student: ConViT, teacher: ConViT) -> None:
    for model, ema in (("state_dict", "state_dict_ema"), ("model", "model_ema")):
        content = {model: student.state_dict(), ema: teacher.state_dict()}
        path = save(content, tmp_path)
        assert same(load_trunk(path, weights="ema"), teacher)
        assert same(load_trunk(path), student), "nobody asked for the average"


def test_a_classifier_comes_along_or_is_left_out(tmp_path: Path) -> None:
    model = create_model("convit_nano", num_classes=7).eval()
    path = save(model.state_dict(), tmp_path)
    assert load_trunk(path).num_classes == 7
    without = load_trunk(path, num_classes=0)
    assert without.num_classes == 0
    assert without.provenance["not_loaded"] == ["head.bias", "head.weight"]


def test_configuration_is_read_from_shapes(tmp_path: Path) -> None:
    for name in ("convit_nano", "deit_nano"):
        model = create_model(name, qkv_bias=True, num_classes=3, in_chans=1)
        loaded = load_trunk(save(model.state_dict(), tmp_path), num_heads=4, images=HALF)
        assert loaded.config == model.config
        assert loaded.provenance["variant"] == name


def test_position_of_the_class_token_folds_into_it(tmp_path: Path) -> None:
    """DINO and DeiT: one more position embedding, added to the class token."""
    model = create_model("deit_nano", num_classes=0, qkv_bias=True).eval()
    tensors = dict(model.state_dict())
    extra = torch.randn(1, 1, 128)
    tensors["cls_token"] = tensors["cls_token"] - extra
    tensors["pos_embed"] = torch.cat([extra, tensors["pos_embed"]], dim=1)
    loaded = load_trunk(save(tensors, tmp_path), num_heads=4, images=HALF)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded(images), model(images), rtol=0, atol=1e-5)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_partial_load(data: st.DataObject, tmp_path: Path, teacher: ConViT) -> None:
    """Whatever key is missing, renamed or of another shape: an error that names it."""
    tensors = dict(teacher.state_dict())
    key = data.draw(st.sampled_from(sorted(set(tensors) - {"patch_embed.proj.weight"})))
    value = tensors.pop(key)
    kind = data.draw(st.sampled_from(["missing", "renamed", "reshaped"]))
    if kind == "renamed":
        tensors[key + "_"] = value
    elif kind == "reshaped":
        tensors[key] = torch.zeros(*value.shape, 2)
    with pytest.raises(UserError):
        load_trunk(save(tensors, tmp_path))


def test_unknown_trunk_tensors_are_an_error(tmp_path: Path, teacher: ConViT) -> None:
    tensors = {**teacher.state_dict(), "blocks.0.attn.relative_bias": torch.ones(1)}
    with pytest.raises(UserError, match="relative_bias is unknown"):
        load_trunk(save(tensors, tmp_path))


def test_old_buffers_are_no_error(tmp_path: Path, teacher: ConViT) -> None:
    tensors = {**teacher.state_dict(), "blocks.0.attn.rel_indices": torch.ones(1)}
    assert same(load_trunk(save(tensors, tmp_path)), teacher)


def test_wrong_variant_and_foreign_networks(tmp_path: Path) -> None:
    path = save(create_model("convit_nano").state_dict(), tmp_path)
    with pytest.raises(UserError, match=r"holds convit_nano .*, not convit_tiny"):
        load_trunk(path, variant="convit_tiny")
    with pytest.raises(UserError, match=r"holds no ConViT.*conv1.weight"):
        load_trunk(save({"conv1.weight": torch.ones(2, 2)}, tmp_path))
    with pytest.raises(UserError, match="no such checkpoint"):
        load_trunk(tmp_path / "absent.pth")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="contains no weights"):
        load_trunk(tmp_path / "empty")


def test_newer_options_are_named(tmp_path: Path, teacher: ConViT, entry: dict[str, Any]) -> None:
    entry["model"]["rotary"] = True
    content = {"trunk": teacher.state_dict(), "convit_ssl": entry}
    with pytest.raises(UserError, match=r"does not know: rotary; update convit_ssl"):
        load_trunk(save(content, tmp_path))


@pytest.mark.parametrize("size", [24, (12, 20)])
def test_another_size_computes_the_same(size: Any, teacher: ConViT) -> None:
    other = resized(teacher, size)
    height, width = other.config.image_shape
    images = torch.randn(2, 3, height, width)
    torch.testing.assert_close(other(images), teacher(images), rtol=0, atol=1e-6)
    with pytest.raises(UserError, match="not a multiple of patch_size"):
        resized(teacher, 21)


@pytest.mark.parametrize("name", ["t.safetensors", "t.torch", "t.pth"])
def test_saved_and_loaded_again(name: str, run_folder: Path, tmp_path: Path) -> None:
    first = load_trunk(run_folder)
    save_trunk(first, tmp_path / name)
    second = load_trunk(tmp_path / name)
    assert same(first, second)
    assert second.provenance["fingerprint"] == first.provenance["fingerprint"]
    if name != "t.pth":
        assert second.provenance["method"] == "dino"


def test_copies_and_pickles(run_folder: Path) -> None:
    model = load_trunk(run_folder)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert same(model, twin)
        assert twin.provenance == model.provenance


def test_no_random_numbers_are_used_up(run_folder: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_trunk(run_folder)
    assert torch.equal(torch.rand(1), expected)


def test_the_fingerprint_is_of_what_is_computed(config: ConViTConfig, tmp_path: Path) -> None:
    """How weights were drawn leaves no trace in it, so a foreign file and ours have the same."""
    import dataclasses

    model = ConViT(dataclasses.replace(config, locality_strength=2.0, drop_path_rate=0.1)).eval()
    torch.save(model.state_dict(), tmp_path / "foreign.pth")
    foreign = load_trunk(tmp_path / "foreign.pth")
    assert foreign.config != model.config
    assert weights_fingerprint(foreign) == weights_fingerprint(model)
    pooled = ConViT(dataclasses.replace(config, global_pool="avg"))
    pooled.load_state_dict(model.state_dict())
    set_layer_norm_eps(foreign, 1e-5)
    prints = {weights_fingerprint(each) for each in (model, pooled, foreign)}
    assert len(prints) == 3


def test_fingerprint_is_the_one_of_evaluation(teacher: ConViT) -> None:
    assert weights_fingerprint(teacher) == evaluation_fingerprint.weights_fingerprint(teacher)


def test_non_square_positions_need_a_hint(tmp_path: Path, config: ConViTConfig) -> None:
    import dataclasses

    model = ConViT(dataclasses.replace(config, img_size=(8, 12)))
    with pytest.raises(UserError, match="do not form a square"):
        load_trunk(save(model.state_dict(), tmp_path))
    save_trunk(model, tmp_path / "t.safetensors")
    assert load_trunk(tmp_path / "t.safetensors").config.image_shape == (8, 12)


def test_a_damaged_newest_checkpoint_is_passed_over(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder / "checkpoints"
    last = (folder / "last.torch").resolve()
    older = folder / "checkpoint_e0000_s00000001.torch"
    older.write_bytes(last.read_bytes())
    last.write_bytes(last.read_bytes()[:5000])
    model = load_trunk(run_folder)
    assert f"{last.name} is damaged" in capsys.readouterr().err
    assert model.provenance["path"] == str(older)  # type: ignore[index]
    assert last.name in str(model.provenance["notes"])  # type: ignore[index]
    older.unlink()
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged"):
        load_trunk(run_folder)


def test_a_deleted_newest_checkpoint_is_passed_over(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = (run_folder / "checkpoints" / "last.torch").resolve()
    older = last.with_name("checkpoint_e0000_s00000001.torch")
    last.rename(older)
    for place in (run_folder, run_folder / "checkpoints", run_folder / "checkpoints/last.torch"):
        assert load_trunk(place).provenance["path"] == str(older)  # type: ignore[index]
    assert f"{last.name}, is missing; using {older.name} instead" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["t.safetensors", "t.torch", "t.pth"])
def test_one_bit_in_a_file_of_ours(name: str, tmp_path: Path, teacher: ConViT) -> None:
    path = tmp_path / name
    save_trunk(teacher, path)
    assert same(load_trunk(path), teacher)
    whole = path.read_bytes()
    needle = teacher.state_dict()["pos_embed"].numpy().tobytes()[:16]
    for place in (whole.index(needle) + 5, whole.index(needle) + 401):
        data = bytearray(whole)
        data[place] ^= 1
        path.unlink()
        path.write_bytes(data)
        with pytest.raises(UserError, match="is damaged"):
            load_trunk(path)


def test_one_bit_in_what_a_file_says_of_itself(tmp_path: Path, teacher: ConViT) -> None:
    path = tmp_path / "t.safetensors"
    save_trunk(teacher, path)
    data = path.read_bytes()
    for old, new in ((b"locality_strength", b"locality_strengti"), (b"sha256", b"sha257")):
        path.unlink()
        path.write_bytes(data.replace(old, new))
        if old != b"sha256":
            with pytest.raises(UserError, match="is damaged"):
                load_trunk(path)
    # A file from before there were checksums is compared with its fingerprint.
    assert same(load_trunk(path), teacher)
    needle = teacher.state_dict()["pos_embed"].numpy().tobytes()[:16]
    older = bytearray(path.read_bytes())
    older[older.index(needle) + 5] ^= 1
    path.write_bytes(older)
    for classes in (None, 0):
        with pytest.raises(UserError, match="is damaged"):
            load_trunk(path, num_classes=classes)


def test_the_only_file_of_a_folder_is_meant(tmp_path: Path, teacher: ConViT) -> None:
    save(teacher.state_dict(), tmp_path, "any.pth")
    assert same(load_trunk(tmp_path), teacher)
    save(teacher.state_dict(), tmp_path, "other.pth")
    with pytest.raises(UserError, match=r"give one of any\.pth, other\.pth"):
        load_trunk(tmp_path)
    (tmp_path / "exported" / "timm").mkdir(parents=True)
    (tmp_path / "exported" / "timm" / "model.safetensors").touch()
    with pytest.raises(UserError, match=r"give one of .*exported/timm$"):
        load_trunk(tmp_path / "exported")


def test_two_trunks_by_the_same_right(tmp_path: Path, student: ConViT, teacher: ConViT) -> None:
    first, second = student.state_dict(), teacher.state_dict()
    path = save({"model": first, "model_best": second}, tmp_path)
    with pytest.raises(UserError, match=r"several trunks.*\(model, model_best\)"):
        load_trunk(path)
    assert same(load_trunk(save({"model": first, "again": first}, tmp_path)), student)
    moco = {f"encoder_q.{key}": value for key, value in first.items()}
    moco |= {f"encoder_k.{key}": value for key, value in second.items()}
    path = save(moco, tmp_path)
    assert same(load_trunk(path), teacher)
    assert same(load_trunk(path, weights="student"), student)


def test_whole_numbers_are_no_weights(tmp_path: Path, teacher: ConViT) -> None:
    tensors = {key: value.long() for key, value in teacher.state_dict().items()}
    with pytest.raises(UserError, match="holds int64 numbers"):
        load_trunk(save(tensors, tmp_path))
