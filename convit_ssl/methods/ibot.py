"""iBOT: DINO, and a student that predicts the teacher's patches where its own are hidden."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from convit_ssl.methods.base import Progress, Run, register_method
from convit_ssl.methods.choices import Chooser
from convit_ssl.methods.dino import DINO, DINOLoss, DINOOptions
from convit_ssl.methods.gather import full_precision
from convit_ssl.methods.heads import DINOHead
from convit_ssl.methods.scale_tables import CollectionRule, PublishedRun
from convit_ssl.methods.schedules import CosineSchedule
from convit_ssl.options import option

__all__ = ["IBOT", "Hidden", "IBOTHead", "IBOTOptions", "draw_masks", "patch_entropy"]

ASPECTS = (math.log(0.3), -math.log(0.3))  # logarithms, of a block
ATTEMPTS = 10  # at a block that fits
FEWEST = 2  # hidden patches of a batch: normalisation in the head needs as many
USUAL_PATCHES = 49  # of a crop, for the estimate of memory


@dataclass
class IBOTOptions(DINOOptions):
    """iBOT (arXiv:2111.07832). As published for ViT-S/16 with a head that both losses share."""

    out_dim: int = option(8192, "Outputs of the head.", unit="channels", least=2)
    norm_last_layer: bool = option(
        False, "Keep the last layer's weight norms at 1, which is more stable."
    )
    teacher_temperature: float = option(
        0.07, "Temperature of the teacher's outputs after the warm-up.", above=0
    )
    warmup_teacher_temperature_epochs: float = option(
        30.0, "Length of the linear warm-up of the teacher's temperature.", unit="epochs", least=0
    )
    warmup_patch_temperature: float = option(
        0.04, "Temperature of the teacher's patch outputs at the start.", above=0
    )
    patch_temperature: float = option(
        0.07, "Temperature of the teacher's patch outputs after the warm-up.", above=0
    )
    patch_weight: float = option(1.0, "Weight of the masked-patch loss.", unit="factor", least=0)
    mask_share: float = option(
        0.3, "Mean fraction of patches that are masked in a masked large crop.",
        unit="fraction", above=0, most=1,
    )  # fmt: skip
    mask_spread: float = option(
        0.2, "The masked fraction is drawn from mask_share ± this.",
        unit="fraction", least=0, most=1,
    )  # fmt: skip
    mask_probability: float = option(
        0.5, "Probability that a large crop is masked.", unit="probability", above=0, most=1
    )
    mask_shape: str = option(
        "block", "Masked patches form blocks, as in BEiT, or are drawn independently.",
        choices=("block", "random"),
    )  # fmt: skip


class Hidden(NamedTuple):
    """Which patches of a batch are hidden.

    Attributes:
        masks: by row (a crop of an image, crop-major) and patch.
        places: of the hidden patches among all of them, in order.
        weights: of each in the loss: 1 / (hidden patches of its crop x rows).
    """

    masks: Bool[Tensor, "rows patches"]
    places: Int[Tensor, " hidden"]
    weights: Float[Tensor, " hidden"]

    @classmethod
    def of(cls, masks: Any, device: torch.device) -> Hidden:
        """From masks (rows, patches) in numpy, without waiting for the device."""
        counts = masks.sum(1)
        rows, _ = np.nonzero(masks)
        weights = 1 / (np.maximum(counts, 1)[rows] * len(masks))
        arrays = (masks, np.flatnonzero(masks), weights.astype(np.float32))
        return cls(*(torch.from_numpy(array).to(device, non_blocking=True) for array in arrays))


def draw_masks(
    generator: np.random.Generator, rows: int, grid: tuple[int, int], options: IBOTOptions
) -> Any:
    """Masks (rows, patches) of a batch, at least two patches of which are hidden.

    Args:
        generator: of random numbers.
        rows: crops of images.
        grid: height and width in patches.
        options: `IBOTOptions`.

    Source: arXiv:2111.07832, section 4.1; blocks as in BEiT (arXiv:2106.08254, algorithm 1).
    """
    masks = np.zeros((rows, *grid), dtype=bool)
    spread = min(options.mask_spread, options.mask_share)
    draw = _block_mask if options.mask_shape == "block" else _random_mask
    for mask in masks:
        if generator.random() < options.mask_probability:
            share = options.mask_share + spread * (2 * generator.random() - 1)
            draw(generator, mask, min(share, 1.0) * mask.size)
    flat = masks.reshape(rows, -1)
    while flat.sum() < min(FEWEST, flat.size):
        flat[generator.integers(rows), generator.integers(flat.shape[1])] = True
    return flat


def _random_mask(generator: np.random.Generator, mask: Any, patches: float) -> None:
    mask.flat[generator.permutation(mask.size)[: int(patches)]] = True


def _block_mask(generator: np.random.Generator, mask: Any, patches: float) -> None:
    """Blocks of random size and shape until enough patches are hidden, or no block fits."""
    height, width = mask.shape
    least = (min(height, width) // 3) ** 2
    hidden = 0
    while hidden < patches:
        for _ in range(ATTEMPTS):
            area = least + (patches - hidden - least) * generator.random()
            aspect = math.exp(generator.uniform(*ASPECTS))
            rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if not (rows < height and columns < width):
                continue
            top = generator.integers(height - rows + 1)
            left = generator.integers(width - columns + 1)
            block = mask[top : top + rows, left : left + columns]
            new = block.size - int(block.sum())
            if 0 < new <= patches - hidden:
                block[:] = True
                hidden += new
                break
        else:
            return


def patch_entropy(
    student: Float[Tensor, "hidden out_dim"],
    targets: Float[Tensor, "hidden out_dim"],
    weights: Float[Tensor, " hidden"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Cross-entropy of hidden patches: mean over those of a crop, then over crops; in nats.

    Crops without a hidden patch count as 0.

    Args:
        student: logits.
        targets: the teacher's probabilities.
        weights: as in `Hidden`.
        temperature: of the student.

    Source: arXiv:2111.07832, equation 2.
    """
    scores = (full_precision(student) / temperature).log_softmax(dim=-1)
    loss: Tensor = -(torch.linalg.vecdot(targets, scores) * weights).sum()
    return loss


