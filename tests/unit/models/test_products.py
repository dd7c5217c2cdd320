"""float32 products by oneDNN: exact, limited to a block, and left alone where they gain nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from convit_ssl.models import create_model, products
from convit_ssl.models.products import blas_products, onednn_products
from convit_ssl.models.sdpa import fused_attention

needs_switch = pytest.mark.skipif(not products._has_switch(), reason="PyTorch before 2.9")
AMD = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\n"


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    ask = products._is_faster
    ask.cache_clear()
    yield
    ask.cache_clear()


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that gains."""
    if not (torch.backends.mkldnn.is_available() and products._is_exact()):
        pytest.skip("oneDNN rounds on this processor")
    monkeypatch.setattr(products, "_is_faster", lambda: True)


def gradients(dtype: torch.dtype, wanted: bool) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = create_model("convit_nano", img_size=32, num_classes=5).to(dtype)
    images = torch.randn(4, 3, 32, 32).to(dtype)
    with onednn_products(wanted):
        out = model(images)
        return [out, *torch.autograd.grad(out.square().sum(), list(model.parameters()))]


@needs_switch
def test_network_is_as_exact(faster: None) -> None:
    exact = gradients(torch.float64, False)
    for x, blas, onednn in zip(
        exact, gradients(torch.float32, False), gradients(torch.float32, True), strict=True
    ):
        scale = x.norm() + 1e-30
        assert (onednn - x).norm() / scale < max(4 * (blas - x).norm() / scale, 1e-5)


@needs_switch
def test_setting_lasts_for_the_block(faster: None) -> None:
    assert products._setting() == "none"
    with onednn_products() as used:
        assert used and products._setting() == "bf16"
        with onednn_products() as again:
            assert again
        assert products._setting() == "bf16"
    assert products._setting() == "none"
    with pytest.raises(ValueError, match="stop"), onednn_products():
        raise ValueError("stop")
    assert products._setting() == "none"
    with onednn_products(False) as used:
        assert not used and products._setting() == "none"


@needs_switch
def test_setting_of_the_user_is_kept(faster: None) -> None:
    products._set("ieee")
    try:
        with onednn_products() as used:
            assert not used and products._setting() == "ieee"
        assert products._setting() == "ieee"
    finally:
        products._set("none")


@needs_switch
def test_fused_attention_multiplies_by_blas(faster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    aten = torch.ops.aten

    def spy(name: str) -> Callable[..., object]:
        real = getattr(aten, name)

        def call(*args: object, **options: object) -> object:
            seen.append(products._setting())
            return real(*args, **options)

        return call

    names = (
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention_for_cpu_backward",
    )
    for name in names:
        monkeypatch.setattr(aten, name, spy(name))
    query = torch.randn(2, 3, 40, 8, requires_grad=True)
    with onednn_products():
        fused_attention(query, query, query).sum().backward()
        assert products._setting() == "bf16"
    assert seen == ["ieee", "ieee"]


@needs_switch
def test_other_dtypes_and_no_block_change_nothing(faster: None) -> None:
    with blas_products(torch.zeros(1)):
        assert products._setting() == "none"
    with onednn_products(), blas_products(torch.zeros(1, dtype=torch.bfloat16)):
        assert products._setting() == "bf16"


@pytest.mark.parametrize(
    ("cpu_info", "avx512", "exact", "switch", "faster"),
    [
        (AMD, True, True, "1", True),
        (AMD, True, True, "0", False),
        (AMD, True, False, "1", False),  # it would round to bfloat16
        (AMD, False, True, "1", False),
        (AMD.replace("AuthenticAMD", "GenuineIntel"), True, True, "1", False),
        ("Processor\t: AArch64\n", True, True, "1", False),
    ],
)
@needs_switch
def test_who_gains(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    cpu_info: str,
    avx512: bool,
    exact: bool,
    switch: str,
    faster: bool,
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(cpu_info, encoding="utf-8")
    monkeypatch.setattr(products, "_CPU_INFO", file)
    monkeypatch.setattr(products, "_has_avx512", lambda: avx512)
    monkeypatch.setattr(products, "_is_exact", lambda: exact)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.__config__, "show", lambda: "BLAS_INFO=mkl")
    monkeypatch.setenv(products.SWITCH, switch)
    assert products._is_faster() is faster


def test_no_cpu_info_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(products, "_CPU_INFO", tmp_path / "none")
    assert products._vendor() in ("", "AuthenticAMD")
