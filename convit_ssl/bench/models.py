"""``bench model``: whole networks side by side, alternating in one process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convit_ssl.bench import contenders, measure
from convit_ssl.errors import UserError
from convit_ssl.models import VARIANTS, ConViT, ConViTConfig
from convit_ssl.models.products import onednn_products

MODES = ("forward", "training")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Setting:
    """What is held equal among the contenders of one comparison."""

    size: str
    side: int  # pixels
    batch: int
    dtype: str
    mode: str
    compiled: bool
    device: str
    clock: str
    threads: int


@dataclass(frozen=True)
class Row:
    """One contender in one setting.

    Attributes:
        name: a key of `contenders.CONTENDERS`.
        milliseconds: per image, median.
        quartiles: of the same.
        images_per_s: of the median.
        ours_is_faster: our speed over this contender's, the median of alternating pairs.
        ours_is_faster_at_best: the same of the fastest rounds; neighbours on a busy machine only
            ever add time.
        saved_mib: that autograd keeps per image in training, exactly, when it is not compiled.
        saved_mib_per_step: the same, whatever the batch.
        operations: of one call, views left out; None for compiled models.
        peak_mib: the most that a call holds beyond weights, optimiser state and images.
        mfu: share of the data sheet's peak; None where that is not known.
        of_ceiling: share of a large matrix product's speed on the device.
    """

    name: str
    milliseconds: float
    quartiles: tuple[float, float]
    images_per_s: float
    ours_is_faster: float
    ours_is_faster_at_best: float
    saved_mib: float
    saved_mib_per_step: float
    operations: int | None
    peak_mib: float
    mfu: float | None
    of_ceiling: float | None


def settings(
    sizes: Sequence[str],
    sides: Sequence[int],
    images: int,
    dtypes: Sequence[str],
    modes: Sequence[str],
    compiled: bool,
    device: str,
    clock: str,
) -> Iterator[Setting]:
    """Every combination; the batch shrinks as patches grow, from `images` at 196 of them."""
    for size in sizes:
        for side in sides:
            patch = contenders.size_config(size, side).patch_size
            batch = max(1, round(images * 196 / (side // patch) ** 2))
            for dtype in dtypes:
                for mode in modes:
                    yield Setting(
                        size, side, batch, dtype, mode, compiled, device, clock,
                        torch.get_num_threads(),
                    )  # fmt: skip


def compare(setting: Setting, names: Sequence[str], repeats: int) -> list[Row]:
    """Measure the contenders of one setting in turn; ours comes first.

    Who runs out of memory has no row, unless it is ours.

    Raises:
        torch.OutOfMemoryError: ours ran out of memory.
        UserError: a compiled network would have been measured eagerly.
    """
    with _compiled_or_not_at_all(setting):
        return _compare(setting, names, repeats)


def _compare(setting: Setting, names: Sequence[str], repeats: int) -> list[Row]:
    device = torch.device(setting.device)
    config = contenders.size_config(setting.size, setting.side)
    names = ["ours", *(name for name in names if name != "ours")]
    runs, exact, peaks = {}, {}, {}
    for name in names:
        with measure.spare_memory(name != "ours"):
            runs[name], exact[name], peaks[name] = _prepare(setting, config, name)
    # Each was called twice above; no further warm-up.
    others = set(names) - {"ours"}
    times = measure.alternate(runs, repeats, device, setting.clock, warmup=0, optional=others)
    ceiling = gemm_ceiling(device, DTYPES[setting.dtype], setting.clock)
    return [_row(setting, config, name, times, exact[name], peaks[name], ceiling) for name in times]


def _prepare(
    setting: Setting, config: ConViTConfig, name: str
) -> tuple[Callable[[], object], tuple[measure.SavedMemory, int | None], float]:
    """What is timed of a contender, its exact counts, and its peak in MiB."""
    torch.manual_seed(0)
    device = torch.device(setting.device)
    model = contenders.build(name, config).to(device)
    exact = _exact(model, setting)
    run = _runner(model, setting)
    return run, exact, measure.peak_memory(run, device)


def compare_times(
    setting: Setting, names: Sequence[str], repeats: int
) -> list[tuple[str, measure.Timing]]:
    """The times alone, of those whose memory suffices.

    Raises:
        UserError: as `compare`.
    """
    config = contenders.size_config(setting.size, setting.side)
    device = torch.device(setting.device)
    with _compiled_or_not_at_all(setting):
        runs = {}
        for name in names:
            with measure.spare_memory(name != "ours"):
                runs[name] = _runner(contenders.build(name, config).to(device), setting)
        others = set(names) - {"ours"}
        times = measure.alternate(runs, repeats, device, setting.clock, warmup=1, optional=others)
        return list(times.items())


@contextlib.contextmanager
def _compiled_or_not_at_all(setting: Setting) -> Iterator[None]:
    """Dynamo forgets earlier settings' networks, and does not fall back to eager runs.

    It runs a function eagerly, in silence, once it has compiled so many variants of it; every
    setting's network is one more.
    """
    if not setting.compiled:
        yield
        return
    import torch._dynamo.config
    import torch._dynamo.exc

    torch._dynamo.reset()
    try:
        with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
            yield
    except torch._dynamo.exc.FailOnRecompileLimitHit as error:
        raise UserError(
            f"{setting.size} at {setting.side} px needs more compiled variants of a function than "
            f"the {torch._dynamo.config.recompile_limit} that PyTorch allows, and the rest would "
            f"run eagerly; measure it without --compile"
        ) from error


def _row(
    setting: Setting,
    config: ConViTConfig,
    name: str,
    times: dict[str, measure.Timing],
    exact: tuple[measure.SavedMemory, int | None],
    peak_mib: float,
    ceiling: float | None,
) -> Row:
    timing, (saved, operations) = times[name], exact
    seconds = timing.median / setting.batch
    passes = 3 if setting.mode == "training" else 1
    flops = 2 * passes * contenders.multiply_adds(config, setting.side) / seconds
    peak = contenders.peak_flops(torch.device(setting.device))
    return Row(
        name=name,
        milliseconds=1e3 * seconds,
        quartiles=(1e3 * timing.lower / setting.batch, 1e3 * timing.upper / setting.batch),
        images_per_s=1 / seconds,
        ours_is_faster=measure.ratio(times["ours"], timing),
        ours_is_faster_at_best=min(timing.samples) / min(times["ours"].samples),
        saved_mib=saved.per_image,
        saved_mib_per_step=saved.per_step,
        operations=operations,
        peak_mib=peak_mib,
        mfu=flops / peak if peak and setting.dtype == "bf16" else None,
        of_ceiling=flops / ceiling if ceiling else None,
    )


def _autocast(setting: Setting) -> contextlib.AbstractContextManager[Any]:
    device = torch.device(setting.device).type
    if setting.dtype == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device, DTYPES[setting.dtype])


def _exact(model: nn.Module, setting: Setting) -> tuple[measure.SavedMemory, int | None]:
    """Saved memory in training, and operations of one call in the setting's mode."""

    def forward(images: Tensor) -> object:
        with _autocast(setting):
            return model(images)

    model.train()
    image = torch.randn(3, setting.side, setting.side, device=setting.device)
    saved = measure.saved_memory(model, forward, image)
    if setting.compiled:
        return saved, None
    if setting.mode == "training":
        return saved, measure.count_operations(lambda: forward(image.unsqueeze(0)))
    model.eval()
    with torch.inference_mode():
        forward(image.unsqueeze(0))  # fills what is cached
        return saved, measure.count_operations(lambda: forward(image.unsqueeze(0)))


