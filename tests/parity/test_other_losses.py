"""MoCo v3, SwAV and Barlow Twins against their published pseudocode."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from convit_ssl.methods import BarlowTwinsLoss, MoCoV3Loss, SwAVLoss, SwAVQueue, sinkhorn
from convit_ssl.methods.base import Run, get_method, options_of


def published_moco(queries: list[Tensor], keys: list[Tensor], temperature: float) -> Tensor:
    """Algorithm 1 of arXiv:2104.02057, image by image."""
    total = torch.zeros((), dtype=queries[0].dtype)
    for query, key in ((queries[0], keys[1]), (queries[1], keys[0])):
        for i in range(len(query)):
            similarities = torch.stack(
                [F.cosine_similarity(query[i], other, dim=0) / temperature for other in key]
            )
            total = total - similarities.log_softmax(0)[i] / len(query)
    return 2 * temperature * total


@pytest.mark.parametrize("temperature", [0.2, 1.0])
@pytest.mark.parametrize("batch", [1, 5])
def test_moco_v3(batch: int, temperature: float) -> None:
    queries = [torch.randn(batch, 7, dtype=torch.float64).requires_grad_() for _ in range(2)]
    keys = [torch.randn(batch, 7, dtype=torch.float64).requires_grad_() for _ in range(2)]
    loss = MoCoV3Loss(temperature)(*queries, *keys)
    expected = published_moco(queries, [key.detach() for key in keys], temperature)
    torch.testing.assert_close(loss, expected)
    gradients = torch.autograd.grad(loss, queries, retain_graph=True)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected, queries), strict=True):
        torch.testing.assert_close(gradient, wanted)
    assert torch.autograd.grad(loss, keys, allow_unused=True) == (None, None)


def published_sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Listing of appendix A in arXiv:2006.09882: prototypes in rows, images in columns."""
    q = (scores / epsilon).exp().T
    q /= q.sum()
    prototypes, images = q.shape
    for _ in range(iterations):
        q *= (torch.ones(prototypes) / prototypes / q.sum(dim=1)).unsqueeze(1)
        q *= (torch.ones(images) / images / q.sum(dim=0)).unsqueeze(0)
    return (q / q.sum(dim=0, keepdim=True)).T


@pytest.mark.parametrize(("epsilon", "iterations"), [(0.05, 3), (0.5, 1)])
def test_sinkhorn(epsilon: float, iterations: int) -> None:
    scores = torch.rand(11, 5, dtype=torch.float64) * 2 - 1
    assigned = sinkhorn(scores, epsilon, iterations)
    torch.testing.assert_close(assigned, published_sinkhorn(scores, epsilon, iterations))


def test_sinkhorn_balances_and_survives_large_scores() -> None:
    balanced = sinkhorn(torch.randn(64, 8) * 0.3, 0.05, 50)
    torch.testing.assert_close(balanced.sum(0), torch.full((8,), 8.0), rtol=0.02, atol=0)
    torch.testing.assert_close(balanced.sum(1), torch.ones(64))
    assert sinkhorn(torch.randn(6, 4) * 1000).isfinite().all()


@pytest.mark.parametrize("num_crops", [2, 5])
def test_swav(num_crops: int) -> None:
    scores = (torch.rand(num_crops * 6, 9, dtype=torch.float64) * 2 - 1).requires_grad_()
    loss = SwAVLoss(num_crops)(scores)
    crops = scores.chunk(num_crops)
    expected = torch.zeros((), dtype=torch.float64)
    for assigning in range(2):
        q = published_sinkhorn(crops[assigning].detach(), 0.05, 3)
        part = torch.zeros((), dtype=torch.float64)
        for v in range(num_crops):
            if v != assigning:
                part = part - (q * F.log_softmax(crops[v] / 0.1, dim=1)).sum(1).mean()
        expected = expected + part / (num_crops - 1) / 2
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(value, scores)[0] for value in (loss, expected)]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_swav_with_a_queue_is_vissls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.Module, "cuda", lambda self: self)  # it wants a GPU when built
    from vissl.losses.swav_loss import SwAVCriterion

    crops, batch, length, width, prototypes = 3, 4, 9, 5, 11
    vissls = SwAVCriterion(
        0.1, [0, 1], crops, 3, 0.05, False, [prototypes], length, width, 0, "absent"
    )
    vissls.use_gpu = False
    embeddings = F.normalize(torch.randn(crops * batch, width), dim=1)
    weight = F.normalize(torch.randn(prototypes, width), dim=1)
    queue = SwAVQueue(length, width)
    for _ in range(3):  # twelve images for nine places
        latest = F.normalize(torch.randn(crops * batch, width), dim=1)
        vissls.update_emb_queue(latest)
        queue.push(latest.chunk(crops)[:2])
    torch.testing.assert_close(queue.embeddings, vissls.local_emb_queue)
    queued = F.linear(queue.share(), weight)
    vissls.use_queue = True
    vissls.local_queue0.copy_(queued)
    scores = (embeddings @ weight.T).requires_grad_()
    loss, expected = SwAVLoss(crops)(scores, list(queued)), vissls(scores, 0)
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(value, scores)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients)
    assert not torch.allclose(loss, SwAVLoss(crops)(scores)), "the queue tells"


