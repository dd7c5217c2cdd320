"""Prints, as JSON, how far the Triton kernels are from double precision, and who goes through them.

A process of its own for `test_kernels.py`: the decorators that check shapes there are not for
kernels, and Triton's interpreter has to be asked for before anything is imported. It runs kernels
on a CPU, slowly, and knows no bfloat16. With a GPU: ``python kernel_checks.py cuda``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator

DEVICE = sys.argv[1]
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from convit_ssl.bench.measure import OperationCounter
from convit_ssl.models import GPSA, ConViT, create_model, fused, kernels
from convit_ssl.models.compiling import compile_options
from convit_ssl.models.position import kronecker_product

EXACT = {"cpu": torch.float32, "cuda": torch.float16}[DEVICE]
HALF = {"cpu": torch.float16, "cuda": torch.bfloat16}[DEVICE]
GRIDS = [(14, 14), (6, 6), (3, 17), (1, 5), (32, 32), (20, 9)]
CHANNELS = [48, 20]


def distance(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).norm() / expected.norm())


def problem(batch: int, heads: int, grid: tuple[int, int], channels: int) -> Iterator[Tensor]:
    """Content, its gate, values, logits of factors and the gradient of the sum, as in a network."""
    shape = (batch, grid[0] * grid[1], heads, channels)
    yield torch.randn(shape, device=DEVICE).transpose(1, 2)
    yield torch.randn(heads, 1, 1, device=DEVICE).expand(batch, -1, -1, -1)
    yield torch.randn(*shape[:2], 3, *shape[2:], device=DEVICE)[:, :, 2].transpose(1, 2)
    for size in grid:
        yield 2 * torch.randn(heads, size, size, device=DEVICE).expand(batch, -1, -1, -1)
    yield torch.randn(shape, device=DEVICE).transpose(1, 2)


def prepared(leaves: list[Tensor]) -> list[Tensor]:
    """What the kernels take: a gate from its logit, rows that sum to one from theirs."""
    content, gate, value, row, column = leaves
    row, column = row.softmax(-1) * gate.sigmoid(), column.softmax(-1)
    return [content, (-gate).sigmoid(), value, row, column]


def contractions(dtype: torch.dtype) -> float:
    """The largest distance of a result or a gradient; memory holds NaN before."""
    worst = 0.0
    for grid in GRIDS:
        for channels in CHANNELS:
            *leaves, grad = problem(2, 3, grid, channels)
            leaves[0], leaves[2], grad = (x.to(dtype) for x in (leaves[0], leaves[2], grad))
            exact = [x.double().requires_grad_() for x in leaves]
            content, gate, value, row, column = prepared(exact)
            maps = [kronecker_product(*pair) for pair in zip(row, column, strict=True)]
            expected = gate * content + torch.stack(maps) @ value
            gradients = torch.autograd.grad(expected, exact, grad.double())
            # Gates and factors are what they are in a network: what the kernels take away from
            # their gradients, what all values have in common, changes those of the logits by none.
            leaves = [x.requires_grad_() for x in leaves]
            inputs = prepared(leaves)
            given = [x.detach() for x in inputs]
            out = fused._like(given[2]).fill_(torch.nan)
            kernels.add_separable(*given, out)
            made = fused._gradients_like(*given[2:3], given[1], *given[3:])
            kernels.separable_gradients(
                grad, *given, type(made)(*(x.fill_(torch.nan) for x in made))
            )
            kinds = zip(made, given, strict=True)
            found = torch.autograd.grad(inputs, leaves, [x.to(y.dtype) for x, y in kinds])
            for one, wanted in zip((out, *found), (expected, *gradients), strict=True):
                if wanted.norm() > 1e-12:  # none for an axis of one patch
                    far = distance(one, wanted)
                    worst = far if not far <= worst else worst  # NaN too
    return worst


def gates() -> float:
    """The largest distance of a gate's gradient, closed and open gates and values alike."""
    worst = 0.0
    for grid in ((4, 4), (5, 20), (20, 20)):
        for logit in (-12.0, -3.0, 7.0, 12.0):
            layer = GPSA(32, 4).to(DEVICE)
            layer.local_init()
            with torch.no_grad():
                layer.gating_param.copy_(logit + 0.1 * torch.randn(4))
                layer.qk.weight.normal_(std=0.3)
            tokens = grid[0] * grid[1]
            x = torch.randn(3, tokens, 32, device=DEVICE) + torch.randn(32, device=DEVICE)
            weights = torch.randn_like(x)
            found = []
            for dtype in (HALF, torch.float64):
                layer.to(torch.promote_types(dtype, torch.float32))
                with torch.autocast(DEVICE, dtype=HALF, enabled=dtype == HALF):
                    out = layer(x.to(layer.v.weight.dtype), grid)
                loss = (out.to(layer.v.weight.dtype) * weights).sum()
                found.append(torch.autograd.grad(loss, layer.gating_param)[0])
            worst = max(worst, distance(*found))
    return worst


