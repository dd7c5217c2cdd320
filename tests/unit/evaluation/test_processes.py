from collections.abc import Iterator

import pytest
from torch import distributed as dist
from torch._C._distributed_c10d import HashStore

from convit_ssl.evaluation import processes


@pytest.fixture
def group_of_one() -> Iterator[None]:
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_group_of_one_exchanges_nothing(
    group_of_one: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collective would leave its thread's OpenMP pool behind, and slow every later step."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a collective")

    for name in ("barrier", "broadcast_object_list", "all_gather_object"):
        monkeypatch.setattr(dist, name, refuse)
    processes.barrier()
    value = object()
    assert processes.broadcast(value) is value
    assert processes.gather(value) == [value]
