"""Split a batch into parts: loss and gradients of the whole batch, activations of one part.

The features of each part are first computed without a graph. Heads and loss then see the features
of the whole batch at once, so negatives, batch means, a centre or a queue are the same as in an
undivided step. Their gradient with respect to the features is all that the trunk needs: each part
is computed again with a graph, and its rows of that gradient are propagated through it. The last
part keeps its graph from the first pass, so n parts cost n - 1 additional forward passes of a part.
If the loss compares all images with each other, its matrices need more memory than that pass is
worth: then no part keeps a graph, and the activations of the trunk and those of heads and loss
never exist at the same time. Views stay bytes until their part is computed.

Source: Gao et al. 2021, GradCache (arXiv:2101.06983), split between trunk and head.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from convit_ssl.adapters.late_views import LateView
from convit_ssl.errors import UserError
from convit_ssl.models import ConViT

if TYPE_CHECKING:
    from convit_ssl.adapters.task import ConViTSSLTask


View = Tensor | LateView
Masks = list[Tensor | None]


@dataclass(frozen=True)
class Split:
    """A batch split into parts; each image stays together with all its views.

    Attributes:
        views: batches that show the same images.
        parts: number of parts.
        listed: whether the model takes a list of views instead of one batch.
    """

    views: Sequence[View]
    parts: int
    listed: bool

    @classmethod
    def of(cls, views: Any, parts: int) -> Split:
        """The views of a loader: one batch, or a list of them."""
        if isinstance(views, Tensor):
            return cls([views], parts, listed=False)
        return cls(list(views), parts, listed=True)

    @property
    def images(self) -> int:
        """Images in the batch."""
        return len(self.views[0])

    def rows(self, part: int) -> slice:
        """The images of a part; parts differ by one image at most."""
        ends = [self.images * number // self.parts for number in (part, part + 1)]
        return slice(*ends)

    def join(self, features: Sequence[Tensor]) -> Tensor:
        """Features of the parts, each crop-major, as those of the batch, crop-major."""
        crops = len(self.views)
        return torch.cat([f.unflatten(0, (crops, -1)) for f in features], dim=1).flatten(0, 1)

    def cut(self, whole: Tensor, part: int) -> Tensor:
        """The rows of a part; the inverse of `join`."""
        crops = whole.unflatten(0, (len(self.views), -1))
        return crops[:, self.rows(part)].flatten(0, 1)


class Trunk:
    """The trunk of a VISSL model, part by part, with the drop-path of the whole batch.

    Args:
        model: VISSL's, with ``trunk`` and ``heads``.
        split: the batch.
    """

    def __init__(self, model: Any, split: Split) -> None:
        self.model = model
        self.split = split
        self.names = model._output_feature_names
        # Views of one size that follow one another go through the trunk together, as in VISSL.
        numbered = enumerate(split.views)
        sizes = groupby(numbered, key=lambda pair: pair[1].shape[-2:])
        self.groups = [[index for index, _ in group] for _, group in sizes]
        self.masks = [self._draw(len(group)) for group in self.groups]
        self.hidden: Tensor | None = getattr(self.network, "hidden_patches", None)

    def _draw(self, crops: int) -> Masks | None:
        """The drop-path masks of a group of crops of the whole batch, in its order."""
        network = self.network
        if self.split.parts == 1 or not isinstance(network, ConViT) or not network.training:
            return None
        return network.draw_path_masks(crops * self.split.images, self.split.views[0].device)

    @property
    def network(self) -> nn.Module:
        """The network within VISSL's extractor of features, where there is one."""
        trunk: nn.Module = self.model.trunk
        return getattr(trunk, "base_model", trunk)

    def features(self, part: int, twin: nn.Module | None = None) -> list[Tensor]:
        """Each named feature of a part, crop-major.

        Args:
            part: its number.
            twin: a module that computes in place of the trunk, with its weights.
        """
        rows = self.split.rows(part)
        trunk: Any = self.model.trunk if twin is None else twin
        network = getattr(trunk, "base_model", trunk)
        found = []
        for group, masks in zip(self.groups, self.masks, strict=True):
            images = torch.cat([self.split.views[index][rows] for index in group])
            with self._masked(network, masks, len(group), rows), self._hidden(network, rows):
                found.append(trunk(images, self.names))
        return [torch.cat(parts) for parts in zip(*found, strict=True)]

    @contextlib.contextmanager
    def _masked(self, network: Any, masks: Masks | None, crops: int, rows: slice) -> Any:
        if masks is None:
            yield
            return
        # (2, crops x images, 1, 1): those of the part, crop-major like its images.
        network.path_masks = [
            None if mask is None else mask.unflatten(1, (crops, -1))[:, :, rows].flatten(1, 2)
            for mask in masks
        ]
        try:
            yield
        finally:
            network.path_masks = None

    @contextlib.contextmanager
    def _hidden(self, network: Any, rows: slice) -> Any:
        """Hide the patches of a part that are hidden in the batch, in its first crops."""
        if self.hidden is None:
            yield
            return
        crops = len(self.hidden) // self.split.images
        network.hidden_patches = self.hidden.unflatten(0, (crops, -1))[:, rows].flatten(0, 1)
        try:
            yield
        finally:
            network.hidden_patches = self.hidden


