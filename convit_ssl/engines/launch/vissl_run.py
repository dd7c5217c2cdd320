"""VISSL's own configurations, run by VISSL's own launcher over the compatibility layer."""

from __future__ import annotations

from collections.abc import Sequence

from convit_ssl import adapters
from convit_ssl.errors import UserError


def run_vissl(arguments: Sequence[str]) -> int:
    """Run a configuration that is not one of this project's. Returns the exit code.

    Its trunks, heads and losses may be ours: they are registered first. Processes are started
    by VISSL, as its own tool starts them.

    Args:
        arguments: ``config=PATH`` and overrides, as VISSL takes them.

    Raises:
        UserError: a configuration that does not compose, with Hydra's reason.
    """
    adapters.register()
    from hydra.errors import HydraException
    from vissl.hooks import default_hook_generator
    from vissl.utils.distributed_launcher import (
        launch_distributed,
        launch_distributed_on_slurm,
    )
    from vissl.utils.hydra_config import compose_hydra_configuration, convert_to_attrdict

    try:
        composed = compose_hydra_configuration(list(arguments))
    except HydraException as error:
        raise UserError(f"VISSL's configuration does not compose: {error}") from None
    whole, config = convert_to_attrdict(composed)
    if config.SLURM.USE_SLURM:
        launch_distributed_on_slurm(engine_name=whole.engine_name, cfg=config)
    else:
        launch_distributed(
            cfg=config,
            node_id=whole.node_id,
            engine_name=whole.engine_name,
            hook_generator=default_hook_generator,
        )
    return 0
