import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from convit_ssl.compat.torchvision_ops import around

META = ModuleType("torchvision._meta_registrations")


def test_torchvision_and_timm_import() -> None:
    code = "import convit_ssl.compat as c; c.install(); import timm, torchvision; print('imported')"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300
    )
    assert result.stdout == "imported\n", result.stderr


def failing_register_fake(message: str) -> Any:
    """torch's own function as it behaves for an operator that is not there."""

    def register_fake(op: str, *args: Any, **kwargs: Any) -> Any:
        def register(kernel: Any) -> Any:
            raise RuntimeError(message.format(op=op))

        return register

    return register_fake


def test_only_the_missing_operator_is_tolerated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.extension._has_ops", lambda: False)
    failing = failing_register_fake("operator {op} does not exist")
    monkeypatch.setattr(torch.library, "register_fake", failing)

    with around(META):
        assert torch.library.register_fake("torchvision::nms")(len) is len
        with pytest.raises(RuntimeError, match="operator other::nms does not exist"):
            torch.library.register_fake("other::nms")(len)  # type: ignore[arg-type]
    assert torch.library.register_fake is failing

    monkeypatch.setattr(torch.library, "register_fake", failing_register_fake("{op} is special"))
    with pytest.raises(RuntimeError, match="torchvision::nms is special"), around(META):
        torch.library.register_fake("torchvision::nms")(len)  # type: ignore[arg-type]


def test_nothing_is_touched_where_the_operators_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torchvision.extension._has_ops", lambda: True)
    before = torch.library.register_fake

    with around(META):
        assert torch.library.register_fake is before


def test_a_call_of_a_missing_operator_still_says_so() -> None:
    from torchvision import extension
    from torchvision.ops import nms

    if extension._has_ops():
        pytest.skip("this torchvision has its operators")
    with pytest.raises(RuntimeError, match="Couldn't load custom C"):
        nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
