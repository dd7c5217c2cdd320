"""What a ConViT has learned: gates, attention centres, non-locality, maps, and the report."""

from convit_ssl.analysis.locality import (
    NonLocality,
    PositionalAttention,
    initial_positional_attention,
    mean_distance,
    measure_nonlocality,
    positional_attention,
    released_nonlocality,
    uniform_distance,
)
from convit_ssl.analysis.training import training_summary, write_summary

__all__ = [
    "NonLocality",
    "PositionalAttention",
    "initial_positional_attention",
    "mean_distance",
    "measure_nonlocality",
    "positional_attention",
    "released_nonlocality",
    "training_summary",
    "uniform_distance",
    "write_summary",
]
