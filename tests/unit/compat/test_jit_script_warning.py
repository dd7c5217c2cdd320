import subprocess
import sys

CODE = """
import convit_ssl.compat as c
c.install()
import fvcore.nn.focal_loss
import warnings
warnings.warn("another one", FutureWarning)
"""


def test_the_import_is_silent_and_other_warnings_are_not() -> None:
    result = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=300
    )
    assert "deprecated" not in result.stderr
    assert "another one" in result.stderr