def _runner(model: nn.Module, setting: Setting) -> Callable[[], object]:
    """One call of what is timed."""
    shape = (setting.batch, 3, setting.side, setting.side)
    images = torch.randn(shape, device=setting.device)
    called: Callable[[Tensor], Tensor] = torch.compile(model) if setting.compiled else model
    as_trained = _on_cpu(setting) and isinstance(model, ConViT) and not setting.compiled
    if setting.mode == "forward":
        model.eval()

        def infer() -> None:
            with onednn_products(as_trained), torch.inference_mode(), _autocast(setting):
                called(images)

        return infer
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def train() -> None:
        with onednn_products(as_trained):
            with _autocast(setting):
                loss = called(images).float().square().mean()
            loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return train


def _on_cpu(setting: Setting) -> bool:
    return torch.device(setting.device).type == "cpu"


def gemm_ceiling(device: torch.device, dtype: torch.dtype, clock: str = "wall") -> float:
    """FLOP/s of one large matrix product, the best of twenty: what the machine allows at most.

    By the library that training uses: in float32 on some CPUs that is not PyTorch's own choice.
    """
    side = 8192 if device.type == "cuda" else 512
    left = torch.randn(side, side, device=device, dtype=dtype)
    with onednn_products(device.type == "cpu"):
        times = measure.alternate({"product": lambda: left @ left}, 20, device, clock)
    return 2 * side**3 / min(times["product"].samples)


def as_json(setting: Setting, rows: Sequence[Row], names: Sequence[str]) -> dict[str, Any]:
    """One comparison as plain values; who of those named has no row ran out of memory."""
    missing = [name for name in names if name not in {row.name for row in rows}]
    comparison = {"setting": asdict(setting), "rows": [asdict(row) for row in rows]}
    return {**comparison, "out_of_memory": missing} if missing else comparison


def place(comparison: dict[str, Any]) -> tuple[int, ...]:
    """Where a comparison stands among others, whichever was measured first."""
    s = comparison["setting"]
    sizes = [name.removeprefix("convit_") for name in VARIANTS]
    names = (sizes, list(DTYPES), MODES)
    ranks = [n.index(s[k]) for n, k in zip(names, ("size", "dtype", "mode"), strict=True)]
    return (*ranks, int(s["compiled"]), s["side"], s["batch"])
