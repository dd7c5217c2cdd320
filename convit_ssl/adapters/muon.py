"""Muon for the matrices of a network's blocks, AdamW for the rest, as one optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.optim.muon import MUON_EPS, muon

from convit_ssl.adapters.optimizers import MATRICES

MOMENTUM = 0.95
ITERATIONS = 5  # of Newton and Schulz


class MuonAndAdamW(torch.optim.AdamW):
    """AdamW, but for groups of matrices, which Muon steps.

    Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) steps along the orthogonal matrix
    nearest to the momentum, by timm's function. With the size of a step of arXiv:2502.16982 it
    takes AdamW's rate and weight decay.

    Args:
        groups: of parameters; those with ``matrices`` are Muon's.
        betas: of AdamW.
    """

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float]) -> None:
        super().__init__(groups, betas=betas, fused=True)
        # A gradient scaler asks AdamW's kernel to leave out a step; Muon has to be left out too.
        self._step_supports_amp_scaling = False

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step of both."""
        groups = self.param_groups
        try:
            self.param_groups = [group for group in groups if not group.get(MATRICES)]
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if group.get(MATRICES):
                self._step_matrices(group)
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> None:
        parameters = [p for p in group["params"] if p.grad is not None]
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                # AdamW looks for a step in every state that it loads.
                self.state[parameter]["step"] = torch.zeros((), device=parameter.device)
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        muon(
            parameters,
            [p.grad.clone() for p in parameters],  # some versions change it
            [self.state[p]["momentum_buffer"] for p in parameters],
            lr=float(group["lr"]),
            weight_decay=float(group["weight_decay"]),
            momentum=MOMENTUM,
            nesterov=True,
            ns_steps=ITERATIONS,
            ns_coefficients="original",
            eps=MUON_EPS,
            safety_factor=1.0,
            adjust_lr_fn="match_rms_adamw",
            conv_mode="flatten",
            normalize_spatial=True,
            scale_eps=False,
        )
