"""Weights and position factors of all GPSA layers of a network, prepared together.

With g = sigmoid(lambda) and s = 1 - g = sigmoid(-lambda) per head,

    s softmax(Q K^T) V + g (P_row kron P_column) V = s softmax(Q K^T) V + (g P_row kron P_column) V,

so g goes into P_row, and s scales the content where the two are added. Neither gate may go into the
weight of the values, which both halves share: there the gradients of the two halves add up, while
the gradient of lambda is the difference, g s <grad, P V - softmax(Q K^T) V>. Once g is close to 0
or 1 nothing is left of a small difference of two large sums, least of all in half precision.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook

from convit_ssl.models import fused
from convit_ssl.models.attention import explicit_is_faster
from convit_ssl.models.autocast import at_least_single, is_widened, without_autocast
from convit_ssl.models.position import position_factors

if TYPE_CHECKING:
    from convit_ssl.models.gpsa import GPSA

Made = TypeVar("Made")
Words = np.ndarray[Any, np.dtype[np.signedinteger[Any]]]

# Integers of a weight that are looked at for changes.
SAMPLED = 2048


class Projection(NamedTuple):
    """Query, key and value projections of one layer as a single matrix."""

    weight: Tensor  # (3 D, D)
    bias: Tensor | None  # (3 D)


class Folded(NamedTuple):
    """What one GPSA layer needs for a batch of full grids."""

    projection: Projection
    gated: GatedFactors


class GatedFactors(NamedTuple):
    """The two sides of the mixture, the same for each image."""

    content_gate: Tensor  # (B, H, 1, 1): 1 - g, in float32 or float64
    rounded_gate: Tensor  # the same in the dtype of the products
    row: Tensor  # (B, H, height, height), times g; without B where attention goes by way of maps
    column: Tensor  # (B, H, width, width); the same
    by_map: bool  # whether it does


def fold(
    layers: Sequence[GPSA],
    grid: tuple[int, int],
    batch: int,
    dtype: torch.dtype,
    cache: FoldedCache | None = None,
) -> list[Folded]:
    """Prepare gated layers together, so that small operations do not grow with their number.

    Args:
        layers: gated GPSA layers of one network, all of the same width and heads.
        grid: height and width in patches.
        batch: images.
        dtype: of the products; that of autocast where it is on.
        cache: where to look first, and to keep what was made.
    """
    in_use = cache if cache is not None and cache.follows(layers) else None

    def kept(key: object, make: Callable[[], list[Made]]) -> list[Made]:
        return make() if in_use is None else in_use.get(key, make)

    projections = kept(("projections", dtype), lambda: _projections(layers, dtype))
    factors = kept(
        ("factors", dtype, grid, batch), lambda: _gated_factors(layers, grid, batch, dtype)
    )
    return [Folded(*parts) for parts in zip(projections, factors, strict=True)]


def gates(logits: Tensor) -> tuple[Tensor, Tensor]:
    """1 - g and g, each with all of its digits, and so are their derivatives.

    Args:
        logits: the `gating_param` of any number of heads.
    """
    # Through logarithms: the derivative of sigmoid is made as y (1 - y), where 1 - y has hardly a
    # digit left once y is close to 1.
    logits = at_least_single(logits)
    content, position = F.logsigmoid(torch.stack([-logits, logits])).exp().unbind(0)
    return content, position


def _projections(layers: Sequence[GPSA], dtype: torch.dtype) -> list[Projection]:
    with without_autocast(layers[0].v.weight.device):
        pairs = [(layer.qk, layer.v) for layer in layers]

        def packed(name: str) -> tuple[Tensor, ...]:
            # One tensor for all layers: as many operations as for one.
            every = torch.cat([getattr(x, name) for pair in pairs for x in pair])
            by_layer: Tensor = every.to(dtype).unflatten(0, (len(layers), -1))
            return by_layer.unbind(0)

        weights = packed("weight")
        biases = packed("bias") if layers[0].qkv_bias else [None] * len(layers)
        return [Projection(*parts) for parts in zip(weights, biases, strict=True)]


def _gated_factors(
    layers: Sequence[GPSA], grid: tuple[int, int], batch: int, dtype: torch.dtype
) -> list[GatedFactors]:
    weight = torch.stack([layer.pos_proj.weight for layer in layers])  # (L, H, 3)
    # The bias cancels in the softmax. Its zero stays in the graph, because a parameter without
    # a gradient stops DistributedDataParallel.
    bias = torch.stack([layer.pos_proj.bias for layer in layers])
    row, column = position_factors(weight + 0.0 * bias.unsqueeze(-1), grid)
    device = weight.device
    by_map = batch > 0 and explicit_is_faster(device, dtype, grid[0] * grid[1])
    # A kernel rounds as it reads; of float16 on a CPU the backward pass wants them exact.
    exact = fused.applies(device, dtype, grid) or is_widened(device, dtype)

    def for_each_image(x: Tensor) -> Tensor:
        return x.unsqueeze(1).expand(-1, batch, -1, -1, -1)

    def prepared(factor: Tensor) -> tuple[Tensor, ...]:
        if by_map:  # one for all images
            return factor.unbind(0)
        if exact:
            return for_each_image(factor).unbind(0)
        return for_each_image(factor.to(dtype)).contiguous().unbind(0)

    with without_autocast(device):
        content_gate, gate = gates(torch.stack([layer.gating_param for layer in layers]))
        content_gate = content_gate[..., None, None]
        parts = zip(
            for_each_image(content_gate).unbind(0),
            for_each_image(content_gate.to(dtype)).unbind(0),
            prepared(row * gate[..., None, None]),
            prepared(column),
            strict=True,
        )
        return [GatedFactors(*of_layer, by_map) for of_layer in parts]


class _OptimiserSteps:
    """How many steps any optimiser has made: fused ones go past the version counters."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, *_: object) -> None:
        self.count += 1


