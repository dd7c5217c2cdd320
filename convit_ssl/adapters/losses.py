"""The loss that VISSL sees; it builds the loss of the method.

A method's teacher is part of its loss, as in VISSL, so the checkpoint's ``loss`` entry contains it
(``teacher.trunk.*``, ``teacher.heads.*``) with the rest of the method's state.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from classy_vision.losses import ClassyLoss, register_loss
from torch import Tensor

from convit_ssl.adapters.accumulation import features_in_parts
from convit_ssl.adapters.teachers import open_classifier, open_teacher
from convit_ssl.errors import UserError
from convit_ssl.methods import Method, Run, get_method, options_of


@register_loss("convit_ssl")
class VisslLoss(ClassyLoss):
    """Builds the loss of the method that ``LOSS.convit_ssl.method`` names."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Method[Any]:
        """From the section of ``LOSS``.

        Raises:
            UserError: an option is out of range.
        """
        kind = get_method(config["method"]["name"])
        said = config.get("teacher_settings")
        run = Run(
            **config["run"],
            load_classifier=partial(open_classifier, settings=said),
            load_teacher=partial(open_teacher, settings=said),
        )
        more = {"teacher_features": _teacher_features} if kind.has_teacher else {}
        # Its state's names in a checkpoint are the method's own, so it is no wrapper.
        loss: Any = type(f"Vissl{kind.__name__}", (kind, ClassyLoss), more)
        try:
            return loss(options_of(config["method"]), run)
        except ValueError as error:
            raise UserError(f"method: {error}") from None


def _teacher_features(loss: Any, views: Sequence[Tensor]) -> Tensor:
    """The teacher's features, in the same parts or thread shares as the student's."""
    shares = getattr(loss, "shares", None)
    if shares is not None:
        (features,) = shares(loss.teacher, list(views)).features(learn=False)
        return features
    (features,) = features_in_parts(loss.teacher, list(views), loss.parts)
    return features
