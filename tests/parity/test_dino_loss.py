"""The fused DINO loss against the published loop over pairs of crops."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from convit_ssl.methods import DINOLoss
from convit_ssl.methods.cross_view import cross_view_entropy


def published_loss(
    student: Tensor,
    teacher: Tensor,
    center: Tensor,
    num_crops: int,
    num_global_crops: int,
    student_temperature: float,
    teacher_temperature: float,
) -> Tensor:
    """DINO's pseudocode (arXiv:2104.14294, algorithm 1), pair by pair."""
    students = (student / student_temperature).chunk(num_crops)
    sharpened = F.softmax((teacher - center) / teacher_temperature, dim=-1)
    terms = [
        -(target * F.log_softmax(crop, dim=-1)).sum(dim=-1).mean()
        for i, target in enumerate(sharpened.chunk(num_global_crops))
        for v, crop in enumerate(students)
        if v != i
    ]
    return torch.stack(terms).mean()


@pytest.mark.parametrize(
    ("num_crops", "num_global_crops", "batch", "out_dim"),
    [(2, 2, 3, 7), (10, 2, 5, 101), (3, 1, 2, 31), (5, 3, 7, 53), (2, 1, 1, 11), (4, 4, 2, 13)],
)
@pytest.mark.parametrize(("student_temperature", "teacher_temperature"), [(0.1, 0.04), (0.3, 0.07)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_value_and_gradient(
    num_crops: int,
    num_global_crops: int,
    batch: int,
    out_dim: int,
    student_temperature: float,
    teacher_temperature: float,
    dtype: torch.dtype,
) -> None:
    student = torch.randn(num_crops * batch, out_dim).to(dtype).requires_grad_()
    teacher = torch.randn(num_global_crops * batch, out_dim).to(dtype)
    criterion = DINOLoss(out_dim, num_crops, num_global_crops, student_temperature)
    criterion.center.normal_()
    center = criterion.center.double()
    output = criterion(student, teacher, teacher_temperature)
    (gradient,) = torch.autograd.grad(output.loss, student)

    reference = student.detach().double().requires_grad_()
    expected = published_loss(
        reference,
        teacher.double(),
        center,
        num_crops,
        num_global_crops,
        student_temperature,
        teacher_temperature,
    )
    (expected_gradient,) = torch.autograd.grad(expected, reference)
    assert gradient.dtype == dtype
    tolerance = {torch.float64: 1e-9, torch.float32: 4e-6, torch.bfloat16: 4e-6}[dtype]
    torch.testing.assert_close(output.loss.double(), expected, rtol=tolerance, atol=tolerance)
    rounding = 1e-2 if dtype == torch.bfloat16 else tolerance * 10
    largest = expected_gradient.abs().max()
    assert (gradient.double() - expected_gradient).abs().max() <= rounding * largest


def test_extreme_logits_stay_finite() -> None:
    student = (torch.randn(6, 17) * 300).requires_grad_()
    teacher = torch.randn(4, 17) * 300
    criterion = DINOLoss(17, 3)
    expected = published_loss(student, teacher, criterion.center.clone(), 3, 2, 0.1, 0.04)
    output = criterion(student, teacher, 0.04)
    torch.testing.assert_close(output.loss, expected, rtol=4e-6, atol=1e-6)
    output.loss.backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_published_width() -> None:
    student = (torch.randn(20, 65536) * 0.1).requires_grad_()
    teacher = torch.randn(4, 65536) * 0.1
    criterion = DINOLoss(65536, 10)
    expected = published_loss(
        student.double(), teacher.double(), criterion.center.double(), 10, 2, 0.1, 0.04
    )
    (expected_gradient,) = torch.autograd.grad(expected, student)
    loss = criterion(student, teacher, 0.04).loss
    (gradient,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    assert (gradient - expected_gradient).abs().max() <= 1e-5 * expected_gradient.abs().max()


def test_autocast_computes_in_full_precision() -> None:
    """Autocast takes dot products to bf16 unless it is told not to."""
    student = torch.randn(6, 501, requires_grad=True)
    teacher = torch.randn(4, 501)
    expected = DINOLoss(501, 3)(student, teacher, 0.04)
    (expected_gradient,) = torch.autograd.grad(expected.loss, student)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = DINOLoss(501, 3)(student, teacher, 0.04)
    (gradient,) = torch.autograd.grad(output.loss, student)
    assert torch.equal(gradient, expected_gradient)
    for value, wanted in zip(output, expected, strict=True):
        assert torch.equal(value, wanted)


def test_fp16_keeps_small_gradients_for_the_loss_scale() -> None:
    student = (torch.randn(20, 4099) * 0.1).half().requires_grad_()
    teacher = (torch.randn(4, 4099) * 0.1).half()
    loss = DINOLoss(4099, 10)(student, teacher, 0.04).loss
    (gradient,) = torch.autograd.grad(loss * 2**14, student)
    reference = student.detach().double().requires_grad_()
    expected = published_loss(reference, teacher.double(), torch.zeros(1), 10, 2, 0.1, 0.04)
    (expected_gradient,) = torch.autograd.grad(expected, reference)
    torch.testing.assert_close(gradient.double() / 2**14, expected_gradient, rtol=2e-3, atol=1e-9)


def test_one_optimizer_step() -> None:
    weights = []
    for fused in (True, False):
        torch.manual_seed(1)
        head = torch.nn.Linear(5, 23)
        optimizer = torch.optim.AdamW(head.parameters(), lr=0.1)
        crops, teacher = torch.randn(8, 5), torch.randn(4, 23)
        criterion = DINOLoss(23, 4)
        if fused:
            loss = criterion(head(crops), teacher, 0.04).loss
        else:
            loss = published_loss(head(crops), teacher, criterion.center, 4, 2, 0.1, 0.04)
        loss.backward()
        optimizer.step()
        weights.append(head.weight.detach())
    torch.testing.assert_close(weights[0], weights[1])


def test_gradcheck() -> None:
    targets = [torch.randn(2, 5, dtype=torch.float64).softmax(-1) for _ in range(2)]
    student = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: cross_view_entropy(x, targets, 0.3, 3), (student,))


def test_lists_equal_the_packed_tensor_and_the_gradient_scales() -> None:
    packed = torch.randn(12, 19, requires_grad=True)
    crops = [crop.detach().requires_grad_() for crop in packed.chunk(4)]
    teacher = torch.randn(6, 19)
    one, other = DINOLoss(19, 4), DINOLoss(19, 4)
    loss = one(packed, teacher, 0.05).loss
    same = other(crops, list(teacher.chunk(2)), 0.05).loss
    (loss * 3).backward()
    (same * 3).backward()
    assert loss == same
    assert packed.grad is not None
    torch.testing.assert_close(packed.grad, torch.cat([crop.grad for crop in crops]))
    torch.testing.assert_close(one.center, other.center)


def test_backward_twice_when_the_graph_is_kept() -> None:
    student = torch.randn(4, 9, requires_grad=True)
    loss = DINOLoss(9, 2)(student, torch.randn(4, 9), 0.05).loss
    loss.backward(retain_graph=True)
    assert student.grad is not None
    once = student.grad.clone()
    loss.backward()
    torch.testing.assert_close(student.grad, 2 * once)


def test_crops_of_unequal_batch() -> None:
    """Pairs are averaged over the images that both crops hold."""
    student = [torch.randn(n, 11, dtype=torch.float64).requires_grad_() for n in (3, 3, 2, 0)]
    teacher = [torch.randn(n, 11, dtype=torch.float64) for n in (3, 1)]
    criterion = DINOLoss(11, 4)
    targets = [F.softmax(crop / 0.05, dim=-1) for crop in teacher]
    terms = []
    for i, target in enumerate(targets):
        for v, crop in enumerate(student):
            rows = min(len(target), len(crop))
            if v != i and rows:
                logs = F.log_softmax(crop[:rows] / 0.1, dim=-1)
                terms.append(-(target[:rows] * logs).sum(-1).mean())
    expected = torch.stack(terms).mean()
    expected_gradients = torch.autograd.grad(expected, student[:3])
    loss = criterion(student, teacher, 0.05).loss
    gradients = torch.autograd.grad(loss, student)
    torch.testing.assert_close(loss, expected)
    for gradient, wanted in zip(gradients[:3], expected_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted)
    mean = torch.cat(teacher).mean(0, keepdim=True).float()
    torch.testing.assert_close(criterion.center, 0.1 * mean)


def test_statistics_and_centre() -> None:
    criterion = DINOLoss(13, 2, center_momentum=0.7)
    criterion.center.normal_()
    before = criterion.center.clone()
    teacher = torch.randn(6, 13)
    output = criterion(torch.randn(6, 13), teacher, 0.2)
    probabilities = F.softmax((teacher - before) / 0.2, dim=-1)
    entropy = -(probabilities * probabilities.log()).sum(-1).mean()
    torch.testing.assert_close(output.teacher_entropy, entropy)
    torch.testing.assert_close(output.loss, output.teacher_entropy + output.kl)
    torch.testing.assert_close(criterion.center, before * 0.7 + teacher.mean(0) * 0.3)


def test_centre_rests_in_eval_on_request_and_without_finite_outputs() -> None:
    criterion = DINOLoss(5, 2)
    teacher = torch.ones(4, 5)
    criterion(torch.randn(4, 5), teacher, 0.1, update_center=False)
    criterion.eval()(torch.randn(4, 5), teacher, 0.1)
    criterion.update_center(None)
    criterion.update_center(teacher / 0)
    assert torch.equal(criterion.center, torch.zeros(1, 5))
    assert list(criterion.state_dict()) == ["center"]


def test_start_of_training_is_ln_out_dim() -> None:
    output = DINOLoss(64, 4)(torch.zeros(8, 64), torch.zeros(4, 64), 0.04)
    assert output.loss.item() == pytest.approx(math.log(64))
    assert output.kl.item() == pytest.approx(0, abs=1e-5)


def test_no_gradient_no_memory() -> None:
    criterion = DINOLoss(9, 2)
    student, teacher = torch.randn(4, 9, requires_grad=True), torch.randn(4, 9)
    with torch.no_grad():
        assert not criterion(student, teacher, 0.1).loss.requires_grad
    assert not criterion(student.detach(), teacher, 0.1).loss.requires_grad


def test_an_empty_batch_gives_zero() -> None:
    student = torch.randn(0, 9, requires_grad=True)
    criterion = DINOLoss(9, 4)
    loss = criterion(student, torch.randn(0, 9), 0.1).loss
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(criterion.center, torch.zeros(1, 9))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_crops": 1}, "at least 2 crops"),
        ({"num_crops": 2, "num_global_crops": 3}, "num_global_crops=3"),
        ({"num_crops": 2, "student_temperature": 0.0}, "student_temperature=0.0"),
        ({"num_crops": 2, "center_momentum": 1.5}, "center_momentum=1.5"),
    ],
)
def test_bad_arguments(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DINOLoss(8, **arguments)  # type: ignore[arg-type]


def test_bad_shapes() -> None:
    criterion = DINOLoss(8, 3)
    with pytest.raises(ValueError, match="4 rows do not divide into 3 crops"):
        criterion(torch.randn(4, 8), torch.randn(2, 8), 0.1)
    with pytest.raises(ValueError, match="teacher: got 1 crops, expected 2"):
        criterion(torch.randn(3, 8), [torch.randn(1, 8)], 0.1)
    with pytest.raises(ValueError, match=r"teacher_temperature=0\.0"):
        criterion(torch.randn(3, 8), torch.randn(2, 8), 0.0)
