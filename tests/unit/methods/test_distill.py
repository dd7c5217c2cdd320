"""Distillation: losses against their formulas, teachers as they are fed, steps of a real task."""

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from convit_ssl.adapters.teachers import open_teacher
from convit_ssl.errors import UserError
from convit_ssl.export.save import save_trunk
from convit_ssl.methods.distill import DistillHead, patch_loss, similarity_loss
from convit_ssl.models import ConViT, create_model
from tests.golden.tiny import SMALL, counted_batches, ready


def test_similarities_are_those_of_the_formula() -> None:
    student, teacher, queue = (torch.randn(n, 4).double() for n in (3, 3, 5))
    queue = F.normalize(queue, dim=1)
    expected = 0.0
    for s, t in zip(student, teacher, strict=True):
        logits = [[float(q @ x / x.norm()) / 0.2 for q in queue] for x in (s, t)]
        shares = [torch.tensor(row).softmax(0).tolist() for row in logits]
        expected += sum(b * float(torch.tensor(b / a).log()) for a, b in zip(*shares, strict=True))
    found = similarity_loss(student, teacher, queue, 0.2)
    assert float(found) == pytest.approx(expected / 3, rel=1e-5)
    assert float(similarity_loss(3 * teacher, teacher, queue, 0.2)) == pytest.approx(0, abs=1e-9)


def test_patches_are_compared_on_the_teachers_grid_at_any_scale() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 2, 2)
    means = student.unflatten(3, (2, 2)).unflatten(2, (2, 2)).mean((3, 5))  # of an even halving
    wanted = torch.empty_like(teacher)
    for image in range(2):
        for place in range(4):
            column = teacher[image].flatten(1)[:, place]
            scaled = (column - column.mean()) / (column.var(correction=0) + 1e-5).sqrt()
            wanted[image].view(3, 4)[:, place] = scaled
    torch.testing.assert_close(patch_loss(student, teacher), (means - wanted).square().mean())
    scaled = float(patch_loss(student, 7 * teacher))
    assert scaled == pytest.approx(float(patch_loss(student, teacher)), rel=1e-3)  # an epsilon


def test_the_head_maps_the_image_and_its_patches() -> None:
    head, tokens = DistillHead(5, 3, 2), torch.randn(4, 1 + 9, 5)
    rows = head(tokens)
    assert rows.shape == (4, 3 + 9 * 2)
    torch.testing.assert_close(rows[:, 3:].unflatten(1, (9, 2))[:, 7], head.patches(tokens[:, 8]))
    assert DistillHead(5, 3, 0)(tokens).shape == (4, 3)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of an untrained ConViT and an untrained ResNet of timm's."""
    import timm

    folder = tmp_path_factory.mktemp("teachers")
    size = {"embed_dim": 16, "num_heads": 4, "depth": 3, "num_gpsa_layers": 2}
    torch.manual_seed(0)
    ours = create_model("convit_nano", img_size=24, patch_size=8, num_classes=0, **size)
    save_trunk(ours, folder / "ours.pth")
    other = timm.create_model("resnet10t", num_classes=5)
    torch.save(other.state_dict(), folder / "other.pth")
    return {"ours": f"{folder}/ours.pth", "timm": f"timm:resnet10t={folder}/other.pth"}


