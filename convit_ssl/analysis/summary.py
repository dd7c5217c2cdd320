"""Everything the report says about one run, as typed results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convit_ssl.analysis.attention import ImageAttention, image_attention
from convit_ssl.analysis.attribution import Attribution, attribute
from convit_ssl.analysis.channel_pictures import ChannelPicture, Shown, describe_shown
from convit_ssl.analysis.features import FeatureMap, describe_features, pooled_features
from convit_ssl.analysis.images import PreparedImage, prepare_image, statistics, thumbnail
from convit_ssl.analysis.locality import (
    NonLocality,
    PositionalAttention,
    initial_positional_attention,
    measure_nonlocality,
    positional_attention,
)
from convit_ssl.analysis.metrics import HeadSeries
from convit_ssl.analysis.provenance import provenance
from convit_ssl.analysis.runs import Checkpoint, Run
from convit_ssl.checksums import missing_newest
from convit_ssl.data.as_trained import as_trained
from convit_ssl.data.augment.evaluation import evaluation_transform
from convit_ssl.errors import UserError
from convit_ssl.models import ConViT
from convit_ssl.models.trunks import Network, OtherTrunk

LoadModel = Callable[[Path], Network]


@dataclass(frozen=True)
class LabelledImage:
    """A picture of the sample that features are described on; target -1 without a label."""

    image: Shown
    target: int
    name: str
    path: str = ""


@dataclass(frozen=True)
class Sample:
    """The images a report looks at.

    Attributes:
        pictures: attention maps are drawn of these, at any shape.
        labelled: features are described on these.
        classes: names of the classes.
        source: where they come from, in words.
    """

    pictures: Sequence[tuple[str, Shown]]
    labelled: Sequence[LabelledImage]
    classes: Sequence[str]
    source: str


@dataclass
class RunSummary:
    """One run, read and measured; a part is None where the run lacks what it needs."""

    run: Run
    model: ConViT | None = None
    other: OtherTrunk | None = None
    checkpoint: Checkpoint | None = None
    now: PositionalAttention | None = None
    start: PositionalAttention | None = None
    gates: HeadSeries | None = None
    nonlocality_history: HeadSeries | None = None
    nonlocality: NonLocality | None = None
    attention: list[ImageAttention] = field(default_factory=list)
    features: FeatureMap | None = None
    attributions: list[Attribution] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    check: dict[str, Any] | None = None
    problems: list[str] = field(default_factory=list)


STAGES = ("attention maps", "features and their map", "earlier checkpoints")


def summarise_run(
    run: Run,
    load: LoadModel,
    sample: Sample | None,
    attribution: str = "integrated_gradients",
    history: int = 6,
    layout: str = "auto",
    stage: Callable[[str], None] | None = None,
) -> RunSummary:
    """Read and measure one run; what fails becomes a problem, not an error.

    Args:
        run: from `read_run`.
        load: a checkpoint's path to its model in eval mode.
        sample: images; without them what needs images is left out.
        attribution: method for a model with a classifier.
        history: how many checkpoints to measure where metrics.jsonl lacks gates or non-locality.
        layout: of the feature map, see `describe_features`.
        stage: called at the start of each of `STAGES`, with its name.
    """
    begin = stage or (lambda _: None)
    summary = RunSummary(run, problems=list(run.problems))
    summary.gates = run.metrics.heads.get("gates")
    summary.nonlocality_history = run.metrics.heads.get("nonlocality")
    _load_newest(summary, load)
    model = summary.model
    if model is not None:
        summary.now = positional_attention(model)
        summary.start = initial_positional_attention(model)
        if not summary.now.layers:
            summary.problems.append(
                "This model has no GPSA layers (a DeiT), so there are no gates and no positional "
                "attention to show."
            )
        elif not model.config.use_gating:
            summary.problems.append("This model was built without gating, so there are no gates.")
        if sample is None:
            summary.problems.append("No images, so attention maps and features are not shown.")
        else:
            begin(STAGES[0])
            prepared = _attend(summary, model, sample)
            begin(STAGES[1])
            _describe(summary, model, sample, layout)
            _attribute(summary, model, prepared, attribution)
        begin(STAGES[2])
        _history(summary, load, sample, history)
    elif summary.other is not None:
        summary.problems.append(
            f"{summary.other.config.trunk} is not a ConViT, so there are no gates, no positional "
            "attention and no attention maps to show."
        )
        if sample is not None:
            begin(STAGES[1])
            _describe(summary, summary.other, sample, layout)
    summary.provenance = provenance(run, model or summary.other, summary.checkpoint)
    if model is not None and sample is not None:
        summary.provenance |= _channels_shown(model, sample)
    return summary


def _channels_shown(model: ConViT, sample: Sample) -> dict[str, Any]:
    """Which channels are on the page, where there are others than RGB."""
    first = next((image for _, image in sample.pictures), None)
    if not isinstance(first, ChannelPicture):
        return {}
    entry = getattr(model, "provenance", {}).get("entry") or {}
    names = first.names or (entry.get("data") or {}).get("channel_names") or ()
    text = describe_shown(first.shown, names, first.stains is not None, first.colour_map)
    window = (entry.get("data") or {}).get("window")
    ends = "each from its darkest to its brightest"
    if isinstance(window, list | tuple):
        ends = f"{window[0]:g} as black and {window[1]:g} as white"
    elif window:
        ends = "in the window of each file"
    return {"channels": f"{first.array.shape[-1]}; {text}, {ends}"}


def prepared_batch(model: Network, images: Sequence[Shown]) -> torch.Tensor:
    """Images as evaluation sees them: resized, centre crop, normalised."""
    channels = [image.array for image in images if isinstance(image, ChannelPicture)]
    if channels:
        mean, std = (values.tolist() for values in statistics(model))
        made = evaluation_transform(model.config.image_shape, mean=mean, std=std)
        return torch.stack([made(array) for array in channels])
    transform, _ = as_trained(model)
    batch = torch.stack([transform(image.convert("RGB")) for image in images])
    return batch.mean(dim=1, keepdim=True) if model.config.in_chans == 1 else batch


def _load_newest(summary: RunSummary, load: LoadModel) -> None:
    """The newest checkpoint that can be read; older ones stand in for a damaged one."""
    folders = {checkpoint.path.parent for checkpoint in summary.run.checkpoints}
    for words in (w for folder in sorted(folders) for w in missing_newest(folder / "last.torch")):
        summary.problems.append(f"{words[0].upper()}{words[1:]}; an older one is shown instead.")
    for checkpoint in reversed(summary.run.checkpoints):
        try:
            network = load(checkpoint.path)
            summary.checkpoint = checkpoint
            if isinstance(network, OtherTrunk):
                summary.other = network
            else:
                summary.model = network
            return
        except (UserError, OSError, RuntimeError, ValueError, KeyError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            summary.problems.append(f"Checkpoint {checkpoint.path.name} left out: {first}")


def _attend(summary: RunSummary, model: ConViT, sample: Sample) -> list[PreparedImage]:
    """Attention maps of the pictures, which are given back, and non-locality."""
    prepared = [prepare_image(image, model, name) for name, image in sample.pictures]
    summary.attention = [image_attention(model, item) for item in prepared]
    chosen = [item.image for item in sample.labelled[:8]] or [
        image for _, image in sample.pictures[:8]
    ]
    if chosen:
        summary.nonlocality = measure_nonlocality(model, prepared_batch(model, chosen))
    return prepared


def _attribute(
    summary: RunSummary, model: ConViT, prepared: Sequence[PreparedImage], method: str
) -> None:
    if not model.num_classes:
        return
    try:
        summary.attributions = [attribute(model, item, method) for item in prepared]
    except UserError as error:
        summary.problems.append(str(error))


def _describe(summary: RunSummary, model: Network, sample: Sample, layout: str) -> None:
    """The map of features, and what they say of the sample's classes."""
    labelled = sample.labelled
    if len(labelled) > 2:
        pixels = prepared_batch(model, [item.image for item in labelled])
        features, logits = pooled_features(model, pixels)
        summary.features = describe_features(
            features,
            [item.target for item in labelled],
            sample.classes,
            np.stack([thumbnail(item.image) for item in labelled]),
            [item.path or item.name for item in labelled],
            logits,
            layout=layout,
        )


