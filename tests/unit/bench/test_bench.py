"""The benchmarks' own arithmetic, and each command once at the smallest size."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn

from convit_ssl.bench import contenders, measure, published, steps
from convit_ssl.cli.main import main


def test_operations_leave_views_out_and_look_into_composites() -> None:
    layer, x = nn.Linear(4, 4), torch.randn(2, 3, 4)
    assert measure.count_operations(lambda: layer(x).view(6, 4).t()) == 1
    with torch.inference_mode():
        assert measure.count_operations(lambda: layer(x).view(6, 4).t()) == 1
    assert measure.count_operations(lambda: x.transpose(0, 1).reshape(-1).add_(1)) == 2


def test_saved_bytes_count_each_storage_once_and_no_parameter() -> None:
    layer = nn.Linear(8, 16, bias=False)
    x = torch.randn(10, 8)
    # The input for the weight's gradient, and the output for exp's.
    assert measure.saved_bytes(lambda: layer(x).exp(), layer) == (10 * 8 + 10 * 16) * 4


def test_counting_lets_go_of_the_graph() -> None:
    """An operation that saves its own output must not come to hold itself."""

    class Tag:
        pass

    tags: list[weakref.ref[Tag]] = []

    def run() -> None:
        out = torch.randn(10, requires_grad=True).softmax(0)
        tag = Tag()
        tags.append(weakref.ref(tag))
        out.grad_fn.metadata["tag"] = tag  # type: ignore[union-attr]

    measure.saved_bytes(run, nn.Identity())
    gc.collect()
    assert tags[0]() is None


def test_saved_memory_separates_what_grows_with_the_batch() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1000))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            doubled = self.scale.exp()  # saved, whatever the batch
            return images.flatten(1).sum(1, keepdim=True) * doubled.sum()

    model = Model()
    saved = measure.saved_memory(model, model, torch.randn(3, 4, 4))
    assert saved.per_image * measure.MIB == pytest.approx(4)
    assert saved.per_step * measure.MIB == pytest.approx(4000, abs=8)


def test_alternation_pairs_rounds() -> None:
    order: list[str] = []
    runs = {name: (lambda name=name: order.append(name)) for name in "ab"}
    times = measure.alternate(runs, 3, torch.device("cpu"), warmup=1)
    assert order == ["a", "b"] * 4
    assert len(times["a"].samples) == 3
    slow = measure.Timing(2.0, 2.0, 2.0, [2.0, 4.0, 6.0])
    fast = measure.Timing(1.0, 1.0, 1.0, [1.0, 2.0, 3.0])
    assert measure.ratio(fast, slow) == 2.0


def test_multiply_adds_of_the_small_model() -> None:
    config = contenders.size_config("small", 224)
    assert contenders.multiply_adds(config, 224) == pytest.approx(5.75e9, rel=0.02)


def test_contenders_agree_where_weights_are_shared() -> None:
    config = contenders.size_config("nano", 32)
    ours, theirs = contenders.build("ours", config).eval(), contenders.timm_convit(config).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(2, 3, 32, 32)
    expected = theirs.forward_head(theirs.forward_features(images), pre_logits=True)
    torch.testing.assert_close(ours(images), expected, rtol=1e-4, atol=1e-5)
    multi = published.MultiCropConViT(theirs)
    torch.testing.assert_close(multi(images), expected)
    small = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(multi(small), ours(small), rtol=1e-4, atol=1e-5)


def test_published_losses_are_ours() -> None:
    from convit_ssl.methods.dino import DINOLoss
    from convit_ssl.methods.simclr import NTXentLoss

    student, teacher = torch.randn(4 * 3, 50), torch.randn(2 * 3, 50)
    looped = published.LoopedDINOLoss(50, 4)(student, teacher, 0.04)
    torch.testing.assert_close(looped, DINOLoss(50, 4)(student, teacher, 0.04).loss)
    first, second = torch.randn(2, 6, 8)
    torch.testing.assert_close(
        published.looped_nt_xent(first, second), NTXentLoss(0.1)(first, second)
    )


@pytest.mark.slow
def test_bench_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {kind: str(tmp_path / f"out.{kind}") for kind in ("json", "md", "png")}
    command = ["bench", "model", "--sizes", "nano", "--sides", "16", "32", "--images", "1"]
    command += ["--repeats", "1", "--contenders", "timm", "--json", files["json"]]
    command += ["--markdown", files["md"], "--figure", files["png"]]
    assert main(command) == 0
    found = json.loads(Path(files["json"]).read_text())
    assert len(found["comparisons"]) == 4
    assert [row["name"] for row in found["comparisons"][0]["rows"]] == ["ours", "timm"]
    text = Path(files["md"]).read_text()
    assert "Not measured on a GPU" in text
    assert Path(files["png"]).stat().st_size > 1000
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80 + len(str(tmp_path))


def test_bench_step(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "step", "--sizes", "nano", "--images", "2", "--repeats", "1"]
    command += ["--global-side", "32", "--local-side", "16", "--local-crops", "2"]
    assert main([*command, "--out-dim", "64", "--methods", "dino"]) == 0
    out = capsys.readouterr().out
    assert "published" in out
    assert "+ our loss" in out


@pytest.mark.parametrize("method", steps.METHODS)
def test_our_step_never_waits_for_the_device(method: str) -> None:
    """Reading one number on the host is a wait. The published manner compares each norm."""
    plan = steps.Plan(method, "nano", 2, 32, 16, 2, 64, "bf16", "cpu", "wall")
    waits = []
    for manner in (steps.MANNERS[0], steps.MANNERS[-1]):
        step = steps.make_step(plan, manner, torch.device("cpu"))
        step()
        with measure.OperationCounter() as counter:
            step()
        waits.append(counter.counts.get("_local_scalar_dense", 0))
    assert waits[0] > 50
    # On a CPU alone, where it costs nothing, DINO's loss looks whether its gradient is 1.
    assert waits[1] <= (method == "dino")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sizes", "huge"], "unknown size 'huge'"),
        (["--contenders", "resnet"], "--contenders resnet: choose from ours"),
        (["--modes", "sleep"], "--modes sleep: choose from forward, training"),
        (["--sides", "100"], "not a multiple of patch_size=16"),
        (["--repeats", "0"], "give at least 1"),
        (["--clock", "cpu", "--threads", "2"], "needs --threads 1"),
        (["--device", "tpu?"], "give cpu or cuda"),
    ],
)
def test_bad_input(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "model", *options]) == 2
    assert message in capsys.readouterr().err