def test_a_teacher_sees_views_in_its_own_size_and_normalisation(teachers: dict[str, str]) -> None:
    teacher = open_teacher(teachers["ours"])
    assert isinstance(teacher.network, ConViT) and teacher.widths() == (16, 16)
    images = torch.randn(2, 3, 24, 24)
    tokens = teacher.network.forward_features(images)
    found = teacher(images)
    torch.testing.assert_close(found.image, tokens[:, 0])
    assert found.patches is not None
    torch.testing.assert_close(found.patches[:, :, 1, 2], tokens[:, 1 + 5])
    assert teacher(torch.randn(2, 3, 8, 8)).patches.shape == (2, 16, 3, 3)

    other = open_teacher(teachers["timm"])
    network: Any = other.network
    assert other.widths()[0] == network.num_features
    assert not other.training and not any(p.requires_grad for p in other.parameters())
    means = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    grey = ((0.5 - means) / torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)).expand(1, 3, 8, 8)
    own = type(other)(network, other.size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    expected = network.forward_features(torch.zeros(1, 3, *other.size))
    torch.testing.assert_close(own(grey).patches, expected, atol=1e-4, rtol=1e-3)


def distilling(*more: str) -> Any:
    """A small task that learns from a teacher."""
    from convit_ssl.engines.options.compose import compose_experiment
    from convit_ssl.engines.options.plan import make_plan

    plan = make_plan(compose_experiment(["config=convit_distill", *SMALL.split(), *more]))
    return ready(plan.config)


def steps(task: Any, count: int, same: bool = False) -> list[float]:
    from convit_ssl.adapters.train_step import train_step

    torch.manual_seed(7)
    batches = counted_batches(task)
    task.data_iterator = itertools.repeat(next(batches)) if same else batches
    losses = []
    for _ in range(count):
        train_step(task)
        task.iteration += 1
        losses.append(float(task.last_batch.loss))
    return losses


@pytest.mark.parametrize("kind", ["ours", "timm"])
def test_steps_learn_from_the_teacher(teachers: dict[str, str], kind: str) -> None:
    task = distilling(f"teacher={teachers[kind]}", "method.queue_size=14")
    losses = steps(task, 12, same=True)
    assert losses[-1] < losses[3]  # the queue is full by then
    assert {"similarity", "patches"} <= set(task.base_loss.stats)
    queue = task.base_loss.queue
    assert queue.count() == 14 and not any("network" in key for key in task.base_loss.state_dict())
    assert not any("network" in name for name, _ in task.base_model.named_parameters())
    task.base_model.eval()
    assert task.base_model.trunk(torch.zeros(1, 3, 8, 8))[0].shape == (1, 16)


def test_a_batch_in_parts_is_the_same_step(teachers: dict[str, str]) -> None:
    words = (f"teacher={teachers['ours']}", "method.queue_size=14")
    whole = steps(distilling(*words), 3)
    parts = steps(distilling(*words, "optim.accumulate=2"), 3)
    assert parts == pytest.approx(whole, rel=1e-5)


def test_the_queue_is_part_of_a_checkpoint(teachers: dict[str, str]) -> None:
    words = (f"teacher={teachers['ours']}", "method.queue_size=14", "optim=sgd")
    whole, resumed = distilling(*words), distilling(*words)
    steps(whole, 2)
    for part in ("base_model", "base_loss"):
        getattr(resumed, part).load_state_dict(getattr(whole, part).state_dict())
    assert resumed.base_loss.queue.count() == 12
    momenta = copy.deepcopy(whole.optimizer.optimizer.state_dict())
    resumed.optimizer.optimizer.load_state_dict(momenta)
    resumed.iteration = whole.iteration
    assert steps(resumed, 2) == steps(whole, 2)


def test_whole_images_are_seen_once(
    teachers: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convit_ssl.data import evaluation_transform, open_dataset

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    task = distilling(
        f"teacher={teachers['ours']}", "method.whole_images=true", f"run.dir={tmp_path}"
    )
    kept = task.base_loss._kept
    assert kept.shape == (1000, 16)
    teacher = open_teacher(teachers["ours"])
    images = open_dataset("digits", None, "train", evaluation_transform(teacher.size))
    for number in (0, 3, 999):
        torch.testing.assert_close(
            teacher(images[number][0][None]).image[0], kept[number], atol=1e-4, rtol=1e-3
        )
    calls = [0]
    hook = teacher.register_forward_pre_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    losses = steps(task, 12, same=True)
    hook.remove()
    assert losses[-1] < losses[3] and not calls[0]
    assert (tmp_path / "convit_ssl" / "features").is_dir()
    assert task.base_model.heads[0].patches is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "learns from another network: add teacher=NETWORK"),
        (("teacher=nowhere.pth",), "nowhere.pth"),
        (("teacher=x.pth", "trunk.variant=timm:resnet10t"), "no patch features; add method"),
        (("teacher=timm:resnet10t=nowhere.pth",), "there is no file"),
    ],
)
def test_what_cannot_teach_is_refused_first(words: tuple[str, ...], message: str) -> None:
    from convit_ssl.engines.options.compose import compose_experiment
    from convit_ssl.engines.options.plan import make_plan

    with pytest.raises(UserError, match=message):
        make_plan(compose_experiment(["config=convit_distill", *SMALL.split(), *words]))


def test_relative_files_are_found_from_anywhere(
    teachers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from convit_ssl.engines.options.teacher import _whole

    monkeypatch.chdir(Path(teachers["ours"]).parent)
    assert _whole("ours.pth") == teachers["ours"]
    assert _whole("timm:resnet10t=other.pth") == teachers["timm"]
    assert _whole("timm:resnet10t") == "timm:resnet10t"
