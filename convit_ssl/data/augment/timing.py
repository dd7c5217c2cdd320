"""How long augmentation takes, side by side: ``python -m convit_ssl.data.augment.timing``.

Decoding included, on scikit-learn's two photographs as JPEG files of ImageNet's usual
500 x 375 pixels, and on 64-pixel arrays as a small collection has them in its cache.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from convit_ssl.data.augment.device import DeviceAugmentation
from convit_ssl.data.augment.spec import AugmentConfig, build_augmentation
from convit_ssl.data.reading.pixels import Pixels, decode_array, decode_image


@dataclass(frozen=True)
class PipelineTime:
    """One measured line.

    Attributes:
        crops: what is made, such as ``2 x 224 + 8 x 96``.
        source: what it is made from.
        pipeline: pil, fast, device (the worker's half) or device (on ...).
        milliseconds: per image: CPU time of one thread, or time on the accelerator.
    """

    crops: str
    source: str
    pipeline: str
    milliseconds: float


def _describe(config: AugmentConfig) -> str:
    groups: dict[int, int] = {}
    for crop in config.crops:
        side = crop.height_width[0]
        groups[side] = groups.get(side, 0) + crop.count
    return " + ".join(f"{count} x {side}" for side, count in groups.items())


def _photos() -> list[bytes]:
    from sklearn.datasets import load_sample_images

    files = []
    for photo in load_sample_images().images:
        file = io.BytesIO()
        image = Image.fromarray(photo).resize((500, 375), Image.Resampling.BICUBIC)
        image.save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def _median_ms(function: Callable[[int], object], repeats: int) -> float:
    """Median CPU time of one call, in milliseconds, after one that is not counted."""
    function(0)
    times = []
    for number in range(repeats):
        start = time.process_time()
        function(number)
        times.append(time.process_time() - start)
    return 1e3 * float(np.median(times))


def _time_worker(
    config: AugmentConfig, pipeline: str, files: list[bytes], small: list[Pixels], repeats: int
) -> float:
    transform: Any = build_augmentation(config, pipeline)
    arrays = getattr(transform, "reads_arrays", False)
    images: list[Any] = small if arrays else [Image.fromarray(array) for array in small]

    def from_file(number: int) -> object:
        data = files[number % len(files)]
        image = decode_array(data, transform.min_side) if arrays else decode_image(data)
        return transform(image, seed=number)

    def from_memory(number: int) -> object:
        return transform(images[number % len(images)], seed=number)

    return _median_ms(from_memory if small else from_file, repeats)


def _time_device(config: AugmentConfig, array: Pixels, device: torch.device, batch: int) -> float:
    canvas: Any = build_augmentation(config, "device")
    samples = [canvas(array, seed=number) for number in range(batch)]
    pixels, drawn = (torch.stack(parts) for parts in zip(*samples, strict=True))
    finish, pixels = DeviceAugmentation(config).to(device), pixels.to(device)

    def run(_number: int) -> float:
        finish(pixels, drawn)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    for number in range(3):
        run(number)
    start = time.perf_counter()
    ends = [run(number) for number in range(5)]
    return 1e3 * float(np.median(np.diff([start, *ends]))) / batch


def time_pipelines(repeats: int = 40, device: str | None = None) -> list[PipelineTime]:
    """Measure every pipeline, on one thread.

    Args:
        repeats: calls of which the median is taken.
        device: measure the device's half there too, such as ``cuda``.
    """
    files, threads = _photos(), torch.get_num_threads()
    arrays = [np.array(Image.open(io.BytesIO(file)).resize((64, 64))) for file in files]
    cases: list[tuple[AugmentConfig, list[Pixels]]] = [
        (AugmentConfig.dino(), []),
        (AugmentConfig.simclr(), []),
        (AugmentConfig.dino(64, 32, 6), arrays),
        (AugmentConfig.simclr(64), arrays),
    ]
    rows = []
    torch.set_num_threads(1)
    try:
        for config, small in cases:
            crops = _describe(config)
            source = "64 x 64 array" if small else "500 x 375 JPEG"
            for pipeline in ("pil", "fast", "device"):
                name = "device (worker)" if pipeline == "device" else pipeline
                spent = _time_worker(config, pipeline, files, small, repeats)
                rows.append(PipelineTime(crops, source, name, spent))
            if device is not None:
                array = small[0] if small else decode_array(files[0])
                spent = _time_device(config, array, torch.device(device), 64)
                rows.append(PipelineTime(crops, source, f"device (on {device})", spent))
    finally:
        torch.set_num_threads(threads)
    return rows


def format_times(rows: list[PipelineTime]) -> str:
    """A table of the lines, with each pipeline's speed as a multiple of ``pil``'s."""
    lines = [f"{'crops':<17} {'from':<15} {'pipeline':<17} {'ms per image':>12} {'speed':>7}"]
    base = 0.0
    for row in rows:
        base = row.milliseconds if row.pipeline == "pil" else base
        lines.append(
            f"{row.crops:<17} {row.source:<15} {row.pipeline:<17} {row.milliseconds:>12.3f} "
            f"{base / row.milliseconds:>6.1f}x"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(format_times(time_pipelines(device="cuda" if torch.cuda.is_available() else None)))
