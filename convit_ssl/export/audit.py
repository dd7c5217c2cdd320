"""What a trunk is: whether its convolutional init is there, its weights finite, and trained.

VISSL 0.1.6 draws new weights over the convolutional init of its ConViT after having made it
(vissl/models/trunks/convit.py, ``self.apply(self._init_weights)`` at the end), so its GPSA
layers start with a random value matrix and a flat positional attention. Nothing in the training
log shows it; here it does.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from convit_ssl.export.load import describe, layer_norm_eps
from convit_ssl.models import GPSA, Block, ConViT
from convit_ssl.models.fingerprint import weights_fingerprint

# What is left of the identity in v after training from it: its mean diagonal. A random
# matrix of width 128 and more has less than 0.01.
_TRACE = 0.1
# A locality_strength of 0.1 is a standard deviation of 2.2 patches; random weights have 0.02.
_LOCALISED = 0.1


@dataclass
class LayerAudit:
    """One GPSA layer. Lengths are in patches, lists have an entry per head.

    Attributes:
        index: of the block.
        state: "initial" (exactly the convolutional init), "trained" (grown out of it),
            "missing" (as drawn at random, never trained) or "untraceable" (trained, and nothing
            of the convolutional init is in it).
        identity_distance: ||v - I||, Frobenius.
        identity_trace: mean of v's diagonal: 1 at the init, 0 for a random matrix.
        centres: (dx, dy) of the positional attention's peak; None where it has none.
        widths: its standard deviation along an axis; None where it has no peak.
        distances: its mean distance from the query, over all queries of the grid.
        gates: share of positional attention; None in layers without gates.
        square: whether the centres are those of a square kernel.
        never_trained: gates, biases and norms are exactly as at the start.
    """

    index: int
    state: str
    identity_distance: float
    identity_trace: float
    centres: list[tuple[float, float] | None]
    widths: list[float | None]
    distances: list[float]
    gates: list[float] | None
    square: bool
    never_trained: bool


@dataclass
class Audit:
    """The whole trunk. `problems` is empty where all is as it should be."""

    what: str
    source: str
    weights: str
    method: str | None
    epoch: int | None
    fingerprint: str
    layer_norm_eps: float
    trained: bool
    heads_square: bool
    not_finite: list[str]
    layers: list[LayerAudit]
    problems: list[str]
    notes: list[str]
    repairable: list[int]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


def audit_trunk(model: ConViT) -> Audit:
    """Look at a trunk's weights. `model.provenance` is used where `load_trunk` left one."""
    provenance: dict[str, Any] = getattr(model, "provenance", {})
    stated = (provenance.get("entry") or {}).get("model") or {}
    not_finite = [
        name for name, tensor in model.state_dict().items() if not bool(tensor.isfinite().all())
    ]
    blocks = [(i, b) for i, b in enumerate(model.blocks) if isinstance(b, Block)]
    grid = model.grid_size(*model.config.image_shape)
    layers = [_audit_layer(i, b, grid) for i, b in blocks if isinstance(b.attn, GPSA)]
    heads = model.config.num_heads
    report = Audit(
        what=describe(model.config),
        source=str(provenance.get("path", "a model in memory")),
        weights=str(provenance.get("weights", "model")),
        method=provenance.get("method"),
        epoch=provenance.get("epoch"),
        fingerprint=weights_fingerprint(model),
        layer_norm_eps=layer_norm_eps(model),
        trained=not all(_never_trained(block) for _, block in blocks),
        heads_square=math.isqrt(heads) ** 2 == heads,
        not_finite=not_finite,
        layers=layers,
        problems=[],
        notes=list(provenance.get("notes", [])),
        repairable=[layer.index for layer in layers if layer.state == "missing"],
    )
    _judge(report, wanted=bool(stated.get("local_init", True)))
    return report


def repair_trunk(model: ConViT) -> list[int]:
    """Give the convolutional init to GPSA layers that never had it and were never trained.

    Args:
        model: changed in place. Layers that were trained are left as they are.

    Returns:
        The blocks that were changed.

    Raises:
        ValueError: the head count is not a square.
    """
    grid = model.grid_size(*model.config.image_shape)
    repaired = []
    for index, block in enumerate(model.blocks):
        if not isinstance(block, Block) or not isinstance(block.attn, GPSA):
            continue
        if _audit_layer(index, block, grid).state == "missing":
            block.attn.local_init()
            repaired.append(index)
    if repaired:
        model.config = dataclasses.replace(model.config, local_init=True)
    model.eval()
    return repaired