def _history(summary: RunSummary, load: LoadModel, sample: Sample | None, most: int) -> None:
    """Gates and non-locality of earlier checkpoints, where training did not write them."""
    model = summary.model
    config = None if model is None else model.config
    has_gates = config is not None and config.num_gpsa_layers > 0 and config.use_gating
    want_gates = summary.gates is None and has_gates
    want_distance = summary.nonlocality_history is None and sample is not None
    checkpoints = summary.run.checkpoints
    if not (want_gates or want_distance) or len(checkpoints) < 2:
        return
    places = np.unique(np.linspace(0, len(checkpoints) - 1, most).round().astype(int))
    epochs, gates, distances = [], [], []
    for checkpoint in (checkpoints[place] for place in places):
        try:
            earlier = load(checkpoint.path)
        except (UserError, OSError, RuntimeError, ValueError, KeyError):
            continue
        if isinstance(earlier, OtherTrunk):
            continue
        epochs.append(float(checkpoint.epoch))
        gates.append(positional_attention(earlier).gates)
        if want_distance and sample is not None:
            images = [item.image for item in sample.labelled[:4]]
            images = images or [image for _, image in sample.pictures[:4]]
            batch = prepared_batch(earlier, images)
            distances.append(measure_nonlocality(earlier, batch).mixed)
    if len(epochs) < 2:
        return
    if want_gates:
        summary.gates = HeadSeries(np.array(epochs), np.stack(gates))
    if want_distance:
        summary.nonlocality_history = HeadSeries(np.array(epochs), np.stack(distances))
