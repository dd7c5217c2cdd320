"""The teacher follows the student, and only in the ways it should."""

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn

from convit_ssl.methods import build_teacher, update_teacher
from convit_ssl.models import create_model


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 2))


def test_update_is_the_published_average_of_parameters_and_buffers() -> None:
    student = network()
    teacher = build_teacher(student)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn_like(parameter))
    student(torch.randn(7, 3))
    before = copy.deepcopy(teacher.state_dict())
    update_teacher(student, teacher, 0.9)
    for name, value in teacher.state_dict().items():
        current = student.state_dict()[name]
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.9 * before[name] + 0.1 * current)
        else:
            assert torch.equal(value, current)
    assert teacher.state_dict()["1.num_batches_tracked"] == 1


@pytest.mark.parametrize(("momentum", "source"), [(1.0, "teacher"), (0.0, "student")])
def test_ends_of_the_range(momentum: float, source: str) -> None:
    student, other = network(), network()
    teacher = build_teacher(other)
    expected = {"teacher": other, "student": student}[source]
    update_teacher(student, teacher, momentum)
    for mine, wanted in zip(teacher.parameters(), expected.parameters(), strict=True):
        assert torch.equal(mine, wanted)


def test_teacher_of_a_convit_is_deterministic_even_in_train_mode() -> None:
    size = {"img_size": 16, "patch_size": 4, "depth": 3, "num_gpsa_layers": 2}
    student = create_model("convit_nano", **size, num_classes=0, drop_path_rate=0.5, drop_rate=0.2)
    teacher = build_teacher(student.train())
    assert not teacher.training
    assert student.training
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
    images = torch.randn(4, 3, 16, 16)
    expected = teacher(images)
    torch.testing.assert_close(teacher.train()(images), expected)
    assert not torch.equal(student(images), student(images))


def test_a_convit_teacher_uses_its_new_weights() -> None:
    """Position factors that a model keeps in eval mode must not outlive an update."""
    size = {"img_size": 16, "patch_size": 4, "depth": 3, "num_gpsa_layers": 2}
    student = create_model("convit_nano", **size, num_classes=0)
    teacher = build_teacher(student)
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        teacher(images)
        for parameter in student.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        update_teacher(student, teacher, 0.0)
        torch.testing.assert_close(teacher(images), student.eval()(images))


def test_names_of_compiled_modules_are_understood() -> None:
    student = network()
    teacher = build_teacher(student)
    compiled = nn.Sequential(*(torch.compile(part) for part in student))
    with torch.no_grad():
        student[0].weight.zero_()
    update_teacher(compiled, teacher, 0.0)
    assert torch.equal(teacher[0].weight, torch.zeros(5, 3))
    update_teacher(torch.compile(student), teacher, 0.5)


def test_different_networks_and_momenta_are_refused() -> None:
    student = network()
    with pytest.raises(ValueError, match=r"3\.bias .* absent"):
        update_teacher(nn.Sequential(*list(student)[:3], nn.Linear(5, 2, bias=False)), student, 0.9)
    with pytest.raises(ValueError, match=r"of shape \(4, 3\)"):
        update_teacher(nn.Sequential(nn.Linear(3, 4)), nn.Sequential(nn.Linear(3, 5)), 0.9)
    with pytest.raises(ValueError, match=r"lacks 1\.weight"):
        update_teacher(student, nn.Sequential(student[0]), 0.9)
    with pytest.raises(ValueError, match="momentum=2"):
        update_teacher(student, student, 2)


@pytest.fixture
def alone() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_teacher_shares_the_groups_of_synchronised_normalisation(alone: None) -> None:
    """On GPUs heads have it; a group of processes cannot be copied."""
    student = nn.SyncBatchNorm.convert_sync_batchnorm(network(), dist.group.WORLD)
    teacher = build_teacher(student)
    assert isinstance(teacher[1], nn.SyncBatchNorm)
    assert teacher[1].process_group is student[1].process_group is dist.group.WORLD
    assert teacher[1].weight is not student[1].weight
