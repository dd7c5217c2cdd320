"""What ``install()`` promises: nothing heavy, quickly, any number of times."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
import warnings
from types import ModuleType

import pytest

import convit_ssl.compat as compat
from convit_ssl.errors import UserError

HEAVY = ("torch", "torchvision", "numpy", "vissl", "classy_vision", "timm", "PIL", "hydra")


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    return result.stdout


def test_install_imports_nothing_heavy_and_changes_nothing_the_second_time() -> None:
    code = f"""
import sys
import convit_ssl.compat as compat
compat.install()
finders = list(sys.meta_path)
modules = set(sys.modules)
compat.install()
assert sys.meta_path == finders and set(sys.modules) == modules
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    assert run(code).strip() == "[]"


def test_install_takes_less_than_ten_milliseconds() -> None:
    code = """
import time
start = time.perf_counter()
import convit_ssl.compat as compat
imported = time.perf_counter()
compat.install()
print(time.perf_counter() - imported)
"""
    # The best of several: other processes share this machine.
    assert min(float(run(code)) for _ in range(5)) < 0.010


def test_importing_convit_ssl_installs_nothing() -> None:
    assert run("import convit_ssl, sys; print('convit_ssl.compat' in sys.modules)") == "False\n"


def test_every_registered_shim_is_a_module_with_its_function() -> None:
    functions = {"apply": compat.AFTER, "around": compat.AROUND, "fill": compat.PROVIDED}
    for function, table in functions.items():
        for shim in table:
            module = importlib.import_module(f"convit_ssl.compat.{shim}")
            assert callable(getattr(module, function)), shim


def test_a_shim_that_no_longer_fits_warns_and_lets_the_import_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = ModuleType("vissl.utils.io_of_another_version")
    hook = compat._after_hook("checkpoint_link")

    with pytest.warns(RuntimeWarning, match=r"checkpoint_link does not fit.*create_file_symlink"):
        hook(module)


def test_modules_imported_before_install_are_mended_too() -> None:
    # One of them has taken the function by `from ... import`.
    code = """
import sys, types
io = types.ModuleType("vissl.utils.io")
exec("def create_file_symlink(a, b): pass", vars(io))
io.__spec__ = None
taker = types.ModuleType("vissl.utils.checkpoint")
taker.create_file_symlink = io.create_file_symlink
sys.modules["vissl.utils.io"] = io
sys.modules["vissl.utils.checkpoint_taker"] = taker
import convit_ssl.compat as compat
compat.install()
print(io.create_file_symlink.__module__, taker.create_file_symlink is io.create_file_symlink)
"""
    assert run(code) == "convit_ssl.compat.checkpoint_link True\n"


def test_require_vissl_names_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    compat.require_vissl()

    monkeypatch.delitem(sys.modules, "vissl", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install --no-deps vissl==0\.1\.6"):
        compat.require_vissl()


def test_no_warning_of_ours_on_install() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compat.install()
