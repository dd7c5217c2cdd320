"""Images: finding, reading, choosing and augmenting them."""

from convit_ssl.data.evaluation_transform import EvaluationTransform, evaluation_transform
from convit_ssl.data.images import ImageFiles
from convit_ssl.data.opening import open_dataset
from convit_ssl.data.samples import FaultLog

__all__ = [
    "EvaluationTransform",
    "FaultLog",
    "ImageFiles",
    "evaluation_transform",
    "open_dataset",
]
