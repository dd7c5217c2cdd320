from typing import Any

import torch
from vissl.utils.profiler import create_runtime_profiler


class Recorder:
    """Stands where torch's profiler does."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.acc_events = False

    def __enter__(self) -> None:
        self.calls.append("enter")

    def __exit__(self, *_: Any) -> None:
        self.calls.append("exit")

    def step(self) -> None:
        self.calls.append("step")


def make_profiler() -> Any:
    return create_runtime_profiler(
        enabled=True,
        use_cpu=True,
        use_cuda=False,
        wait=0,
        warmup=0,
        active=1,
        legacy_profiler=False,
    )


def test_a_stopped_profiler_is_not_stepped() -> None:
    profiler = make_profiler()
    profiler.profiler = recorder = Recorder()

    profiler.__enter__()
    profiler.step()
    profiler.__exit__(None, None, None)
    profiler.step()

    assert recorder.calls == ["enter", "step", "exit"]
    assert recorder.acc_events


def test_what_was_profiled_is_written(tmp_path: Any) -> None:
    profiler = make_profiler()
    profiler.__enter__()
    torch.ones(10, 10) @ torch.ones(10, 10)
    profiler.step()
    profiler.__exit__(None, None, None)
    profiler.dump(str(tmp_path), rank=0)

    assert "aten::mm" in (tmp_path / "cpu_time_rank0.txt").read_text()
