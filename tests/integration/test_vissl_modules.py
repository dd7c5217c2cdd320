"""All of VISSL imports in a fresh process, whichever module comes first."""

from __future__ import annotations

import subprocess
import sys

IMPORT_ALL = """
import importlib, importlib.util, os, pkgutil, sys, warnings
warnings.simplefilter("ignore")
import convit_ssl.compat
convit_ssl.compat.install()

def modules(folder, prefix):
    for found in pkgutil.iter_modules([folder]):
        yield prefix + found.name
        if found.ispkg:
            yield from modules(os.path.join(folder, found.name), prefix + found.name + ".")

folder = importlib.util.find_spec("vissl").submodule_search_locations[0]
names = list(modules(folder, "vissl."))

# What takes long and is not VISSL: once, before the forks.
import hydra, iopath.common.file_io, scipy.sparse, sklearn.svm, torch, torchvision
for name in ["vissl.models", "vissl.trainer", "vissl.losses", "vissl.hooks.dino_hooks"]:
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name)
        except BaseException as error:
            print(name, repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

for name in names:
    importlib.import_module(name)
print(len(names))
"""


def test_all_modules_import_and_any_may_be_first() -> None:
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, timeout=500
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.strip() == "157"
