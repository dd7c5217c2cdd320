"""The few functions of ``pkg_resources`` that VISSL calls.

Broke: ``import pkg_resources`` raises ModuleNotFoundError.
Since: setuptools 82
Upstream: vissl/utils/misc.py:16, vissl/utils/collect_env.py:12,
    tools/launch_benchmark_suite_scheduler_slurm.py:8
Goes when: VISSL uses ``importlib.resources`` and ``importlib.metadata``.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from types import ModuleType


class DistributionNotFound(Exception):
    """No distribution of that name is installed."""


class Distribution:
    """Name and version of an installed distribution."""

    def __init__(self, project_name: str) -> None:
        import importlib.metadata  # 10 ms that only a caller should pay

        self.project_name = project_name
        try:
            self.version = importlib.metadata.version(project_name)
        except importlib.metadata.PackageNotFoundError as error:
            raise DistributionNotFound(project_name) from error


def resource_filename(package_or_requirement: str, resource_name: str) -> str:
    """Path of a file or folder that lies in a package's folder."""
    module = importlib.import_module(package_or_requirement)
    if module.__file__ is not None:
        folder = os.path.dirname(module.__file__)
    else:
        folder = next(iter(module.__path__))
    return os.path.join(folder, *resource_name.split("/"))


class StubFinder:
    """Last on ``sys.meta_path``: asked only where the real ``pkg_resources`` is absent."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "pkg_resources":
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin=__file__)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__doc__ = __doc__
        vars(module).update(
            resource_filename=resource_filename,
            get_distribution=Distribution,
            Distribution=Distribution,
            DistributionNotFound=DistributionNotFound,
        )


_finder = StubFinder()


def offer() -> None:
    """Let ``import pkg_resources`` find the stub when nothing else is found."""
    if _finder not in sys.meta_path:
        sys.meta_path.append(_finder)
