"""What a stranger does with a trunk: the commands, the examples, three lines of timm."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from convit_ssl.cli.main import main
from convit_ssl.export import load_trunk
from convit_ssl.models import create_model

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"

# A CPU build of torch beside the index's torchvision cannot import it without help, which has
# nothing to do with what is tested. convit_ssl's own shim is out of reach on purpose.
TORCHVISION = """
import torch
register = torch.library.register_fake
def tolerant(op, *args, **kwargs):
    decorate = register(op, *args, **kwargs)
    def attempt(kernel):
        try:
            return decorate(kernel)
        except RuntimeError:
            return kernel
    return attempt
torch.library.register_fake = tolerant
import torchvision
torch.library.register_fake = register
"""


def python(code: str, *arguments: str, cwd: Path = ROOT) -> str:
    """Run source in a new process; returns what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=580,
        cwd=cwd,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def examples(name: str, *calls: list[str]) -> str:
    """Run an example as from a shell, once for each list of arguments, in one process."""
    code = f"""
import json, runpy, sys
{TORCHVISION}
script = sys.argv[1]
for arguments in json.loads(sys.argv[2]):
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")
"""
    return python(code, str(EXAMPLES / name), json.dumps(calls))


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "convit_ssl.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=580,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as training leaves it, with a network that saw no image."""
    torch.manual_seed(0)
    model = create_model("convit_nano", num_classes=0)
    content = {
        "classy_state_dict": {
            "base_model": {"model": {"trunk": model.state_dict(), "heads": {}}},
            "loss": {f"teacher.trunk.{k}": v * 1.01 for k, v in model.state_dict().items()},
        },
        "convit_ssl": {
            "format": 1,
            "model": dataclasses.asdict(model.config),
            "variant": "convit_nano",
            "method": "dino",
            "epoch": 1,
            "data": {"name": "digits"},
        },
    }
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(content, folder / "checkpoints" / "last.torch")
    return folder


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    """That run, exported by the command."""
    done = command("export", str(run), "--to", "timm,hf", "safetensors", "--license", "mit")
    assert done.returncode == 0, done.stderr
    assert "teacher weights of" in done.stdout
    assert re.search(r"timm +\d\.\de-\d\d at 32 x 32 px, \d\.\de-\d\d at 40 x 40 px", done.stdout)
    return run / "export"


def test_three_lines_of_timm_without_convit_ssl(exported: Path, run: Path, tmp_path: Path) -> None:
    """The lines are those of the model card; nothing of ours can be imported."""
    card = (exported / "README.md").read_text()
    (lines,) = re.findall(r"timm:\n\n```python\n(import timm\n.*?local-dir.*?)```", card, re.DOTALL)
    assert len(lines.strip().splitlines()) == 3
    images = torch.randn(4, 3, 32, 32)
    np.save(tmp_path / "images.npy", images.numpy())
    code = f"""
import sys
sys.modules["convit_ssl"] = None
{TORCHVISION}
import numpy
images = torch.from_numpy(numpy.load({str(tmp_path / "images.npy")!r}))
{lines}
numpy.save({str(tmp_path / "features.npy")!r}, features.detach().numpy())
"""
    python(code, cwd=exported)
    expected = load_trunk(run)(images).detach().numpy()
    assert np.abs(np.load(tmp_path / "features.npy") - expected).max() < 1e-5


def test_sklearn_classifier(run: Path) -> None:
    out = examples("sklearn_classifier.py", [str(run), "--subset", "per_class=20,seed=0"])
    accuracy = float(re.findall(r"accuracy on \d+ others: ([\d.]+) %", out)[0])
    assert accuracy > 60  # a tenth is chance


def test_segmentation_head(run: Path) -> None:
    out = examples("segmentation_head.py", [str(run), "--subset", "per_class=15,seed=0"])
    iou = float(re.findall(r"union: ([\d.]+) %", out)[0])
    assert iou > 60  # all pixels called ink gives the share of ink, about 45


