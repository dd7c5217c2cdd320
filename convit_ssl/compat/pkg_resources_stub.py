"""A stand-in for ``pkg_resources``: what VISSL and its test suite call, and a few more.

Broke: ``import pkg_resources`` raises ModuleNotFoundError.
Since: setuptools 82
Upstream: vissl/utils/misc.py:16, vissl/utils/collect_env.py:12,
    tools/launch_benchmark_suite_scheduler_slurm.py:8
Goes when: VISSL uses ``importlib.resources`` and ``importlib.metadata``.

The others are for packages that use the stub as if it were the real one once it is imported
(pytest calls ``fixup_namespace_packages`` whenever ``pkg_resources`` is in ``sys.modules``).
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any


class DistributionNotFound(Exception):
    """No distribution of that name is installed."""


class Distribution:
    """Name and version of an installed distribution."""

    def __init__(self, project_name: str) -> None:
        # Loaded late: it costs more than all of install().
        import importlib.metadata

        self.project_name = project_name
        try:
            self.version = importlib.metadata.version(project_name)
        except importlib.metadata.PackageNotFoundError as error:
            raise DistributionNotFound(project_name) from error


def resource_filename(package: str, resource_name: str) -> str:
    """Path of a file or folder below the folder of a package or module.

    Unlike the original, it finds the package without importing it: VISSL asks for ``configs``
    during its own import, and a user's folder may contain a ``configs.py``.

    Raises:
        ModuleNotFoundError: There is no such package.
    """
    return os.path.join(_folder(package), *resource_name.split("/"))


def _folder(package: str) -> str:
    file = getattr(sys.modules.get(package), "__file__", None)
    if file:
        return os.path.dirname(file)
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    if spec.submodule_search_locations:
        return next(iter(spec.submodule_search_locations))
    return os.path.dirname(spec.origin or "")


def resource_exists(package: str, resource_name: str) -> bool:
    """Whether the package has that file or folder."""
    return os.path.exists(resource_filename(package, resource_name))


def resource_isdir(package: str, resource_name: str) -> bool:
    """Whether the package has that folder."""
    return os.path.isdir(resource_filename(package, resource_name))


def resource_listdir(package: str, resource_name: str) -> list[str]:
    """Names in that folder of the package."""
    return os.listdir(resource_filename(package, resource_name))


def parse_version(version: str) -> Any:
    """The version as an object that compares as versions do."""
    from packaging.version import Version

    return Version(version)


def iter_entry_points(group: str, name: str | None = None) -> Iterator[Any]:
    """The entry points of a group, of that name if one is given."""
    import importlib.metadata

    for entry_point in importlib.metadata.entry_points(group=group):
        if name in (None, entry_point.name):
            yield entry_point


def fixup_namespace_packages(path_item: str, parent: str | None = None) -> None:
    """Nothing to do: no namespace package was declared through this module."""


def fill(module: ModuleType) -> None:
    """Fill ``module`` with the stand-in. A real ``pkg_resources``, if installed, comes first."""
    module.__doc__ = __doc__
    vars(module).update(
        Distribution=Distribution,
        DistributionNotFound=DistributionNotFound,
        fixup_namespace_packages=fixup_namespace_packages,
        get_distribution=Distribution,
        iter_entry_points=iter_entry_points,
        parse_version=parse_version,
        resource_exists=resource_exists,
        resource_filename=resource_filename,
        resource_isdir=resource_isdir,
        resource_listdir=resource_listdir,
    )
