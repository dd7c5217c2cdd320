"""The environment variables in a run's log.

Broke: each run writes every environment variable into log.txt, including passwords and tokens.
Since: always
Upstream: vissl/engines/train.py:98 (vissl/utils/env.py:43)
Goes when: VISSL logs only the variables that matter to a run.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from types import ModuleType

from convit_ssl.compat._patch import replace

# Variables that say where and how a run ran; no others are written.
WANTED = re.compile(
    r"(CUDA|CUDNN|CUBLAS|NCCL|GLOO|TORCH|PYTORCH|TORCHELASTIC|NVIDIA|OMP|MKL|OPENBLAS|SLURM)_\w+"
    r"|RANK|LOCAL_RANK|WORLD_SIZE|LOCAL_WORLD_SIZE|NODE_RANK|GROUP_RANK|MASTER_ADDR|MASTER_PORT"
    r"|PYTHONHASHSEED|PYTHONPATH|VIRTUAL_ENV|CONDA_DEFAULT_ENV|CONVIT_SSL_\w+|HOSTNAME"
)
SECRET = re.compile(r"TOKEN|SECRET|PASS|PWD|KEY|AUTH|CRED|JWT|COOKIE|SESSION", re.IGNORECASE)
# scheme://user:password@host
LOGIN = re.compile(r"(?<=://)[^/@\s]+@")


def print_system_env_info(current_env: Mapping[str, str]) -> None:
    """Log the variables in ``WANTED``, except values that look like secrets."""
    for name in sorted(current_env):
        if WANTED.fullmatch(name) and not SECRET.search(name):
            logging.info(f"{name}:\t{LOGIN.sub('', current_env[name])}")


def apply(module: ModuleType) -> None:
    """Replace ``vissl.utils.env.print_system_env_info``."""
    replace(module, "print_system_env_info", print_system_env_info)
