"""The only place that registers things with VISSL.

Importing this package installs the compatibility layer, which is cheap; every tool does it at
module level, so that spawned ranks and loader workers get it too. `register` then imports VISSL
and adds our trunk, heads, losses, schedulers, task and train step to its registries.
"""

from __future__ import annotations

from convit_ssl import compat

compat.install()


def register() -> None:
    """Add everything of ours to VISSL's registries. Imports VISSL; idempotent.

    Raises:
        UserError: VISSL is not installed; says how to install it.
    """
    compat.require_vissl()
    from convit_ssl.adapters import (
        heads,
        losses,
        meters,
        optimizers,
        schedulers,
        task,
        train_step,
        trunk,
    )

    _ = heads, losses, meters, optimizers, schedulers, task, train_step, trunk
