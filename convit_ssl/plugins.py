"""The door for code from outside: modules that register methods, data sets, augmentations, trunks.

``plugins=my_module`` on the command line names a module, installed or lying in the current folder,
or a path such as ``code/my_module.py``. An installed package is found without being named, by an
entry point of the group ``convit_ssl.plugins``, and the environment variable
``CONVIT_SSL_PLUGINS`` names plugins for commands without ``plugins=``. Importing the module is all
that happens: it calls decorators such as `convit_ssl.methods.register_method`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

from convit_ssl.errors import UserError

GROUP = "convit_ssl.plugins"
VARIABLE = "CONVIT_SSL_PLUGINS"
_left_out: list[str] = []


def load(names: Sequence[str]) -> list[str]:
    """Import plugins that the user named, and those of installed packages.

    Args:
        names: modules, or paths of Python files.

    Returns:
        The same plugins by names that work from any folder: installed modules as they are, files
        by absolute path.

    Raises:
        UserError: a plugin that does not exist, or whose import fails.
    """
    _load_surroundings()
    return [_load(str(name), "plugins=") for name in names]


def _load_surroundings() -> None:
    """Import the plugins of installed packages and of the environment variable."""
    for name in filter(None, os.environ.get(VARIABLE, "").split(",")):
        _load(name, f"{VARIABLE}=")
    for entry in entry_points(group=GROUP):
        distribution = entry.dist.name if entry.dist is not None else entry.value
        _import(entry.module, f"the plugin {entry.name} of the installed package {distribution}")


def load_recorded(names: Sequence[str]) -> None:
    """Import the plugins that the configuration of a run names, as far as they may be trusted.

    A run folder may come from somebody else, and its configuration must not choose what code runs
    here. A file is therefore imported only if this user once named it in ``plugins=`` or the
    environment variable; an installed module only by its entry point.
    """
    _load_surroundings()
    known = _remembered()
    for name in names:
        if str(name) in known and Path(name).is_file():
            _load(str(name), "plugins=")
        elif Path(name).stem not in sys.modules and name not in _left_out:
            _left_out.append(str(name))


def advice() -> str:
    """What to add to the message on an unknown name, if a plugin was left out; else nothing."""
    if not _left_out:
        return ""
    names = ",".join(_left_out)
    return f"; the run was made with plugins that were not imported; set {VARIABLE}={names}"


def _load(name: str, given: str) -> str:
    path = _file_of(name, given)
    if path is None:
        _import(name, f"{given}{name}")
        return name
    stem = path.parent.stem if path.name == "__init__.py" else path.stem
    folder = str(path.parents[1] if path.name == "__init__.py" else path.parent)
    if folder not in sys.path:
        # Last, so that no file beside it hides a module of the standard library or a package.
        sys.path.append(folder)
    importlib.invalidate_caches()
    spec = importlib.util.find_spec(stem)
    if spec is None or spec.origin is None or Path(spec.origin) != path:
        found = "cannot be imported" if spec is None else f"is hidden by {spec.origin}"
        raise UserError(f"{given}{name}: {path} {found}; rename the file, for example my_{stem}.py")
    _import(stem, f"{given}{name}")
    _remember(path)
    return str(path)


def _file_of(name: str, given: str) -> Path | None:
    """The file that a name stands for, of a package its __init__.py; None for what is installed.

    Raises:
        UserError: nothing of that name exists.
    """
    plain = not name.endswith(".py") and os.sep not in name
    path = Path(f"{name}.py" if plain else name).expanduser().absolute()
    for file in (path, path.with_suffix("") / "__init__.py"):
        if file.is_file():
            return file
    if not plain:
        raise UserError(f"{given}{name}: no such file; give a Python module or its file")
    with contextlib.suppress(ImportError, ValueError):
        if importlib.util.find_spec(name) is not None:
            return None
    raise UserError(
        f"{given}{name}: no such module, neither installed nor as {name}.py in "
        f"{Path.cwd()}; give its path, for example {given}code/{name}.py"
    )


def _import(module: str, what: str) -> None:
    try:
        importlib.import_module(module)
    except UserError as error:
        raise UserError(f"{what}: {error}") from None
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(
            f"{what} cannot be imported: {type(error).__name__}: {error} "
            f"({frame.filename}, line {frame.lineno})"
        ) from error


def _memory() -> Path:
    """The list of plugin files that were named on this machine."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "convit_ssl" / "plugins.txt"


def _remembered() -> set[str]:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return set(_memory().read_text(encoding="utf-8").splitlines())
    return set()


def _remember(path: Path) -> None:
    if str(path) in _remembered():
        return
    with contextlib.suppress(OSError):  # a machine without a home remembers nothing
        _memory().parent.mkdir(parents=True, exist_ok=True)
        with _memory().open("a", encoding="utf-8") as file:
            file.write(f"{path}\n")
