"""Features of all training images by a frozen network, computed once from whole images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from convit_ssl.adapters.inputs import open_split
from convit_ssl.adapters.teachers import FrozenTeacher, open_teacher
from convit_ssl.data import FaultLog
from convit_ssl.data.augment.evaluation import evaluation_transform
from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.extraction import extract_features, fingerprint_parts
from convit_ssl.machine import user_cache
from convit_ssl.runs import RunFolder
from convit_ssl.schema_resolved import Resolved

PIXELS = 32 * 224**2  # of a batch on a CPU


class ImageFeatures(nn.Module):
    """A teacher's image features as one column."""

    def __init__(self, teacher: FrozenTeacher) -> None:
        super().__init__()
        self.teacher = teacher
        self.layout = {"features": (0, teacher.widths()[0])}

    def forward(self, images: Tensor) -> Tensor:
        """One row for each image."""
        row: Tensor = self.teacher(images).image
        return row


def whole_features(name: str, options: Resolved, device: torch.device) -> Tensor:
    """Features of train by a network (row r belongs to image r), kept in the user's cache.

    A collective call: each process computes a share of the images.

    Args:
        name: of the network; see `open_teacher`.
        options: of the experiment.
        device: of this process.

    Raises:
        UserError: an image cannot be read, so it would have no target.
    """
    teacher = open_teacher(name, options.teacher_settings)
    extractor = ImageFeatures(teacher).eval()
    log = FaultLog(str(RunFolder.of(options.run).unreadable))
    images = open_split(options, "train", evaluation_transform(teacher.size), log, replace=False)
    parts = fingerprint_parts(extractor, images, "fp32")
    folder = user_cache() / "features" / f"teacher-{parts['all'][:24]}"
    height, width = teacher.size
    found = extract_features(
        extractor,
        images,
        folder,
        batch_size=max(1, min(256, PIXELS // (height * width))),
        device=device,
        parts=parts,
    )
    if found.unreadable:
        path, reason = next(iter(found.unreadable.items()))
        raise UserError(
            f"{len(found.unreadable)} images cannot be read, such as {path} ({reason}); with "
            "method.whole_images=true every image needs a target: remove them from the folder, or "
            "leave method.whole_images out"
        )
    return torch.from_numpy(np.array(found.features))
