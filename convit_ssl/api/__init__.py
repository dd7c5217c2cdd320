"""The Python interface, for scripts and notebooks.

    import convit_ssl

    run = convit_ssl.train(data="/images", out="runs/mine", method="dino")
    features = convit_ssl.embed(run, "/images")
    print(convit_ssl.knn(run, "/images", holdout=0.2, references=True))
    convit_ssl.report(run)

All of it can be had from the command line, with the same results. What can be mended raises
`UserError`, whose `code` names the kind: options, data, weights, training or output.
"""

from convit_ssl.api.measures import (
    CheckResult,
    RetrieveResult,
    ScoreResult,
    SegmentResult,
    check,
    retrieve,
    scores,
    segment,
)
from convit_ssl.api.outputs import export, load_trunk, report
from convit_ssl.api.probes import ProbeResult, knn, linear
from convit_ssl.api.training import Run, train
from convit_ssl.api.vectors import Features, embed

__all__ = [
    "CheckResult",
    "Features",
    "ProbeResult",
    "RetrieveResult",
    "Run",
    "ScoreResult",
    "SegmentResult",
    "check",
    "embed",
    "export",
    "knn",
    "linear",
    "load_trunk",
    "report",
    "retrieve",
    "scores",
    "segment",
    "train",
]
