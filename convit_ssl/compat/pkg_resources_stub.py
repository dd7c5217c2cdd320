"""The few functions of ``pkg_resources`` that VISSL and its test-suite call.

Broke: ``import pkg_resources`` raises ModuleNotFoundError.
Since: setuptools 82
Upstream: vissl/utils/misc.py:16, vissl/utils/collect_env.py:12,
    tools/launch_benchmark_suite_scheduler_slurm.py:8
Goes when: VISSL uses ``importlib.resources`` and ``importlib.metadata``.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from types import ModuleType


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

    Unlike the real one it finds the package without importing it: VISSL asks for ``configs``
    in the middle of its own import, and a user's folder may hold a ``configs.py``.

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


def fill(module: ModuleType) -> None:
    """Make ``module`` a stand-in for ``pkg_resources``; the real one, if there, comes first."""
    module.__doc__ = __doc__
    vars(module).update(
        Distribution=Distribution,
        DistributionNotFound=DistributionNotFound,
        get_distribution=Distribution,
        resource_exists=resource_exists,
        resource_filename=resource_filename,
        resource_isdir=resource_isdir,
        resource_listdir=resource_listdir,
    )
