"""DIET: each image is a class of its own (arXiv:2302.10260, arXiv:2406.10743)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from convit_ssl.data.augment.spec import AugmentConfig, CropConfig
from convit_ssl.errors import UserError
from convit_ssl.methods.base import Crops, Method, Run, register_method
from convit_ssl.methods.gather import full_precision
from convit_ssl.methods.scale_tables import PublishedRun
from convit_ssl.options import MethodOptions, option

__all__ = ["DIET", "DIETLoss", "DIETOptions"]


@dataclass
class DIETOptions(MethodOptions):
    """DIET (arXiv:2302.10260)."""

    label_smoothing: float = option(
        0.8,
        "Label smoothing: fraction of the target spread evenly over all images.",
        unit="fraction", least=0, most=1,
    )  # fmt: skip


class DIETLoss(nn.Module):
    """Cross-entropy between the scores of all images and the number of the image.

    Args:
        smoothing: share of the target that is spread evenly over all images.

    Raises:
        ValueError: a share outside 0 to 1.

    Source: arXiv:2302.10260, equation 1, with label smoothing.
    """

    def __init__(self, smoothing: float = 0.8) -> None:
        super().__init__()
        if not 0 <= smoothing <= 1:
            raise ValueError(f"label_smoothing={smoothing} is a share from 0 to 1")
        self.smoothing = smoothing

    def forward(
        self, scores: Float[Tensor, "batch images"], numbers: Int[Tensor, " batch"]
    ) -> Float[Tensor, ""]:
        """Mean over the batch, in nats."""
        with torch.autocast(scores.device.type, enabled=False):
            return F.cross_entropy(full_precision(scores), numbers, label_smoothing=self.smoothing)


@register_method
class DIET(Method[DIETOptions]):
    """DIET: a linear classifier tells all images of the collection apart (arXiv:2302.10260).

    No projector, no pairs and no teacher, so an image is one view and a step costs half of
    SimCLR's. The classifier has a row for every image: 1.28 million rows of 432 numbers are 2 GiB.
    """

    name = "diet"
    Options = DIETOptions
    global_crops = 1
    by_number = True
    published = PublishedRun(300, 1024, 10, "the batch of 2048 cut to 1024")
    experiment: ClassVar = {
        "optim": {"lr": 1e-3, "min_lr": 1e-6, "batch_size": 2048, "weight_decay": 0.05}
    }

    def __init__(self, options: DIETOptions, run: Run) -> None:
        super().__init__(options, run)
        self.diet = DIETLoss(options.label_smoothing)

    @classmethod
    def views(cls, options: DIETOptions, crops: Crops) -> AugmentConfig:
        """One crop; colours change seldom. Erasing, the last of the published changes, is left out.

        Source: arXiv:2302.10260, listing of the augmentations.
        """
        crop = CropConfig(
            crops.global_size,
            scale=crops.global_scale,
            interpolation="bilinear",
            jitter=(0.4, 0.4, 0.4, 0.2),
            jitter_prob=0.3,
            grey_prob=0.2,
            blur_prob=0.2,
        )
        return AugmentConfig((crop,))

    @classmethod
    def head(cls, options: DIETOptions, width: int, run: Run) -> nn.Module:
        """A row of weights for each image, without biases.

        Raises:
            UserError: the number of images is not known.
        """
        if run.num_images < 2:
            raise UserError(
                f"method.name=diet tells images apart, and the run has {run.num_images}; it needs "
                "Run(num_images=...) of 2 or more"
            )
        return nn.Linear(width, run.num_images, bias=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Loss of the scores; targets are the numbers of the images."""
        loss: Tensor = self.diet(output, target)
        self.stats["recognised"] = (output.detach().argmax(1) == target).float().mean()
        return loss
