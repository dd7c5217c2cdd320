"""Self-supervised methods in plain PyTorch: losses, heads, teacher, schedules, rules.

Losses take embeddings and know of several processes; nothing here knows of a
training framework.
"""

from convit_ssl.methods.barlow_twins import BarlowTwinsLoss
from convit_ssl.methods.clip import cancel_last_layer_gradients, clip_each, clip_global
from convit_ssl.methods.collapse import diagnose, effective_rank, feature_std, mean_entropy
from convit_ssl.methods.dino import DINOLoss, DINOOutput
from convit_ssl.methods.ema import build_teacher, update_teacher
from convit_ssl.methods.heads import (
    BarlowTwinsHead,
    DINOHead,
    MoCoV3Head,
    SimCLRHead,
    SwAVHead,
)
from convit_ssl.methods.koleo import KoLeoLoss
from convit_ssl.methods.moco_v3 import MoCoV3Loss
from convit_ssl.methods.multicrop import forward_crops, forward_packed, group_by_size
from convit_ssl.methods.patch_projection import freeze_patch_projection
from convit_ssl.methods.scale import Choice, scale_to_data
from convit_ssl.methods.schedules import CosineSchedule, constant, scaled_learning_rate
from convit_ssl.methods.simclr import NTXentLoss
from convit_ssl.methods.swav import SwAVLoss, SwAVQueue, sinkhorn

__all__ = [
    "BarlowTwinsHead",
    "BarlowTwinsLoss",
    "Choice",
    "CosineSchedule",
    "DINOHead",
    "DINOLoss",
    "DINOOutput",
    "KoLeoLoss",
    "MoCoV3Head",
    "MoCoV3Loss",
    "NTXentLoss",
    "SimCLRHead",
    "SwAVHead",
    "SwAVLoss",
    "SwAVQueue",
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
    "freeze_patch_projection",
    "group_by_size",
    "mean_entropy",
    "scale_to_data",
    "scaled_learning_rate",
    "sinkhorn",
    "update_teacher",
]
