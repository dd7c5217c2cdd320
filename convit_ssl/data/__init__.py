"""Images: finding, reading, choosing and augmenting them."""

from convit_ssl.data.as_trained import as_trained
from convit_ssl.data.augment.evaluation import EvaluationTransform, evaluation_transform
from convit_ssl.data.images import ImageFiles
from convit_ssl.data.loading.samples import FaultLog
from convit_ssl.data.opening import open_dataset

__all__ = [
    "EvaluationTransform",
    "FaultLog",
    "ImageFiles",
    "as_trained",
    "evaluation_transform",
    "open_dataset",
]
