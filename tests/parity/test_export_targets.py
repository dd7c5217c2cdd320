"""Each form we write, run by the library it is for: the same outputs, random and trained."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch.nn import functional as F

from convit_ssl.data import evaluation_transform
from convit_ssl.errors import UserError
from convit_ssl.export import graphs, load_trunk
from convit_ssl.export.hub import HubConViT
from convit_ssl.export.load import layer_norm_eps, set_layer_norm_eps
from convit_ssl.export.save import save_trunk
from convit_ssl.export.trunk import export_trunk
from convit_ssl.models import ConViT, ConViTConfig, create_model

SMALL = ConViTConfig(
    img_size=16, patch_size=4, num_classes=0, embed_dim=36, depth=3, num_heads=9, num_gpsa_layers=2
)
TOLERANCE = 1e-5


def train(model: ConViT, steps: int = 15) -> ConViT:
    """A few steps that move every weight: class 0 is bright on the left, class 1 on the right."""
    torch.manual_seed(5)
    classifier = torch.nn.Linear(model.embed_dim, 2)
    parameters = [*model.parameters(), *classifier.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.05)
    model.train()
    for _ in range(steps):
        labels = torch.randint(2, (16,))
        x = torch.randn(16, model.config.in_chans, 16, 16)
        x[labels == 0, ..., :8] += 1
        loss = F.cross_entropy(classifier(model(x)), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


EXPORT = """
import sys
import convit_ssl.compat
convit_ssl.compat.install()
import torch
torch.set_num_threads(1)
from pathlib import Path
from convit_ssl.export import load_trunk
from convit_ssl.export.trunk import TARGETS, export_trunk
for kind in ("random", "trained"):
    root = Path(sys.argv[1]) / kind
    model = load_trunk(root / "source.torch")
    for item in export_trunk(model, TARGETS, root / "out", name="trunk", license_name="apache-2.0"):
        if item.target != "vissl":  # its class has another LayerNorm eps
            assert all(difference.value < 1e-5 for difference in item.differences), item
"""


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All forms of a random and of a trained trunk.

    Written by another process: this one checks the shapes of all calls, which torch.export
    would trace.
    """
    root = tmp_path_factory.mktemp("export")
    torch.manual_seed(4)
    for kind, model in (("random", ConViT(SMALL)), ("trained", train(ConViT(SMALL)))):
        save_trunk(model, root / kind / "source.torch")
    subprocess.run([sys.executable, "-c", EXPORT, str(root)], check=True, timeout=580)
    return root


@pytest.fixture(params=["random", "trained"])
def folder(request: pytest.FixtureRequest, exports: Path) -> Path:
    return exports / str(request.param) / "out"


@pytest.fixture
def model(folder: Path) -> ConViT:
    return load_trunk(folder.parent / "source.torch")


def close(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.shape == second.shape and float((first - second).abs().max()) < TOLERANCE


def images(count: int = 3, side: int = 16) -> torch.Tensor:
    return torch.randn(count, 3, side, side)


@torch.no_grad()
def test_timm_loads_the_folder_strictly(folder: Path, model: ConViT) -> None:
    theirs = timm.create_model(f"local-dir:{folder / 'timm'}", pretrained=True).eval()
    assert type(theirs).__module__ == "timm.models.convit"
    x = images()
    assert close(theirs(x), model(x))
    assert close(theirs.forward_features(x), model.forward_features(x))
    config = timm.data.resolve_model_data_config(theirs)
    assert config["input_size"] == (3, 16, 16)


def test_timm_prepares_images_as_our_evaluation_does(folder: Path) -> None:
    theirs = timm.create_model(f"local-dir:{folder / 'timm'}", pretrained=True)
    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(theirs))
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    torch.testing.assert_close(prepare(image), evaluation_transform(16)(image))


@torch.no_grad()
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_timm_loads_the_files_strictly(suffix: str, folder: Path, model: ConViT) -> None:
    """By the arguments that the model card gives."""
    card = (folder / "README.md").read_text()
    (call,) = re.findall(r"timm\.create_model\((\"convit_.*)\)\.eval\(\)", card)
    call = call.replace("trunk.pth", str(folder / f"trunk.{suffix}"))
    theirs = eval(f"timm.create_model({call})", {"timm": timm}).eval()
    x = images()
    assert close(theirs(x), model(x))


@torch.no_grad()
@pytest.mark.parametrize("name", ["convit_tiny"])
def test_a_named_variant_needs_no_arguments(name: str, tmp_path: Path) -> None:
    ours = create_model(name).eval()
    export_trunk(ours, ["official", "timm"], tmp_path, name="trunk")
    theirs = timm.create_model(name, checkpoint_path=str(tmp_path / "trunk.pth")).eval()
    x = images(1, 224)
    assert close(theirs(x), ours(x))
    config = json.loads((tmp_path / "timm" / "config.json").read_text())
    assert (config["architecture"], config["num_classes"]) == (name, 1000)


@torch.no_grad()
def test_onnx_with_any_number_of_images(folder: Path, model: ConViT) -> None:
    import onnx
    import onnxruntime

    path = folder / "trunk.onnx"
    session = onnxruntime.InferenceSession(str(path))
    for count in (1, 2, 5):
        x = images(count)
        (out,) = session.run(["features"], {"images": x.numpy()})
        assert close(torch.from_numpy(out), model(x))
    graph = onnx.load(str(path))
    tokens = 16
    for tensor in graph.graph.initializer:
        assert list(tensor.dims)[-3:] != [tokens, tokens, 3]
        assert list(tensor.dims)[-2:] != [tokens, tokens], f"{tensor.name} is an N x N constant"
    entry = next(json.loads(p.value) for p in graph.metadata_props if p.key == "convit_ssl")
    assert entry["model"]["num_heads"] == 9
    assert str(Path(__file__).parents[2]) not in path.read_bytes().decode(errors="ignore")


