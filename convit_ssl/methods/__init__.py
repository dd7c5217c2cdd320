"""Self-supervised methods in plain PyTorch: one file each, and the parts they share.

Losses take embeddings and know of several processes; nothing here knows of a training framework.
A method is known by being imported; the order below is the order in which methods are listed.
"""

import sys

from convit_ssl.methods.base import (
    METHODS,
    Crops,
    LabelledOptions,
    Method,
    Progress,
    Run,
    TeacherMethod,
    TeacherOptions,
    get_method,
    is_classifier,
    options_of,
    register_method,
    self_supervised,
    test_every,
)
from convit_ssl.methods.choices import Choice
from convit_ssl.methods.clip import cancel_last_layer_gradients, clip_each, clip_global
from convit_ssl.methods.collapse import diagnose, effective_rank, feature_std
from convit_ssl.methods.ema import build_teacher, update_teacher
from convit_ssl.methods.heads import DINOHead
from convit_ssl.methods.koleo import KoLeoLoss
from convit_ssl.methods.multicrop import forward_crops, forward_packed, group_by_size
from convit_ssl.methods.scale import scale_to_data
from convit_ssl.methods.schedules import CosineSchedule, constant
from convit_ssl.options import MethodOptions

# isort: split
from convit_ssl.methods.barlow_twins import *
from convit_ssl.methods.diet import *
from convit_ssl.methods.dino import *
from convit_ssl.methods.distill import *
from convit_ssl.methods.ibot import *
from convit_ssl.methods.lejepa import *
from convit_ssl.methods.linear import *
from convit_ssl.methods.moco_v3 import *
from convit_ssl.methods.simclr import *
from convit_ssl.methods.supervised import *
from convit_ssl.methods.swav import *
from convit_ssl.methods.vicreg import *

__all__ = [
    "METHODS",
    "Choice",
    "CosineSchedule",
    "Crops",
    "DINOHead",
    "KoLeoLoss",
    "LabelledOptions",
    "Method",
    "MethodOptions",
    "Progress",
    "Run",
    "TeacherMethod",
    "TeacherOptions",
    "build_teacher",
    "cancel_last_layer_gradients",
    "clip_each",
    "clip_global",
    "constant",
    "diagnose",
    "effective_rank",
    "feature_std",
    "forward_crops",
    "forward_packed",
    "get_method",
    "group_by_size",
    "is_classifier",
    "options_of",
    "register_method",
    "scale_to_data",
    "self_supervised",
    "test_every",
    "update_teacher",
]
for _method in METHODS.values():
    __all__ += sys.modules[_method.__module__].__all__