@torch.no_grad()
def _audit_layer(index: int, block: Block, grid: tuple[int, int]) -> LayerAudit:
    layer = block.attn
    assert isinstance(layer, GPSA)
    value = layer.v.weight.float()
    weight = layer.pos_proj.weight.float()
    centres, widths = _peaks(weight)
    never_trained = _never_trained(block)
    identity_distance = float((value - torch.eye(layer.dim)).norm())
    trace = float(value.diagonal().mean())
    localised = sum(width is not None and width**-2 / 2 > _LOCALISED for width in widths)
    if identity_distance < 1e-3 and _is_initial(weight):
        state = "initial"
    elif trace >= _TRACE or localised > layer.num_heads // 2:
        state = "trained"
    else:
        state = "missing" if never_trained else "untraceable"
    return LayerAudit(
        index=index,
        state=state,
        identity_distance=identity_distance,
        identity_trace=trace,
        centres=centres,
        widths=widths,
        distances=_mean_distances(layer, grid),
        gates=layer.gate.tolist() if layer.use_gating else None,
        square=_form_square(centres),
        never_trained=never_trained,
    )


def _never_trained(block: Block) -> bool:
    """Every optimiser moves these at its first step, weight decay alone moves the gates."""
    zeros = ("norm1.bias", "norm2.bias", "attn.proj.bias", "mlp.fc1.bias")
    ones = ("norm1.weight", "norm2.weight", "attn.gating_param")
    tensors = dict(block.named_parameters())
    still_zero = all(not bool(tensors[key].any()) for key in zeros)
    return still_zero and all(bool((tensors[key] == 1).all()) for key in ones if key in tensors)


def _peaks(weight: Tensor) -> tuple[list[tuple[float, float] | None], list[float | None]]:
    """Where a dx + b dy + c (dx^2 + dy^2) is largest, and how wide its softmax is."""
    centres: list[tuple[float, float] | None] = []
    widths: list[float | None] = []
    for a, b, c in weight.tolist():
        has_peak = c < 0 and math.isfinite(a + b + c)
        centres.append((-a / (2 * c), -b / (2 * c)) if has_peak else None)
        widths.append((-2 * c) ** -0.5 if has_peak else None)
    return centres, widths


def _is_initial(weight: Tensor) -> bool:
    kernel = math.isqrt(len(weight))
    if kernel**2 != len(weight) or not bool((weight[:, 2] < 0).all()):
        return False
    offset = torch.arange(kernel, dtype=torch.float32) - (kernel - 1) / 2
    strength = -weight[:, 2].mean()
    wanted = [
        2 * offset.repeat_interleave(kernel),
        2 * offset.repeat(kernel),
        -torch.ones(len(weight)),
    ]
    return torch.allclose(weight, strength * torch.stack(wanted, dim=1), atol=1e-4)


def _mean_distances(layer: GPSA, grid: tuple[int, int]) -> list[float]:
    height, width = grid
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    positions = torch.stack([x.flatten(), y.flatten()], dim=1).float()
    between = torch.cdist(positions, positions)
    attention = layer.position_map(grid).float()  # (H, N, N)
    return [float(value) for value in (attention * between).sum(-1).mean(-1)]


def _form_square(centres: list[tuple[float, float] | None]) -> bool:
    """Whether the peaks lie at the places of a square kernel, each within half a patch."""
    kernel = math.isqrt(len(centres))
    if kernel**2 != len(centres):
        return False
    half = (kernel - 1) / 2
    places = {(column - half, row - half) for column in range(kernel) for row in range(kernel)}
    for centre in centres:
        if centre is None or not places:
            return False
        nearest = min(places, key=lambda place: math.dist(place, centre))
        if max(abs(nearest[0] - centre[0]), abs(nearest[1] - centre[1])) > 0.5:
            return False
        places.remove(nearest)
    return True


def _judge(report: Audit, wanted: bool) -> None:
    """Fill in problems and notes. `wanted`: the model is meant to have the convolutional init."""
    by_state: dict[str, list[int]] = {}
    for layer in report.layers:
        by_state.setdefault(layer.state, []).append(layer.index)
    if report.not_finite:
        names = ", ".join(report.not_finite[:3])
        report.problems.append(f"{len(report.not_finite)} tensors are not finite: {names}")
    if not report.trained:
        report.notes.append("never trained: norms, gates and biases are exactly as at the start")
    missing, lost = by_state.get("missing", []), by_state.get("untraceable", [])
    if missing and wanted:
        mean = fmean(layer.identity_distance for layer in report.layers if layer.state == "missing")
        report.problems.append(
            f"the convolutional init is missing in {_blocks(missing)}: v is random "
            f"(||v - I|| = {mean:.1f} instead of 0). This is how VISSL 0.1.6 makes its ConViT; "
            "`convit-ssl audit FILE --repair OUT` gives them the init they were meant to have"
        )
    if lost and wanted:
        report.problems.append(
            f"{_blocks(lost)}: trained, and nothing of the convolutional init is left; "
            "most likely trained from VISSL 0.1.6's random init. Training cannot "
            "be repaired, start again from a sound init"
        )
    if (missing or lost) and not wanted:
        report.notes.append("made without the convolutional init (local_init=False), as configured")
    if report.layers and not report.heads_square and wanted:
        report.problems.append("the head count is not a square: there is no square kernel for it")


def _blocks(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"block {numbers[0]}"
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"blocks {numbers[0]} to {numbers[-1]}"
    return f"blocks {', '.join(map(str, numbers))}"