@torch.no_grad()
def test_the_program_runs_without_our_package(exports: Path, tmp_path: Path) -> None:
    folder = exports / "trained" / "out"
    model = load_trunk(exports / "trained" / "source.torch")
    x = images(5)
    np.save(tmp_path / "x.npy", x.numpy())
    script = f"""
import sys
sys.modules["convit_ssl"] = None
import numpy, torch
x = torch.from_numpy(numpy.load({str(tmp_path / "x.npy")!r}))
program = torch.export.load({str(folder / "trunk.pt2")!r}).module()
numpy.save({str(tmp_path / "y.npy")!r}, program(x).detach().numpy())
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=580)
    assert close(torch.from_numpy(np.load(tmp_path / "y.npy")), model(x))


@torch.no_grad()
def test_the_hub_mixin_loads_and_saves(folder: Path, model: ConViT, tmp_path: Path) -> None:
    theirs = HubConViT.from_pretrained(folder / "hf").eval()
    x = images()
    assert torch.equal(theirs(x), model(x))
    theirs.save_pretrained(tmp_path / "again")
    again = HubConViT.from_pretrained(tmp_path / "again").eval()
    assert torch.equal(again(x), model(x))
    assert again.config == model.config


@torch.no_grad()
@pytest.mark.parametrize(
    "form", ["trunk.safetensors", "trunk.pth", "timm", "hf", "trunk_vissl.torch"]
)
def test_round_trips_are_bit_equal(form: str, folder: Path, model: ConViT) -> None:
    """Ours to each form and back. VISSL scales pos_proj.bias, which no output depends on."""
    back = load_trunk(folder / form)
    for key, value in model.state_dict().items():
        if form.endswith("vissl.torch") and key.endswith("pos_proj.bias"):
            torch.testing.assert_close(back.state_dict()[key], value, rtol=1e-6, atol=0)
        else:
            assert torch.equal(back.state_dict()[key], value), key


def test_metadata_survives(folder: Path, model: ConViT) -> None:
    back = load_trunk(folder / "trunk.safetensors")
    assert back.config == model.config
    card = (folder / "hf" / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert 'HubConViT.from_pretrained(".")' in card
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md", "config.json", "hf", "timm", "trunk.onnx", "trunk.pt2", "trunk.pth",
        "trunk.safetensors", "trunk_vissl.torch",
    ]  # fmt: skip


def test_other_epsilons_are_kept_and_told(tmp_path: Path) -> None:
    model = train(ConViT(SMALL), steps=3)
    set_layer_norm_eps(model, 1e-5)
    forms = ["safetensors", "timm", "hf"]
    safe, in_timm, hub = export_trunk(model, forms, tmp_path, name="trunk")
    assert "LayerNorm eps is 1e-06 there and 1e-05 here" in safe.note
    assert 0 < in_timm.differences[0].value < 1e-2
    assert hub.differences[0].value == 0
    assert not hub.note
    for path in ("trunk.safetensors", "timm", "hf"):
        assert layer_norm_eps(load_trunk(tmp_path / path)) == 1e-5


@torch.no_grad()
def test_grey_images_average_pooling_and_query_biases(tmp_path: Path) -> None:
    import dataclasses

    config = dataclasses.replace(SMALL, in_chans=1, global_pool="avg", qkv_bias=True, num_classes=3)
    written = export_trunk(ConViT(config).eval(), ["timm", "hf"], tmp_path)
    assert max(d.value for item in written for d in item.differences) < TOLERANCE
    theirs = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True)
    assert theirs.patch_embed.proj.weight.shape[1] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_gating": False}, "gate in every head"),
        ({"num_gpsa_layers": 3, "global_pool": "avg"}, "needs a layer after the GPSA layers"),
    ],
)
def test_what_timm_cannot_hold_is_refused(change: dict, message: str, tmp_path: Path) -> None:
    import dataclasses

    model = ConViT(dataclasses.replace(SMALL, **change))
    with pytest.raises(UserError, match=message):
        export_trunk(model, ["hf", "timm"], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_outputs_that_differ_stop_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ConViT(SMALL)
    monkeypatch.setattr(graphs, "make_program", lambda _: None)
    monkeypatch.setattr(graphs, "write_program", lambda _, path: path.write_bytes(b""))
    monkeypatch.setattr(graphs, "open_program", lambda _: lambda x: model(x) + 1e-3)
    with pytest.raises(UserError, match="torch-export computes a different output"):
        export_trunk(model, ["torch-export"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_not_exported(tmp_path: Path) -> None:
    model = ConViT(SMALL)
    with torch.no_grad():
        model.norm.weight[0] = float("inf")
    with pytest.raises(UserError, match="not finite"):
        export_trunk(model, ["hf"], tmp_path)
    with pytest.raises(UserError, match="--to tflite"):
        export_trunk(model, ["tflite"], tmp_path)


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", "a/b", "", ".."])
def test_a_name_stays_in_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="without folders"):
        export_trunk(ConViT(SMALL), ["safetensors"], tmp_path / "out", name=name)
    assert not (tmp_path / "out").exists()


def test_somebodys_own_readme_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("my own")
    with pytest.raises(UserError, match=r"README\.md already exists"):
        export_trunk(ConViT(SMALL), ["safetensors"], tmp_path)
    assert (tmp_path / "README.md").read_text() == "my own"
    (tmp_path / "README.md").unlink()
    for _ in range(2):  # one of ours is
        export_trunk(ConViT(SMALL), ["safetensors"], tmp_path)
