from convit_ssl.api import CheckResult as CheckResult
from convit_ssl.api import Features as Features
from convit_ssl.api import ProbeResult as ProbeResult
from convit_ssl.api import RetrieveResult as RetrieveResult
from convit_ssl.api import Run as Run
from convit_ssl.api import ScoreResult as ScoreResult
from convit_ssl.api import SegmentResult as SegmentResult
from convit_ssl.api import check as check
from convit_ssl.api import embed as embed
from convit_ssl.api import export as export
from convit_ssl.api import knn as knn
from convit_ssl.api import linear as linear
from convit_ssl.api import load_trunk as load_trunk
from convit_ssl.api import report as report
from convit_ssl.api import retrieve as retrieve
from convit_ssl.api import scores as scores
from convit_ssl.api import segment as segment
from convit_ssl.api import train as train
from convit_ssl.data.augment.own import register_augmentation as register_augmentation
from convit_ssl.data.sources.registered import register_dataset as register_dataset
from convit_ssl.errors import UserError as UserError
from convit_ssl.evaluation.features.feature_set import FeatureSet as FeatureSet
from convit_ssl.evaluation.probes.evaluators import register_evaluator as register_evaluator
from convit_ssl.methods.base import register_method as register_method
from convit_ssl.models.trunks import register_trunk as register_trunk

__version__: str
