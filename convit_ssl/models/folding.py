"""Gates folded into weights and position factors, for all GPSA layers of a network at once.

With s = sigmoid(-lambda) = 1 - g and exp(lambda) = g / (1 - g) per head,

    (1 - g) softmax(Q K^T) V + g (P_row kron P_column) V
      = softmax(Q K^T) V' + (exp(lambda) P_row kron P_column) V'    with V' = s V,

so s goes into the rows of the value weight and exp(lambda) into P_row, and mixing is a sum.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from convit_ssl.models import fused
from convit_ssl.models.position import (
    PositionFactors,
    at_least_single,
    position_factors,
    without_autocast,
)

if TYPE_CHECKING:
    from convit_ssl.models.gpsa import GPSA

Made = TypeVar("Made")
Words = np.ndarray[Any, np.dtype[np.signedinteger[Any]]]

# Beyond this a gate is 0 or 1 to thirteen digits; exp(lambda) stays far from overflow.
LARGEST_GATE_LOGIT = 30.0
# Integers of a weight that are looked at for changes.
SAMPLED = 2048


class Projection(NamedTuple):
    """Query, key and value projections of one layer as a single matrix."""

    weight: Tensor  # (3 D, D)
    bias: Tensor | None  # (3 D)
    content_gate: Tensor | None  # (H, 1, 1): 1 - g, where it is not in the weight


class Folded(NamedTuple):
    """What one GPSA layer needs for a batch of full grids; the gate is already inside."""

    projection: Projection
    factors: PositionFactors  # (B, H, size, size), the same for each image


def fold(
    layers: Sequence[GPSA],
    grid: tuple[int, int],
    batch: int,
    dtype: torch.dtype,
    cache: FoldedCache | None = None,
) -> list[Folded]:
    """Fold gated layers together, so that small operations do not grow with their number.

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


def _gate_logits(layers: Sequence[GPSA]) -> Tensor:
    logits = torch.stack([layer.gating_param for layer in layers])  # (L, H)
    return at_least_single(logits).clamp(-LARGEST_GATE_LOGIT, LARGEST_GATE_LOGIT)


def _gates_fit(dtype: torch.dtype) -> bool:
    # exp(lambda) overflows float16 from 11 on: there P_row is scaled by g, and 1 - g is applied
    # to the content.
    return dtype != torch.float16


def _projections(layers: Sequence[GPSA], dtype: torch.dtype) -> list[Projection]:
    with without_autocast(layers[0].v.weight.device):
        content_gates = torch.sigmoid(-_gate_logits(layers))  # (L, H)
        queries_keys, values = [layer.qk for layer in layers], [layer.v for layer in layers]

        def packed(name: str) -> tuple[Tensor, ...]:
            first, second = ([getattr(x, name) for x in part] for part in (queries_keys, values))
            if _gates_fit(dtype):
                second = _scaled(content_gates.to(second[0].dtype), second)
            # One tensor for all layers: as many operations as for one.
            every = torch.cat([part for pair in zip(first, second, strict=True) for part in pair])
            by_layer: Tensor = every.to(dtype).unflatten(0, (len(layers), -1))
            return by_layer.unbind(0)

        weights = packed("weight")
        biases = packed("bias") if layers[0].qkv_bias else [None] * len(layers)
        if _gates_fit(dtype):
            return [Projection(*parts, None) for parts in zip(weights, biases, strict=True)]
        outside = content_gates[..., None, None].to(dtype).unbind(0)
        return [Projection(*parts) for parts in zip(weights, biases, outside, strict=True)]


def _scaled(factors: Tensor, weights: list[Tensor]) -> list[Tensor]:
    """Each head's rows of weights (D, ...) times its factor; factors (L, H) of all layers."""
    if torch.compiler.is_compiling():  # which decides for itself what is kept
        return list(_times_by_head(torch.stack(weights), factors).unbind(0))
    scaled: Tensor = ScaledByHead.apply(factors, *weights)  # type: ignore[no-untyped-call]
    return list(scaled.unbind(0))


class ScaledByHead(torch.autograd.Function):
    """Weights (D, ...) of L layers as one tensor (L, D, ...), each head's rows times its factor.

    Autograd would keep the unscaled copy; the backward pass makes it again.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(factors: Tensor, *weights: Tensor) -> Tensor:
        """Factors (L, H)."""
        return _times_by_head(torch.stack(weights), factors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep what is there anyway."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The product rule."""
        factors, *weights = ctx.saved_tensors
        of_factors = (grad * torch.stack(weights)).reshape(*factors.shape, -1).sum(-1)
        return of_factors, *_times_by_head(grad, factors).unbind(0)


def _times_by_head(weights: Tensor, factors: Tensor) -> Tensor:
    by_head = weights.reshape(*factors.shape, -1) * factors.unsqueeze(-1)
    return by_head.view(weights.shape)


def _gated_factors(
    layers: Sequence[GPSA], grid: tuple[int, int], batch: int, dtype: torch.dtype
) -> list[PositionFactors]:
    weight = torch.stack([layer.pos_proj.weight for layer in layers])  # (L, H, 3)
    # The bias cancels in the softmax. Its zero stays in the graph, because a parameter without
    # a gradient stops DistributedDataParallel.
    bias = torch.stack([layer.pos_proj.bias for layer in layers])
    row, column = position_factors(weight + 0.0 * bias.unsqueeze(-1), grid)
    with without_autocast(weight.device):
        logits = _gate_logits(layers)
        gate = logits.exp() if _gates_fit(dtype) else logits.sigmoid()
        row = row * gate[..., None, None]
        as_it_is = fused.applies(weight.device, dtype, grid)  # a kernel repeats it as it reads

        def for_each_image(factor: Tensor) -> tuple[Tensor, ...]:
            factor = factor if as_it_is else factor.to(dtype)
            factor = factor.unsqueeze(1).expand(-1, batch, -1, -1, -1)
            return (factor if as_it_is else factor.contiguous()).unbind(0)

        pairs = zip(for_each_image(row), for_each_image(column), strict=True)
        return [PositionFactors(*pair) for pair in pairs]


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
        self._made: dict[object, list[object]] = {}

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
        return made  # type: ignore[return-value]

    def _current(self, weights: list[Tensor]) -> bool:
        return (
            self._steps == _steps.count
            and len(weights) == len(self._seen)
            and all(map(_Witness.unchanged, self._seen, weights))
        )

    def __reduce__(self) -> tuple[type[FoldedCache], tuple[()]]:
        return FoldedCache, ()
