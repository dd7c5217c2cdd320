"""Folded weights follow every change of the weights, cached or not."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from convit_ssl.models import ConViT, ConViTConfig
from convit_ssl.models.folding import FoldedCache

CONFIG = ConViTConfig(
    img_size=16, patch_size=4, num_classes=3, embed_dim=36, depth=3, num_heads=9,
    num_gpsa_layers=2, qkv_bias=True,
)  # fmt: skip


def cached(model: ConViT, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return model(images)


def entries(model: ConViT) -> int:
    return len(model._folded_cache._made)


def warm_model() -> tuple[ConViT, Tensor]:
    model, images = ConViT(CONFIG).eval(), torch.randn(2, 3, 16, 16)
    cached(model, images)
    assert entries(model) == 2  # weights and factors
    return model, images


def optimiser_step(model: ConViT) -> None:
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimiser.step()


def fused_optimiser_step(model: ConViT) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=1.0, fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimiser.step()


def fused_step_without_a_trace(
    model: ConViT, kind: type[torch.optim.Optimizer] = torch.optim.AdamW
) -> None:
    """Neither a version counter nor a gradient tells of it afterwards."""
    fused_step = kind(model.parameters(), lr=0.1, fused=True)  # type: ignore[call-arg]
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    fused_step.step()
    fused_step.zero_grad(set_to_none=True)


def written_through_data(model: ConViT) -> None:
    """As published moving averages of weights do."""
    for parameter in model.parameters():
        parameter.data.mul_(0.996).add_(torch.randn_like(parameter), alpha=0.004)


def signs_through_data(model: ConViT) -> None:
    for parameter in model.parameters():
        parameter.data.neg_()


def one_gate_through_data(model: ConViT) -> None:
    model.blocks[1].attn.gating_param.data[8] += 1


def load_state(model: ConViT) -> None:
    model.load_state_dict({k: torch.randn_like(v) for k, v in model.state_dict().items()})


def assign_state(model: ConViT) -> None:
    state = {k: torch.randn_like(v) for k, v in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def foreach_average(model: ConViT) -> None:
    parameters = list(model.parameters())
    with torch.no_grad():
        torch._foreach_lerp_(parameters, [torch.randn_like(p) for p in parameters], 0.5)


def foreach_average_in_inference_mode(model: ConViT) -> None:
    parameters = list(model.parameters())
    with torch.inference_mode():
        torch._foreach_mul_(parameters, 0.5)


def one_gate(model: ConViT) -> None:
    with torch.no_grad():
        model.blocks[1].attn.gating_param[3] += 1


def one_bias(model: ConViT) -> None:
    with torch.no_grad():
        model.blocks[0].attn.v.bias += 1


def new_parameter(model: ConViT) -> None:
    layer = model.blocks[0].attn
    layer.v.weight = torch.nn.Parameter(torch.randn_like(layer.v.weight))


def new_memory(model: ConViT) -> None:
    for _ in range(2):  # two changes, so that the allocator may hand the first memory out again
        for parameter in model.parameters():
            parameter.data = parameter.data * 1.5


def local_init(model: ConViT) -> None:
    with torch.no_grad():
        model.blocks[0].attn.v.weight.normal_()
    model.blocks[1].attn.local_init()


CHANGES: list[Callable[[ConViT], None]] = [
    optimiser_step, fused_optimiser_step, fused_step_without_a_trace, load_state, assign_state,
    foreach_average, foreach_average_in_inference_mode, one_gate, one_bias, new_parameter,
    new_memory, local_init, written_through_data, signs_through_data, one_gate_through_data,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_cache_sees(change: Callable[[ConViT], None]) -> None:
    model, images = warm_model()
    before = cached(model, images)
    change(model)
    after = cached(model, images)
    with torch.no_grad():
        expected = model(images)
    assert torch.equal(after, expected)
    assert not torch.equal(after, before)


def assert_follows(model: ConViT, images: Tensor, before: Tensor) -> None:
    after = cached(model, images)
    with torch.no_grad():
        assert torch.equal(after, model(images))
    assert not torch.equal(after, before)


@pytest.fixture
def blind_to_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where nobody looks into the weights."""
    monkeypatch.setattr("convit_ssl.models.folding._words", lambda weight: None)


@pytest.mark.usefixtures("blind_to_bits")
@pytest.mark.parametrize("kind", ["AdamW", "Adam", "SGD", "Adagrad"])
def test_steps_are_counted_where_no_bits_are_read(kind: str) -> None:
    model, images = warm_model()
    before = cached(model, images)
    fused_step_without_a_trace(model, getattr(torch.optim, kind))
    assert_follows(model, images, before)


@pytest.mark.usefixtures("blind_to_bits")
@pytest.mark.parametrize("compiled", [True, False])
def test_a_look_between_forward_and_backward_or_before_a_compiled_step(compiled: bool) -> None:
    model, images = warm_model()
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)

    def loss() -> Tensor:
        return model(images).square().sum()

    before = cached(model, images)
    # No graph, but the branch that a graph takes: shape checks in tests do not compile.
    with pytest.MonkeyPatch.context() as patch:
        if compiled:
            patch.setattr(torch.compiler, "is_compiling", lambda: True)
        made = loss()
        if not compiled:
            cached(model, images)
        made.backward()
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    assert_follows(model, images, before)