def test_a_queue_knows_from_its_state_that_it_is_full() -> None:
    full, fresh = SwAVQueue(4, 3), SwAVQueue(4, 3)
    full.push([torch.randn(4, 3), torch.randn(4, 3)])
    assert full.full()
    assert not fresh.full()
    fresh.load_state_dict(full.state_dict())
    assert fresh.full()
    with pytest.raises(ValueError, match="length=0"):
        SwAVQueue(0, 3)


def published_barlow(first: Tensor, second: Tensor, weight: float) -> Tensor:
    """Algorithm 1 of arXiv:2103.03230 with batch normalisation, entry by entry."""
    standard = [F.batch_norm(view, None, None, training=True) for view in (first, second)]
    total = torch.zeros((), dtype=first.dtype)
    for i in range(first.shape[1]):
        for j in range(first.shape[1]):
            c = (standard[0][:, i] * standard[1][:, j]).mean()
            total = total + ((c - 1) ** 2 if i == j else weight * c**2)
    return total


@pytest.mark.parametrize(("batch", "dim"), [(3, 2), (13, 5)])
def test_barlow_twins(batch: int, dim: int) -> None:
    views = [(torch.randn(batch, dim).double() * 3 + 1).requires_grad_() for _ in range(2)]
    loss = BarlowTwinsLoss(0.0051)(*views)
    expected = published_barlow(views[0], views[1], 0.0051)
    torch.testing.assert_close(loss, expected)
    gradients = torch.autograd.grad(loss, views)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected, views), strict=True):
        torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_is_computed_in_full(dtype: torch.dtype) -> None:
    views = [torch.randn(6, 4).to(dtype) for _ in range(4)]
    wide = [view.float() for view in views]
    assert torch.equal(MoCoV3Loss()(*views), MoCoV3Loss()(*wide))
    assert torch.equal(BarlowTwinsLoss()(*views[:2]), BarlowTwinsLoss()(*wide[:2]))
    assert torch.equal(SwAVLoss(2)(views[0]), SwAVLoss(2)(wide[0]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(MoCoV3Loss()(*wide), MoCoV3Loss()(*views).float())
        narrow = BarlowTwinsLoss()(*wide[:2]), SwAVLoss(2)(wide[0])
    assert torch.equal(narrow[0], BarlowTwinsLoss()(*wide[:2]))
    assert torch.equal(narrow[1], SwAVLoss(2)(wide[0]))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="temperature=-1"):
        MoCoV3Loss(-1)
    with pytest.raises(ValueError, match="num_crops=1"):
        SwAVLoss(1)
    with pytest.raises(ValueError, match=r"epsilon=0"):
        SwAVLoss(2, epsilon=0)


def test_labels_in_float64_are_not_rounded_to_float32() -> None:
    """Beside the released ConViT, losses of float64 were 1e-7 apart."""
    options = options_of({"name": "supervised", "smoothing": 0.1})
    loss = get_method("supervised")(options, Run(num_classes=5))
    logits, target = torch.randn(3, 5, dtype=torch.float64), torch.tensor([0, 4, 2])
    log = logits.log_softmax(1)
    expected = -(0.9 * log[range(3), target] + 0.1 * log.mean(1)).mean()
    torch.testing.assert_close(loss(logits, target), expected, rtol=1e-14, atol=0)
    mixed = F.one_hot(target, 5) * 0.9 + 0.02  # as mixup gives them
    torch.testing.assert_close(loss(logits, mixed), expected, rtol=1e-6, atol=0)
