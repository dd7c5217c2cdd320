"""``bench step``: a whole training step, from the published manner to ours part by part."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from convit_ssl.bench import contenders, measure, published
from convit_ssl.bench.models import DTYPES
from convit_ssl.bench.report import TableOf
from convit_ssl.methods.clip import clip_each
from convit_ssl.methods.dino import DINOLoss
from convit_ssl.methods.ema import update_teacher
from convit_ssl.methods.heads import DINOHead
from convit_ssl.methods.multicrop import forward_packed
from convit_ssl.methods.simclr import NTXentLoss, SimCLRHead
from convit_ssl.models import ConViT

METHODS = ("dino", "simclr")
COLUMNS = ("step", "ms / image", "images/s", "gain of this part", "times as fast as published")
PARTS = ("+ our", "ours: + our")
NOTES = [
    "The first line is training as published: timm's ConViT, one forward pass per resolution, "
    "a loss that loops over pairs of crops, and clipping, averaging and AdamW tensor by "
    'tensor. Each further line replaces one more part with ours. Data are in memory. "With '
    'input" adds the fastest pipeline or the PIL pipeline on the same core (on a CPU only for '
    "crops of 224 px with, for dino, 8 local crops of 96 px).",
]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is held equal."""

    method: str
    size: str
    batch: int
    global_side: int
    local_side: int
    local_crops: int
    out_dim: int
    dtype: str
    device: str
    clock: str


@dataclasses.dataclass(frozen=True)
class Manner:
    """Which parts are ours."""

    trunk: bool = False
    loss: bool = False
    optimiser: bool = False  # clipping, averaging and AdamW over all tensors at once

    @property
    def name(self) -> str:
        """For the table."""
        parts = [f.name for f in dataclasses.fields(self) if getattr(self, f.name)]
        if not parts:
            return "published"
        return f"{'ours: ' if len(parts) == 3 else ''}+ our {parts[-1]}"


MANNERS = (Manner(), Manner(trunk=True), Manner(trunk=True, loss=True), Manner(True, True, True))


def compare(plan: Plan, repeats: int) -> dict[str, Any]:
    """Time the manners in turn."""
    device = torch.device(plan.device)
    runs = {manner.name: make_step(plan, manner, device) for manner in MANNERS}
    times = measure.alternate(runs, repeats, device, plan.clock)
    rows = [
        {
            "name": name,
            "milliseconds": 1e3 * timing.median / plan.batch,
            "faster": measure.ratio(timing, times["published"]),
        }
        for name, timing in times.items()
    ]
    if input_is_known(plan):
        rows += _with_input(plan, rows)
    return {"setting": dataclasses.asdict(plan), "rows": rows}


def input_is_known(plan: Plan) -> bool:
    """Whether pipelines are timed for these crops, and on the core that also trains.

    A GPU does not wait for one core: its workers load while it computes.
    """
    local = plan.method == "simclr" or (plan.local_side, plan.local_crops) == (96, 8)
    return local and plan.global_side == 224 and torch.device(plan.device).type == "cpu"


def _with_input(plan: Plan, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from convit_ssl.data.augment.timing import time_pipelines

    crops = "2 x 224 + 8 x 96" if plan.method == "dino" else "2 x 224"
    spent = {
        row.pipeline: row.milliseconds
        for row in time_pipelines(8)
        if row.crops == crops and "JPEG" in row.source
    }
    first, last = rows[0]["milliseconds"] + spent["pil"], rows[-1]["milliseconds"] + spent["fast"]
    return [
        {"name": "published, with input (PIL)", "milliseconds": first, "faster": 1.0},
        {"name": "ours, with input (fast)", "milliseconds": last, "faster": first / last},
    ]


def make_step(plan: Plan, manner: Manner, device: torch.device) -> Callable[[], object]:
    """One training step: forward, loss, backward, clipping, AdamW and the teacher."""
    torch.manual_seed(0)
    config = contenders.size_config(plan.size, plan.global_side)
    if manner.trunk:
        trunk: nn.Module = ConViT(config)
    else:
        trunk = published.MultiCropConViT(contenders.timm_convit(config))
    make = {"dino": _dino, "simclr": _simclr}[plan.method]
    forward, student, teacher = make(plan, manner, trunk, device)
    parameters = list(student.parameters())
    kinds: dict[str, Any] = {"fused": True} if manner.optimiser else {"foreach": False}
    optimiser = torch.optim.AdamW(parameters, lr=1e-5, **kinds)
    device_type, dtype = device.type, DTYPES[plan.dtype]

    def run() -> None:
        context: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if plan.dtype != "fp32":
            context = torch.autocast(device_type, dtype)
        with context:
            loss = forward()
        loss.backward()
        if manner.optimiser:
            clip_each(parameters, 3.0)
        else:
            published.clip_in_turn(parameters, 3.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if teacher is not None:
            average = update_teacher if manner.optimiser else published.average_in_turn
            average(student, teacher, 0.996)

    return run


Made = tuple[Callable[[], Tensor], nn.Module, nn.Module | None]


def _dino(plan: Plan, manner: Manner, trunk: nn.Module, device: torch.device) -> Made:
    student = nn.Sequential(trunk, DINOHead(trunk_width(plan), plan.out_dim)).to(device)
    teacher = copy.deepcopy(student).requires_grad_(False)
    sides = [plan.global_side] * 2 + [plan.local_side] * plan.local_crops
    crops = [torch.randn(plan.batch, 3, side, side, device=device) for side in sides]
    looped = published.LoopedDINOLoss(plan.out_dim, len(crops)).to(device)
    fused = DINOLoss(plan.out_dim, len(crops)).to(device)

    def forward() -> Tensor:
        with torch.no_grad():
            targets = teacher[1](forward_packed(teacher[0], crops[:2]))
        logits = student[1](forward_packed(student[0], crops))
        if manner.loss:
            fused_loss: Tensor = fused(logits, targets, 0.04).loss
            return fused_loss
        out: Tensor = looped(logits, targets, 0.04)
        return out

    return forward, student, teacher


def _simclr(plan: Plan, manner: Manner, trunk: nn.Module, device: torch.device) -> Made:
    student = nn.Sequential(trunk, SimCLRHead(trunk_width(plan))).to(device)
    views = torch.randn(2 * plan.batch, 3, plan.global_side, plan.global_side, device=device)
    loss = NTXentLoss() if manner.loss else published.looped_nt_xent

    def forward() -> Tensor:
        first, second = student(views).chunk(2)
        out: Tensor = loss(first, second)
        return out

    return forward, student, None


def trunk_width(plan: Plan) -> int:
    """Channels of the trunk's features."""
    return contenders.size_config(plan.size, plan.global_side).embed_dim


def title(comparison: dict[str, Any]) -> str:
    """What was compared."""
    s = comparison["setting"]
    crops = f"2 x {s['global_side']}"
    if s["method"] == "dino":
        crops += f" + {s['local_crops']} x {s['local_side']}, {s['out_dim']:,} outputs"
    return f"{s['method']}, {s['size']}, {crops}, batch {s['batch']}, {s['dtype']}"


def table(comparison: dict[str, Any]) -> TableOf:
    """A line for each manner."""
    lines, before = [], 1.0
    for row in comparison["rows"]:
        spent, faster = row["milliseconds"], row["faster"]
        part = f"{faster / before:.2f} x" if row["name"].startswith(PARTS) else ""
        of_all = "" if faster == 1.0 else f"{faster:.2f} x"
        lines.append([row["name"], f"{spent:.1f}", f"{1e3 / spent:.2f}", part, of_all])
        before = faster
    return title(comparison), COLUMNS, lines
