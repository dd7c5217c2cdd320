"""The composed experiment while it is being worked out, as type checkers see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import DictConfig

if TYPE_CHECKING:
    from convit_ssl.schema_resolved import Resolved

    class Draft(Resolved, DictConfig):
        """Options as attributes with their types, VISSL's under ``config``."""

        config: DictConfig

else:
    Draft = DictConfig  # OmegaConf's tree; attributes are checked against the schema as they change

__all__ = ["Draft"]
