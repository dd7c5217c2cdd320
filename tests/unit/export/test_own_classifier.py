"""A supervised run's classifier travels with its trunk."""

import torch

from convit_ssl.export import load_trunk
from convit_ssl.models import create_model


def _supervised_checkpoint(path, method):
    model = create_model("convit_nano", img_size=8, patch_size=2, num_classes=10).eval()
    state = model.state_dict()
    trunk = {key: value for key, value in state.items() if not key.startswith("head.")}
    heads = {"0.weight": state["head.weight"], "0.bias": state["head.bias"]}
    fields = {**model.config.__dict__, "num_classes": 0}
    content = {
        "classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": heads}}},
        "convit_ssl": {"format": 1, "model": fields, "variant": "convit_nano", "method": method},
    }
    torch.save(content, path)
    return model


def test_the_classifier_comes_along(tmp_path):
    model = _supervised_checkpoint(tmp_path / "run.torch", "supervised")
    loaded = load_trunk(tmp_path / "run.torch")
    images = torch.randn(2, 3, 8, 8)
    assert loaded.config.num_classes == 10
    torch.testing.assert_close(loaded(images), model(images))
    assert load_trunk(tmp_path / "run.torch", num_classes=0).config.num_classes == 0


def test_a_projection_head_is_no_classifier(tmp_path):
    _supervised_checkpoint(tmp_path / "run.torch", "simclr")
    assert load_trunk(tmp_path / "run.torch").config.num_classes == 0
