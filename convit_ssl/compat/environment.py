"""Let plain Python import torchvision if its build does not match torch's.

A CPU build of torch beside the package index's torchvision, which is built for CUDA, fails at
``import torchvision``, and so at ``import timm``. Inside this project a shim fixes that
(`torchvision_ops`). ``python -m convit_ssl.compat.environment``, which the Makefile calls after
installing, makes the same shim available to every script of the environment: it adds a line to
site-packages that registers it when Python starts. If torchvision imports without it, nothing
is added, and a line of an earlier installation is removed.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

from convit_ssl.children import safe_code

LINE = (
    'import importlib.util as _find; _find.find_spec("convit_ssl") and '
    '__import__("convit_ssl.compat", fromlist=["compat"]).install_torchvision()\n'
)


def startup_file() -> Path:
    """The file in site-packages that Python executes at start-up."""
    return Path(sysconfig.get_path("purelib")) / "convit_ssl_torchvision.pth"


def why_torchvision_fails() -> str:
    """The last line of what ``import torchvision`` raises in plain Python; empty if it works."""
    done = subprocess.run(
        [sys.executable, "-c", safe_code("import torchvision")],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def mend() -> str:
    """Add or remove the line, as this environment needs it.

    Returns:
        One sentence on what was done; empty if nothing was.

    Raises:
        RuntimeError: torchvision still fails with the shim.
    """
    path = startup_file()
    path.unlink(missing_ok=True)
    reason = why_torchvision_fails()
    if not reason:
        return ""
    path.write_text(LINE, encoding="utf-8")
    if left := why_torchvision_fails():
        path.unlink()
        raise RuntimeError(f"import torchvision fails: {left}")
    return (
        f"torchvision and torch are different builds here ({reason}). {path.name} lets plain "
        "Python import them; torchvision's compiled operators (nms, roi_align) stay unavailable."
    )


if __name__ == "__main__":
    try:
        print(mend(), end="")
    except RuntimeError as error:
        sys.exit(f"{error}\nInstall a torchvision built for this torch.")