def test_image_retrieval(run: Path, tmp_path: Path) -> None:
    from PIL import Image

    generator = np.random.default_rng(0)
    for name in "abc":
        pixels = generator.integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    index = str(tmp_path / "index.npz")
    write = ["index", str(run), str(tmp_path), index]
    find = ["find", str(run), index, str(tmp_path / "b.png"), "-n", "2"]
    count, first, second = examples("image_retrieval.py", write, find).splitlines()
    assert count == f"3 images in {index}"
    assert first.startswith("1.000")
    assert first.endswith("b.png")
    assert not second.endswith("b.png")


def test_knn_by_torchmetrics(exported: Path, tmp_path: Path) -> None:
    from PIL import Image

    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for name, level in (("dark", 60), ("light", 190)):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(6):
                pixels = level + generator.integers(-50, 50, (32, 32, 3))
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(tmp_path / split / name / f"{i}.png")
    out = examples("knn_torchmetrics.py", [str(exported / "timm"), str(tmp_path), "-k", "3"])
    assert "weighted 3-NN (cosine) on 12 images: 100.0 %" in out


def test_the_door_in_tools_and_an_import(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    door = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "export_trunk.py"), str(run), "--to", "official",
         "--out", str(tmp_path), "--weights", "student", "--name", "student"],
        capture_output=True, text=True, timeout=580, check=False,
    )  # fmt: skip
    assert door.returncode == 0, door.stderr
    back = str(tmp_path / "back.torch")
    source = str(tmp_path / "student.pth")
    assert main(["import", source, "--out", back, "--variant", "convit_nano"]) == 0
    out = capsys.readouterr().out
    assert "not loaded: nothing" in out
    assert "largest difference from timm's ConViT" in out
    student = load_trunk(run, weights="student").state_dict()
    again = load_trunk(back).state_dict()
    assert all(torch.equal(again[key], value) for key, value in student.items())


def test_audit_says_by_its_exit_code_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wiped, sound = str(tmp_path / "wiped.pth"), str(tmp_path / "sound.safetensors")
    model = create_model("convit_nano", num_classes=0, local_init=False)
    torch.save(model.state_dict(), wiped)
    assert main(["audit", wiped, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["repairable"] == [0, 1, 2, 3]
    assert main(["import", wiped]) == 0
    assert "PROBLEM: the convolutional init is missing" in capsys.readouterr().out
    assert main(["audit", wiped, "--repair", sound]) == 0
    assert "4 GPSA blocks re-localised" in capsys.readouterr().out
    assert main(["audit", sound, "--heads"]) == 0
    assert "sound:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "absent.pth", "--to", "timm"], "no such checkpoint: absent.pth"),
        (["export", "RUN", "--to", "tflite"], "choose from safetensors"),
        (["export", "RUN", "--to", "timm", "--img-size", "33"], "not a multiple of patch_size"),
        (["export", "RUN", "--to", "timm", "--weights", "ema"], "holds no ema weights"),
        (["import", "RUN", "--variant", "convit_base"], "not convit_base"),
        (["audit"], "give a checkpoint or --trunk NAME"),
        (["audit", "RUN", "--repair", "x.torch"], "nothing to repair"),
    ],
)
def test_mistakes_get_one_message(
    arguments: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(run.rglob("*"))
    assert main([str(run) if word == "RUN" else word for word in arguments]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert [p for p in sorted(run.rglob("*")) if p not in before and p.is_file()] == []


def test_torch_hub(run: Path) -> None:
    code = """
import sys, torch
model = torch.hub.load(sys.argv[1], "convit_nano", source="local", num_classes=0)
assert model(torch.randn(1, 3, 32, 32)).shape == (1, 128)
trained = torch.hub.load(sys.argv[1], "convit_nano", source="local", checkpoint=sys.argv[2])
assert trained.provenance["weights"] == "teacher"
sys.path.insert(0, sys.argv[1])
import hubconf
print(hubconf.deit_small.__doc__.splitlines()[0])
"""
    assert "deit_small, as `convit_ssl.models.deit_small`" in python(code, str(ROOT), str(run))
