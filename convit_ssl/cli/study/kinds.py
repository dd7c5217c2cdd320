"""Which options belong to which kind of study; the others are refused, not ignored."""

from __future__ import annotations

import argparse

from convit_ssl.errors import UserError

EFFICIENCY, ABLATION, PRETRAINING, BASELINES, SCORES = KINDS = (
    "sample-efficiency",
    "ablation",
    "pretraining",
    "baselines",
    "scores",
)
_OF_RUNS = (EFFICIENCY, ABLATION, PRETRAINING)
# Options that some kinds cannot use, by their names in the arguments. All others are for all.
BELONGS = {
    "trunks": (EFFICIENCY, PRETRAINING),
    "size": (ABLATION, BASELINES, SCORES),
    "presets": (ABLATION,),
    "methods": (PRETRAINING, BASELINES),
    "probe_epochs": (PRETRAINING,),
    "runs": (SCORES,),
    "minutes": (BASELINES,),
    "subset": (BASELINES, SCORES),
    "reference": (BASELINES,),
    "fractions": (EFFICIENCY, ABLATION),
    "seeds": (*_OF_RUNS, BASELINES),
    "batch_size": (*_OF_RUNS, BASELINES),
    "no_scale_epochs": (EFFICIENCY, ABLATION),
    "checkpoints": (EFFICIENCY,),
    "no_scratch": (EFFICIENCY,),
    "no_labels": (BASELINES,),
    "deit": (BASELINES,),
    "jobs": _OF_RUNS,
    "reuse": _OF_RUNS,
    "folds": _OF_RUNS,
    "note": (*_OF_RUNS, BASELINES),
}
_ONE_PART = "it tests on one part of the images: use --holdout 0.2"
INSTEAD = {
    (BASELINES, "trunks"): "use --size, as in --size tiny, and --deit for DeiT beside it",
    (BASELINES, "folds"): _ONE_PART,
    (BASELINES, "fractions"): "use --subset fraction=0.1",
    (BASELINES, "jobs"): "its runs are timed, so they run one after the other",
    (BASELINES, "checkpoints"): "use --reference FILE for a frozen network",
    (SCORES, "folds"): _ONE_PART,
    (SCORES, "seeds"): "use --runs, the number of networks",
}


def refuse_others(args: argparse.Namespace, defaults: argparse.Namespace) -> None:
    """Refuse options that this kind of study would not look at.

    Args:
        args: of the command.
        defaults: the same without any option.

    Raises:
        UserError: an option was given that belongs to another kind.
    """
    for name, kinds in BELONGS.items():
        held = "weights" if name == "checkpoints" else name
        if args.kind in kinds or getattr(args, held) == getattr(defaults, held):
            continue
        option = "--" + name.replace("_", "-")
        instead = INSTEAD.get((args.kind, name), f"it is for: {', '.join(kinds)}")
        raise UserError(f"a study of {args.kind} does not use {option}; {instead}")
