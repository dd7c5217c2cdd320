"""The ``convit-ssl`` commands: one thin file each over the packages below."""

import sys

if sys.platform == "win32":
    raise SystemExit(
        "convit-ssl: the commands need Linux or macOS; on Windows, install it in WSL 2 "
        "(https://learn.microsoft.com/windows/wsl). convit_ssl.models and convit_ssl.export work "
        "without it."
    )