_steps = _OptimiserSteps()
register_optimizer_step_post_hook(_steps)


def _words(weight: Tensor) -> Words | None:
    """A sample of the memory of a contiguous weight on a CPU, as integers that fill it.

    Reading all of a large weight would cost more than a per cent of a forward pass; what goes
    through ``.data`` writes whole weights. Not by `Tensor.numpy`, after which a storage can never
    be resized, as sharded training does.
    """
    size = weight.numel() * weight.element_size()
    if weight.device.type != "cpu" or size == 0:
        return None
    words = (ctypes.c_byte * size).from_address(weight.data_ptr())
    widest = next(word for word in ("i8", "i4", "i2", "i1") if size % int(word[1]) == 0)
    integers = np.ctypeslib.as_array(words).view(widest)
    return integers[:: -(-len(integers) // SAMPLED)]


class _Witness:
    """A weight as it was, to be compared with what is there now."""

    def __init__(self, weight: Tensor) -> None:
        self.weight, self.version, self.address = weight, weight._version, weight.data_ptr()
        # The alias keeps the old memory from being handed to a new weight.
        self.alias = weight.detach()
        self.words = _words(weight)
        self.total = self._sum()

    def unchanged(self, weight: Tensor) -> bool:
        """Whether `weight` is the same one, at the same place, with the same bits on a CPU."""
        return (
            weight is self.weight
            and weight._version == self.version
            and weight.data_ptr() == self.address  # else the words are not the weight's
            and self._sum() == self.total
        )

    def _sum(self) -> int:
        # Modulo the word: exact, so that the smallest change shows. Half the time of `Tensor.sum`.
        return 0 if self.words is None else int(np.add.reduce(self.words, dtype=self.words.dtype))


def _can_be_followed(weight: Tensor) -> bool:
    return (
        type(weight) in (Tensor, nn.Parameter)  # others may have no memory of their own
        and not torch._C._functorch.is_functorch_wrapped_tensor(weight)
        and not weight.is_inference()  # inference tensors have no version counter
        and weight.is_contiguous()
        and weight.grad is None
    )


class FoldedCache:
    """Folded weights of a network that does not change, for inference.

    A weight counts as changed when it is another tensor, lies elsewhere, was written to since, by
    its version counter (`load_state_dict`, in-place and `_foreach` updates), or when any optimiser
    has made a step, which fused ones do past that counter. Writing through ``parameter.data`` goes
    past all of these. On a CPU a sum over bits from all over each weight tells of it, where a
    weight is written as a whole; on other devices reading it would wait for the device, so there
    call ``model.eval()`` afterwards, which empties the cache. Nothing is kept while weights hold
    gradients. Copies and pickles of the network start with an empty one.
    """

    capacity = 16

    def __init__(self) -> None:
        self._seen: list[_Witness] = []
        self._steps = 0
        self._made: dict[object, list[Any]] = {}

    def clear(self) -> None:
        """Forget everything."""
        self._seen, self._made = [], {}

    def follows(self, layers: Sequence[GPSA]) -> bool:
        """Whether `get` may be used for these layers now; forgets what they no longer are."""
        weights = [weight for layer in layers for weight in layer.folded_parameters()]
        if not all(map(_can_be_followed, weights)):
            self.clear()
            return False
        if not self._current(weights):
            self.clear()
            self._seen, self._steps = [_Witness(weight) for weight in weights], _steps.count
        return True

    def get(self, key: object, make: Callable[[], list[Made]]) -> list[Made]:
        """What was made for `key` from the weights last followed, or what `make` makes now."""
        made = self._made.get(key)
        if made is None:
            while len(self._made) >= self.capacity:
                self._made.pop(next(iter(self._made)))
            self._made[key] = made = list(make())
        return made

    def _current(self, weights: list[Tensor]) -> bool:
        return (
            self._steps == _steps.count
            and len(weights) == len(self._seen)
            and all(map(_Witness.unchanged, self._seen, weights))
        )

    def __reduce__(self) -> tuple[type[FoldedCache], tuple[()]]:
        return FoldedCache, ()