class IBOTHead(DINOHead):
    """DINO's head, of the class tokens of all crops and of hidden patches, which share it.

    Attributes:
        hidden: the hidden patches of the large crops, set before each pass.
        of_teacher: patches are all computed, and the mean of their outputs follows the others.
    """

    def __init__(self, *sizes: Any, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.hidden: Hidden | None = None
        self.of_teacher = False

    def forward(self, x: Float[Tensor, "rows *tokens in_dim"]) -> Float[Tensor, "_ out_dim"]:
        """Outputs of class tokens, then of hidden patches, then, of a teacher, their mean.

        The last layer is linear, so that the mean is taken before it.
        """
        if x.dim() == 2:  # the feature alone
            plain: Tensor = super().forward(x)
            return plain
        assert self.hidden is not None
        logits: Tensor = super().forward(x[:, 0])
        patches = x[: len(self.hidden.masks), 1:].flatten(0, 1)
        if not self.of_teacher:
            found = self._normed(patches.index_select(0, self.hidden.places))
            return torch.cat((logits, self.last_layer(found)))
        found = self._normed(patches)
        chosen = found.index_select(0, self.hidden.places)
        mean = found.mean(dim=0, keepdim=True)
        return torch.cat((logits, self.last_layer(torch.cat((chosen, mean)))))

    def _normed(self, x: Tensor) -> Tensor:
        return F.normalize(full_precision(self.mlp(x)), dim=-1)


@register_method
class IBOT(DINO):
    """iBOT: DINO's loss, and the same between patches, which are hidden from the student.

    A hidden patch becomes a token that is learned, so that the grid stays whole and the positional
    attention of GPSA separable (arXiv:2111.07832).
    """

    name = "ibot"
    Options = IBOTOptions
    local_crops = 10
    smallest_share = 0.25
    all_tokens = True
    hides_patches = True
    published = PublishedRun(800, 1024, 10, "as published for ViT-S/16")
    experiment: ClassVar = {
        "optim": {
            "lr": 5e-4, "min_lr": 1e-6, "weight_decay": 0.04, "weight_decay_end": 0.4,
            "clip_grad": 3.0, "clip_mode": "parameter",
        },
        "trunk": {"drop_path_rate": 0.1},
    }  # fmt: skip

    def __init__(self, options: IBOTOptions, run: Run) -> None:
        super().__init__(options, run)
        self.options: IBOTOptions = options
        self.patches = DINOLoss(  # of which the centre and the sharpening are used
            options.out_dim, 2, 1, options.student_temperature, options.center_momentum
        )
        self.patch_schedule = CosineSchedule(
            options.patch_temperature,
            options.patch_temperature,
            run.epochs,
            min(options.warmup_teacher_temperature_epochs, run.epochs),
            options.warmup_patch_temperature,
        )
        self._patch_temperature = options.patch_temperature
        self._hidden: Hidden | None = None
        self._patch_outputs: Tensor | None = None
        self._head: tuple[IBOTHead, ...] = ()  # no submodule: it is the model's

    @classmethod
    def head(cls, options: DINOOptions, width: int, run: Run) -> nn.Module:
        """DINO's, for class tokens and patches."""
        sizes = (width, options.out_dim, options.hidden_dim, options.bottleneck_dim)
        norms = {"use_bn": options.use_bn, "norm_last_layer": options.norm_last_layer}
        return IBOTHead(*sizes, **norms)

    @classmethod
    def scale(cls, choose: Chooser, rule: CollectionRule, width: int, small: bool) -> None:
        """As DINO; patches are sharpened like images, without a warm-up for a short run."""
        if not small:
            return
        super().scale(choose, rule, width, small)
        choose.pick("patch_temperature", rule.teacher_temperature, rule.why)
        start = min(0.04, float(rule.teacher_temperature))
        why = f"no warmer than at the end; {rule.why}"
        choose.pick("warmup_teacher_temperature", start, why)
        choose.pick("warmup_patch_temperature", start, why)
        choose.pick("norm_last_layer", 1, "more stable (arXiv:2104.14294, appendix)")

    @classmethod
    def loss_floats_per_row(cls, options: DINOOptions) -> int:
        """Of hidden patches: three tensors of outputs and the hidden layers of the head."""
        assert isinstance(options, IBOTOptions)
        hidden = options.mask_share * options.mask_probability * USUAL_PATCHES
        return round(hidden * (3 * options.out_dim + 4 * options.hidden_dim))

    def attach(self, student: nn.Module) -> None:
        """Copy the student, and keep hold of both heads."""
        super().attach(student)
        assert self.teacher is not None
        head, teacher = (of.get_submodule("heads.0") for of in (student, self.teacher))
        assert isinstance(head, IBOTHead) and isinstance(teacher, IBOTHead)
        teacher.of_teacher = True
        self._head = (head, teacher)

    def on_views(self, student: nn.Module, views: Any, progress: Progress) -> None:
        """Hide patches of the large crops; random numbers follow from PyTorch's state."""
        shape = views[0].shape
        trunk: Any = getattr(student.trunk, "base_model", student.trunk)
        grid = trunk.config.grid_size(*shape[-2:])
        seed = int(torch.randint(2**62, ()))
        rows = shape[0] * self.dino.num_global_crops
        masks = draw_masks(np.random.default_rng(seed), rows, grid, self.options)
        device = next(trunk.parameters()).device
        self._hidden = hidden = Hidden.of(masks, device)
        trunk.hidden_patches = hidden.masks
        for head in self._head:
            head.hidden = hidden
        self._patch_temperature = self.patch_schedule.value(progress.step, progress.steps_per_epoch)

    @torch.no_grad()
    def observe(self, inputs: Any, progress: Progress) -> None:
        """The teacher's outputs for the large crops, and for what is hidden in them."""
        teacher: Any = self.teacher
        trunk: Any = getattr(teacher.trunk, "base_model", teacher.trunk)
        trunk.gives_tokens = True
        try:
            tokens = self.teacher_features(self._large(inputs))
        finally:
            trunk.gives_tokens = False
        outputs = teacher.heads[0](tokens)
        self._targets, self._patch_outputs = outputs[: len(tokens)], outputs[len(tokens) :]
        self._teacher_temperature = self.temperature.value(progress.step, progress.steps_per_epoch)

    def _large(self, inputs: Any) -> Any:
        return list(inputs[: self.dino.num_global_crops])

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Both losses; labels are ignored."""
        assert self._hidden is not None and self._patch_outputs is not None
        images = len(output) - len(self._hidden.places)
        loss = super().forward(output[:images], target)
        with torch.autocast(output.device.type, enabled=False):
            targets, entropy = self.patches.sharpen(
                self._patch_outputs[:-1], self._patch_temperature
            )
            patches = patch_entropy(
                output[images:], targets, self._hidden.weights, self.options.student_temperature
            )
        if self.training:
            self.patches.update_center(self._patch_outputs[-1:])
        self.stats["patch_loss"] = patches.detach()
        self.stats["patch_teacher_entropy"] = entropy.detach()
        return loss + self.options.patch_weight * patches