class Calls:
    """Counts launches."""

    def __init__(self) -> None:
        self.count = 0
        for name in ("add_separable", "separable_gradients"):
            setattr(kernels, name, self.counted(getattr(kernels, name)))

    def counted(self, launch: Callable[..., None]) -> Callable[..., None]:
        def launched(*args: Tensor) -> None:
            self.count += 1
            launch(*args)

        return launched

    def during(self, run: Callable[[], object]) -> int:
        before = self.count
        run()
        return self.count - before


def gradients(network: nn.Module, images: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """The output, and the gradient of every parameter."""
    network.zero_grad()
    with torch.autocast(DEVICE, dtype=dtype, enabled=dtype != torch.float32):
        out = network(images)
    out.float().square().sum().backward()
    return [out.detach(), *(parameter.grad.clone() for parameter in network.parameters())]


def farthest(found: list[Tensor], expected: list[Tensor]) -> float:
    pairs = list(zip(found, expected, strict=True))
    return max(distance(*pair) for pair in pairs if pair[1].norm() > 0)


def random_model() -> ConViT:
    model = create_model("convit_nano", depth=3, num_gpsa_layers=2, num_classes=5).to(DEVICE)
    with torch.no_grad():
        for block in model.blocks[:2]:
            block.attn.v.weight.normal_(std=0.1)
            block.attn.gating_param.uniform_(-2, 2)
    return model


def compiled(model: ConViT, images: Tensor, calls: Calls) -> dict[str, object]:
    """One graph, also for sizes that come later."""
    backend = "aot_eager" if DEVICE == "cpu" else "inductor"
    options = compile_options() if DEVICE == "cuda" else None
    network = torch.compile(model, fullgraph=True, backend=backend, options=options)
    found: list[list[Tensor]] = []
    launched = calls.during(lambda: found.append(gradients(network, images, HALF)))
    eager = gradients(model, images, HALF)
    larger = torch.randn(2, 3, 40, 16, device=DEVICE)
    return {
        "launched": launched,
        "far": farthest(found[0], eager),
        "another size": distance(gradients(network, larger, HALF)[0], model(larger)),
    }


def main() -> None:
    report: dict[str, object] = {"exact": contractions(EXACT), "half": contractions(HALF)}
    calls = Calls()
    model = random_model()
    images = torch.randn(3, 3, 24, 32, device=DEVICE)
    single = gradients(model, images, torch.float32)  # by products: no kernel for float32 yet
    report["in float32"] = calls.count
    if DEVICE == "cpu":
        fused._has_kernels = lambda kind, index: True
        fused.DTYPES = (torch.float32, torch.float16)
        report["network, exact"] = farthest(gradients(model, images, torch.float32), single)
    launched = calls.count
    report["gates"] = gates()
    report["launches for gates"] = calls.count - launched
    before = calls.count
    report["network, half"] = farthest(gradients(model, images, HALF), single)
    report["launches"] = calls.count - before
    report["compiled"] = compiled(model, images, calls)

    weight = model.blocks[0].attn.v.weight
    exact = torch.float32 if DEVICE == "cpu" else torch.bfloat16

    def twice() -> Tensor:
        """A gradient of a gradient."""
        with torch.autocast(DEVICE, dtype=exact, enabled=exact != torch.float32):
            out = model(images).float().square().sum()
        first = torch.autograd.grad(out, weight, create_graph=True)[0]
        return torch.autograd.grad(first.square().sum(), weight)[0]

    with sdpa_kernel(SDPBackend.MATH):  # the fused ones have one derivative
        by_kernels, has_kernels = twice(), fused._has_kernels
        fused._has_kernels = lambda kind, index: False
        report["double backward"] = distance(by_kernels, twice())
        fused._has_kernels = has_kernels

    def per_image() -> None:
        parameters = dict(model.named_parameters())

        def of_one(given: dict[str, Tensor], image: Tensor) -> Tensor:
            with torch.autocast(DEVICE, dtype=exact, enabled=exact != torch.float32):
                out = torch.func.functional_call(model, given, (image[None],))
            return out.float().square().sum()

        torch.func.vmap(torch.func.grad(of_one), in_dims=(None, 0))(parameters, images)

    with sdpa_kernel(SDPBackend.MATH):
        report["launches under vmap"] = calls.during(per_image)
    with torch.no_grad(), torch.autocast(DEVICE, dtype=HALF), OperationCounter() as counter:
        model(images)
    report["counted"] = counter.counts.get("add_separable", 0)
    model.eval()
    with torch.no_grad(), torch.autocast(DEVICE, dtype=HALF):
        exported = torch.export.export(model, (images,))
    report["exported"] = sum("convit_ssl" in str(node.target) for node in exported.graph.nodes)
    empty = images[:0]
    report["launches for no image"] = calls.during(lambda: gradients(model, empty, HALF))
    print(json.dumps(report))


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
