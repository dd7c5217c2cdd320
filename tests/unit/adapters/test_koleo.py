"""DINO with DINOv2's spreading of features, through VISSL's task."""

import pytest
import torch

from convit_ssl.methods import KoLeoLoss

SMALL = (
    "trunk.embed_dim=32", "trunk.depth=3", "trunk.num_gpsa_layers=2", "trunk.patch_size=4",
    "crops.global_size=8", "crops.local_count=2", "crops.local_size=4", "method.hidden_dim=32",
    "method.bottleneck_dim=16", "method.out_dim=64",
)  # fmt: skip


def losses(task, weight):  # type: ignore[no-untyped-def]
    """What the loss says of two global and two local crops, and the features of all."""
    torch.manual_seed(0)
    crops = [torch.randn(6, 3, side, side) for side in (8, 8, 4, 4)]
    output = task.base_model(crops)[0]
    loss = task.base_loss
    loss.train()
    loss._targets = torch.randn(12, 64)
    total = loss(output, torch.zeros(6, dtype=torch.int64))
    with torch.no_grad():
        features = torch.cat([task.base_model.trunk(crop)[0] for crop in crops])
    return total, features, loss


def test_features_of_the_global_crops_are_spread(build_task) -> None:  # type: ignore[no-untyped-def]
    task = build_task("convit_dino", *SMALL, "method.koleo_weight=0.3")
    task.base_model.train()
    total, features, loss = losses(task, 0.3)
    expected = sum(KoLeoLoss()(part) for part in features[:12].chunk(2))
    assert total.item() == pytest.approx(
        loss.stats["cross_entropy"].item() + 0.3 * expected.item(), rel=1e-4
    )
    assert loss.stats["koleo"].item() == pytest.approx(expected.item() / 2, rel=1e-4)
    total.backward()
    assert loss._student_head[0].features is None, "the graph is let go of"
    assert not [name for name in loss.state_dict() if "student_head" in name]
    teacher_head = loss.teacher.heads[0]
    assert not teacher_head.keep_features


def test_dino_as_published_keeps_nothing(build_task) -> None:  # type: ignore[no-untyped-def]
    task = build_task("convit_dino", *SMALL, "method.koleo_weight=0")
    task.base_model.train()
    _, _, loss = losses(task, 0.0)
    assert "koleo" not in loss.stats
    assert task.base_model.heads[0].features is None
