"""What is said while it trains."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from omegaconf import OmegaConf

from convit_ssl.engines.callbacks.progress import TrainingHook


class Lines:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str, style: str = "") -> None:
        self.lines.append(text)


def judged(hook: TrainingHook, epoch: int, **figures: Any) -> dict[str, Any]:
    """As at the end of an epoch."""
    hook._judge(epoch, figures)
    hook.figures |= figures
    return hook.figures


def test_a_collapse_is_named_once_while_it_lasts() -> None:
    options = SimpleNamespace(
        method=OmegaConf.create({"name": "simclr"}),
        optim=SimpleNamespace(warmup_epochs=1),
    )
    screen: Any = Lines()
    hook = TrainingHook(options, screen, None, 0.0)
    assert "collapse" not in judged(hook, 4, loss=5.0, rankme=40.0, feature_std=0.7)
    for epoch, rank in ((5, 1.0), (6, 1.1)):
        assert "collapse" in judged(hook, epoch, loss=5.0, rankme=rank, feature_std=0.7)
    assert len(screen.lines) == 1
    # It recovers, and nothing of it stays in what a checkpoint holds.
    assert "collapse" not in judged(hook, 7, loss=5.0, rankme=40.0, feature_std=0.7)
    judged(hook, 8, loss=5.0, rankme=1.0, feature_std=0.7)
    assert len(screen.lines) == 2
