"""The import hook by itself, on small modules written for the occasion."""

from __future__ import annotations

import contextlib
import importlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from convit_ssl.compat import _hooks


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An importable package of a unique name with one module ``part``."""
    name = f"hooked_{tmp_path.name.replace('-', '_')}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / name / "part.py").write_text("import time\ntime.sleep(0.05)\nVALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    for module in [m for m in sys.modules if m.startswith(name)]:
        del sys.modules[module]


def test_hook_runs_after_the_module_and_before_the_importer_goes_on(package: str) -> None:
    _hooks.after_import(f"{package}.part", lambda module: setattr(module, "VALUE", 2))

    assert importlib.import_module(f"{package}.part").VALUE == 2


def test_hook_runs_at_once_for_a_module_that_is_there(package: str) -> None:
    part = importlib.import_module(f"{package}.part")

    _hooks.after_import(f"{package}.part", lambda module: setattr(module, "VALUE", 3))

    assert part.VALUE == 3


def test_same_hook_is_registered_once_and_a_reload_runs_it_again(package: str) -> None:
    calls: list[str] = []

    def hook(module: ModuleType) -> None:
        calls.append(module.__name__)

    for _ in range(3):
        _hooks.after_import(f"{package}.part", hook)
    part = importlib.import_module(f"{package}.part")
    assert calls == [part.__name__]
    importlib.reload(part)
    assert calls == [part.__name__] * 2


def test_nothing_of_ours_stays_on_the_module(package: str) -> None:
    _hooks.after_import(f"{package}.part", lambda module: None)
    part = importlib.import_module(f"{package}.part")

    assert part.__spec__ is not None
    assert part.__spec__.loader is part.__loader__
    assert "exec_module" not in vars(part.__loader__)
    assert type(part.__loader__).__name__ == "SourceFileLoader"


def test_during_import_wraps_the_execution(package: str) -> None:
    seen: list[bool] = []

    @contextlib.contextmanager
    def around(module: ModuleType) -> Iterator[None]:
        seen.append(hasattr(module, "VALUE"))
        yield
        seen.append(hasattr(module, "VALUE"))

    _hooks.during_import(f"{package}.part", around)
    importlib.import_module(f"{package}.part")

    assert seen == [False, True]


def test_failed_import_is_left_to_fail(package: str, tmp_path: Path) -> None:
    (tmp_path / package / "broken.py").write_text("raise OSError('as written')\n")
    _hooks.after_import(f"{package}.broken", lambda module: None)

    for _ in range(2):
        with pytest.raises(OSError, match="as written"):
            importlib.import_module(f"{package}.broken")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"{package}.absent")


def test_many_threads_see_the_mended_module(package: str) -> None:
    values: list[int] = []
    start = threading.Barrier(9)

    def import_it() -> None:
        start.wait()
        values.append(importlib.import_module(f"{package}.part").VALUE)

    threads = [threading.Thread(target=import_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    start.wait()
    # Registered while the others may be in the middle of the import.
    _hooks.after_import(f"{package}.part", lambda module: setattr(module, "VALUE", 4))
    for thread in threads:
        thread.join()

    assert importlib.import_module(f"{package}.part").VALUE == 4
    assert len(values) == 8


def test_provided_module_gives_way_to_an_installed_one(package: str) -> None:
    def fill(module: ModuleType) -> None:
        vars(module)["ORIGIN"] = "ours"

    _hooks.provide_module(f"{package}.part", fill)
    _hooks.provide_module(f"{package}.absent", fill)

    assert not hasattr(importlib.import_module(f"{package}.part"), "ORIGIN")
    assert importlib.import_module(f"{package}.absent").ORIGIN == "ours"


WORKER = """
import multiprocessing, sys
import convit_ssl.compat
convit_ssl.compat.install()

def ask(_):
    import collections, numpy
    return numpy.int is int and hasattr(collections, "MutableMapping")

if __name__ == "__main__":
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        assert pool.map(ask, range(4)) == [True] * 4
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_processes_of_every_kind_have_the_shims(method: str, tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(WORKER)

    subprocess.run([sys.executable, str(script), method], check=True, timeout=60)