@torch.no_grad()
def features_in_parts(model: Any, views: Any, parts: int) -> list[Tensor]:
    """Features of a batch, crop-major, computed part by part without a graph.

    Args:
        model: VISSL's, with ``trunk`` and ``heads``; a teacher.
        views: one batch of images, or a list of them.
        parts: number of parts.
    """
    split = Split.of(views, parts)
    trunk = Trunk(model, split)
    found = [trunk.features(part) for part in range(parts)]
    return [split.join(named) for named in zip(*found, strict=True)]


class Passes:
    """The passes of one step in parts.

    Args:
        task: ours; its model, precision and number of parts are used.
        views: the batch on the device.
    """

    def __init__(self, task: ConViTSSLTask, views: Any) -> None:
        self.task = task
        self.split = Split.of(views, min(task.accumulate, len(Split.of(views, 1).views[0])))
        self.trunk = Trunk(task.base_model, self.split)
        self.states: list[list[Tensor]] = []
        self.kept: list[Tensor] = []  # of the last part, with their graph, if it keeps it
        self.leaves: list[Tensor] = []

    def forward(self) -> None:
        """Compute the features of all parts.

        Do not call under autocast, which may cache casts of weights that were made without a graph
        and reuse them in the pass that needs one.
        """
        found = []
        last = self.split.parts - 1
        for part in range(self.split.parts):
            self.states.append(_random_state(self.split.views[0].device))
            keeps = part == last and not self.task.base_loss.pairs
            with torch.set_grad_enabled(keeps), self.task.autocast():
                features = self.trunk.features(part)
            self.kept = features if keeps else []
            found.append([feature.detach() for feature in features])
            del features
        self.leaves = [self.split.join(named) for named in zip(*found, strict=True)]
        learned = any(p.requires_grad for p in self.task.base_model.trunk.parameters())
        for leaf in self.leaves:
            leaf.requires_grad_(learned)

    def output(self) -> Any:
        """The output of the heads for the batch, with a graph that starts at the features."""
        model = self.task.base_model
        return model.heads_forward(self.leaves, model.heads)

    def backward(self) -> None:
        """Continue the backward pass of the loss from the features through the trunk."""
        if not any(leaf.requires_grad for leaf in self.leaves):
            return  # a frozen trunk
        after = _random_state(self.split.views[0].device)
        order = [self.split.parts - 1, *range(self.split.parts - 1)]
        for part in order:
            features, self.kept = self.kept, []
            if not features:
                _restore(self.states[part], self.split.views[0].device)
                with self.task.autocast():
                    features = self.trunk.features(part)
            with _unsynchronised(self.task, part != order[-1]):
                self._through(features, part)
            del features  # the next part begins without what this one's graph holds
        _restore(after, self.split.views[0].device)

    def _through(self, features: Sequence[Tensor], part: int) -> None:
        pairs = [
            (feature, self.split.cut(leaf.grad, part))
            for feature, leaf in zip(features, self.leaves, strict=True)
            if leaf.grad is not None and feature.requires_grad
        ]
        torch.autograd.backward([feature for feature, _ in pairs], [grad for _, grad in pairs])


def _unsynchronised(task: ConViTSSLTask, wanted: bool) -> contextlib.AbstractContextManager[Any]:
    """Keep the gradients of FSDP's shares here; those of whole copies are averaged at the end."""
    if not wanted or not task.options.run.fsdp:
        return contextlib.nullcontext()
    from convit_ssl.adapters.sharding import unsynchronised

    return unsynchronised(task.base_model)


def check_parts(model: Any, parts: int) -> None:
    """Refuse a trunk that depends on the whole batch: in parts its results would differ.

    Raises:
        UserError: it has batch normalisation.
    """
    norms = [m for m in model.trunk.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if parts > 1 and norms:
        raise UserError(
            f"optim.accumulate={parts}: this trunk has batch normalisation "
            f"({len(norms)} layers), so splitting the batch would change the result; set "
            f"optim.accumulate=1 and lower optim.batch_size"
        )


def _random_state(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _restore(states: Sequence[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state, device)