@pytest.mark.usefixtures("blind_to_bits")
def test_writing_through_data_needs_eval_where_no_bits_are_read() -> None:
    model, images = warm_model()
    before = cached(model, images)
    for parameter in model.parameters():
        parameter.data.mul_(0.5)
    model.eval()
    assert_follows(model, images, before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_bits_are_read_in_every_dtype_and_for_odd_sizes(dtype: torch.dtype) -> None:
    model, images = warm_model()
    model.to(dtype)
    before = cached(model, images.to(dtype))
    for parameter in model.parameters():
        parameter.data.mul_(0.5)
    assert_follows(model, images.to(dtype), before)


def test_transposed_weights() -> None:
    model, images = warm_model()
    weight = model.blocks[0].attn.v.weight
    weight.data = weight.data.mT.contiguous().mT
    before = cached(model, images)
    weight.data.add_(torch.randn_like(weight))
    assert_follows(model, images, before)


def test_memory_given_away_is_not_read() -> None:
    model, images = warm_model()
    storage = model.blocks[0].attn.v.weight.untyped_storage()
    size = storage.nbytes()
    storage.resize_(0)  # as sharded training does between its steps
    storage.resize_(size)
    model.blocks[0].attn.v.weight.data.zero_()
    assert torch.equal(cached(model, images), cached(model.eval(), images))


def test_ensembles_by_vmap() -> None:
    models = [ConViT(CONFIG).eval() for _ in range(2)]
    parameters, _ = torch.func.stack_module_state(models)  # type: ignore[arg-type]
    base, images = copy.deepcopy(models[0]), torch.randn(2, 3, 16, 16)

    def one(parameters: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(base, parameters, (images,))

    for _ in range(2):
        with torch.inference_mode():
            found = torch.func.vmap(one)(parameters)
            torch.testing.assert_close(found, torch.stack([model(images) for model in models]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    model, images = warm_model()
    model.to(dtype)
    assert entries(model) == 0
    out = cached(model, images.to(dtype))
    assert out.dtype == dtype
    with torch.no_grad():
        assert torch.equal(out, model(images.to(dtype)))


def test_other_device() -> None:
    model, _ = warm_model()
    model.to("meta")
    assert cached(model, torch.empty(2, 3, 16, 16, device="meta")).is_meta


def test_autocast_and_other_grids_have_entries_of_their_own() -> None:
    model, images = warm_model()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = cached(model, images)
        with torch.no_grad():
            assert torch.equal(half, model(images))
    wide = torch.randn(1, 3, 8, 24)
    with torch.no_grad():
        assert torch.equal(cached(model, wide), model(wide))
        assert torch.equal(cached(model, images), model(images))
    for side in range(4, 100, 4):
        cached(model, torch.randn(1, 3, 4, side))
    assert entries(model) == FoldedCache.capacity


def test_nothing_is_made_again_without_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = warm_model()
    before = cached(model, images)

    def refuse(*_: object) -> None:
        raise AssertionError("folded again")

    monkeypatch.setattr("convit_ssl.models.folding._projections", refuse)
    monkeypatch.setattr("convit_ssl.models.folding._gated_factors", refuse)
    assert torch.equal(cached(model, images), before)


def test_no_cache_in_training_or_with_gradients() -> None:
    model, images = ConViT(CONFIG), torch.randn(2, 3, 16, 16)
    cached(model.train(), images)
    model.eval()(images)
    with torch.no_grad():
        model(images)
    assert entries(model) == 0
    cached(model, images)
    model(images).sum().backward()  # nothing made in inference mode may reach autograd
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_start_afresh(duplicate: Callable[[ConViT], ConViT]) -> None:
    model, images = warm_model()
    twin = duplicate(model)
    assert entries(twin) == 0
    assert entries(model) == 2
    assert torch.equal(cached(twin, images), cached(model, images))
    optimiser_step(twin)
    assert not torch.equal(cached(twin, images), cached(model, images))


def test_a_model_made_in_inference_mode() -> None:
    with torch.inference_mode():
        model, images = ConViT(CONFIG).eval(), torch.randn(2, 3, 16, 16)
        before = model(images)
        for parameter in model.parameters():
            parameter.mul_(1.5)
        assert not torch.equal(model(images), before)
    assert entries(model) == 0


@pytest.mark.parametrize("value", [-100.0, -30.0, -12.0, 0.0, 12.0, 30.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_saturated_gates(value: float, dtype: torch.dtype) -> None:
    """The fold divides by what may be nothing: it must stay exact at both ends."""
    layer = ConViT(CONFIG).blocks[0].attn.eval()
    with torch.no_grad():
        layer.v.weight.normal_(std=1 / 6)
        layer.gating_param.fill_(value)
    x = torch.randn(2, 16, 36)
    maps = layer.double().attention_maps(x.double(), (4, 4))
    value_heads = layer.v(x.double()).unflatten(-1, (9, 4)).transpose(1, 2)
    expected = layer.proj((maps.mixed @ value_heads).transpose(1, 2).flatten(2))
    layer.to(dtype).requires_grad_(True)
    out = layer(x.to(dtype), (4, 4))
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype]
    assert (out.double() - expected).norm() <= tolerance * expected.norm()
    out.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())  # type: ignore[union-attr]
