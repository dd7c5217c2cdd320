"""The model card: what the weights are, how they were made, what they reach, how to load them."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from convit_ssl import __version__
from convit_ssl.data.augment.evaluation import evaluation_transform
from convit_ssl.export.check import Difference
from convit_ssl.export.figures import Figure
from convit_ssl.export.infer import variant_of
from convit_ssl.methods import is_classifier
from convit_ssl.models import ConViT
from convit_ssl.models.fingerprint import weights_fingerprint
from convit_ssl.reading import printable
from convit_ssl.runs import race_reason

_USES = {
    "timm": """import timm
model = timm.create_model("local-dir:timm", pretrained=True).eval()
features = model(images)""",
    "hf": """from convit_ssl.export.hub import HubConViT
model = HubConViT.from_pretrained("hf").eval()
features = model(images)""",
    "safetensors": """from convit_ssl.export import load_trunk
model = load_trunk("{name}.safetensors")
features = model(images)""",
    "official": """import timm
model = timm.create_model({timm_arguments}, checkpoint_path="{name}.pth").eval()
features = model(images)""",
    "onnx": """import onnxruntime
session = onnxruntime.InferenceSession("{name}.onnx")
features = session.run(["features"], {{"images": images.numpy()}})[0]""",
    "torch-export": """import torch
model = torch.export.load("{name}.pt2").module()
features = model(images)""",
    "vissl": """# in a VISSL 0.1.6 configuration, trunk `convit`
MODEL.WEIGHTS_INIT.PARAMS_FILE: {name}_vissl.torch
MODEL.WEIGHTS_INIT.STATE_DICT_KEY_NAME: classy_state_dict""",
}
_TITLES = {
    "timm": "timm", "hf": "huggingface_hub", "safetensors": "convit_ssl",
    "official": "official weights, in timm", "onnx": "onnxruntime",
    "torch-export": "torch.export, without this package", "vissl": "VISSL 0.1.6",
}  # fmt: skip

_CHECKED_BY = {
    "timm": "timm's own ConViT", "hf": "huggingface_hub's mixin",
    "safetensors": "timm's own ConViT", "official": "timm's own ConViT", "onnx": "onnxruntime",
    "torch-export": "PyTorch", "vissl": "ours, folded back",
}  # fmt: skip


def model_card(
    model: ConViT,
    differences: Mapping[str, Sequence[Difference]],
    name: str,
    license_name: str,
    figures: Sequence[Figure] = (),
) -> str:
    """A README.md with the hub's front matter.

    Args:
        model: with the `provenance` that `load_trunk` leaves.
        differences: what was written, and how far each target's outputs are from ours.
        name: of the files.
        license_name: of the weights.
        figures: measured with these weights.
    """
    provenance = getattr(model, "provenance", {})
    # A folder of its own is loaded from where its card lies.
    alone = len(differences) == 1 and next(iter(differences)) in ("timm", "hf")
    parts = [
        _front_matter(provenance, license_name, "timm" if "timm" in differences else "convit_ssl"),
        f"# {_cell(name)}\n",
        _description(model, provenance),
        _table(model, provenance, license_name),
        figures_part(figures),
        _loading(model, differences, name, alone),
        _images(model, provenance),
        _checked(differences, is_oblong=model.config.image_shape[0] != model.config.image_shape[1]),
        f"Written by convit_ssl {__version__}.\n",
    ]
    return "\n".join(part for part in parts if part)


def _front_matter(provenance: Mapping[str, Any], license_name: str, library: str) -> str:
    method = provenance.get("method")
    learning = [] if method is None or is_classifier(method) else ["self-supervised-learning"]
    tags = ["convit", "vision-transformer", *learning, method]
    lines = [f"license: {_scalar(license_name)}", f"library_name: {library}"]
    lines += ["pipeline_tag: image-feature-extraction", "tags:"]
    lines += [f"- {_scalar(tag)}" for tag in tags if tag]
    return "\n".join(["---", *lines, "---", ""])


def _scalar(value: Any) -> str:
    """One line of YAML, whatever the text."""
    text = printable(" ".join(str(value).split()), 200)
    return text if re.fullmatch(r"[A-Za-z][\w.+-]*", text) else json.dumps(text)


def _cell(value: Any) -> str:
    """Text in a table of Markdown: one line, and neither columns nor HTML of its own."""
    text = printable(" ".join(str(value).split()), 400)
    return html.escape(text, quote=False).replace("|", "\\|")


def _description(model: ConViT, provenance: Mapping[str, Any]) -> str:
    config = model.config
    method = provenance.get("method")
    gpsa = config.num_gpsa_layers
    kind = (
        f"A ConViT ([arXiv:2103.10697](https://arxiv.org/abs/2103.10697)): {gpsa} layers of gated "
        f"positional self-attention, then {config.depth - gpsa} of plain self-attention."
        if gpsa
        else f"A plain vision transformer of {config.depth} layers, ConViT's baseline."
    )
    how = f" Pretrained with {method}." if method else ""
    if is_classifier(method):
        how = " Trained with labels."
    output = (
        f"It gives {config.num_classes} logits."
        if config.num_classes
        else f"It has no classifier and gives features of width {config.embed_dim}."
    )
    return f"{kind}{how} {output}\n"


def _table(model: ConViT, provenance: Mapping[str, Any], license_name: str) -> str:
    config = model.config
    data = _data(provenance.get("data"))
    parameters = sum(p.numel() for p in model.parameters())
    reason = race_reason((provenance.get("entry") or {}).get("config"))
    rows = {
        "variant": variant_of(config) or "of its own",
        "parameters": f"{parameters / 1e6:.2f} M",
        "image size": f"{config.image_shape[0]} x {config.image_shape[1]} px, "
        f"patch {config.patch_size}, {config.in_chans} channels",
        "method": provenance.get("method") or "not recorded",
        **({"chosen by a race": reason} if reason else {}),
        "weights": provenance.get("weights") or "not recorded",
        "data": data or "not recorded",
        "epochs": _epochs(provenance),
        "source commit": provenance.get("commit") or "not recorded",
        "license": license_name,
        "fingerprint of the weights": f"`{weights_fingerprint(model)}`",
    }
    lines = ["| | |", "|---|---|"]
    lines += [f"| {key} | {_cell(value)} |" for key, value in rows.items()]
    return "\n".join(lines) + "\n"


def _data(data: Any) -> Any:
    """Name, size and hash of what a trunk was trained on, as far as they are known."""
    if not isinstance(data, Mapping):
        return data
    name = data.get("name") or data.get("dataset") or data.get("data")
    known = [f"{data['images']:,} images"] if isinstance(data.get("images"), int) else []
    known += [f"hash `{data['digest']}`"] if data.get("digest") else []
    return f"{name or 'unnamed'} ({', '.join(known)})" if known else name


def _epochs(provenance: Mapping[str, Any]) -> str:
    epoch = provenance.get("epoch")
    return "not recorded" if epoch is None else str(epoch)


def figures_part(figures: Sequence[Figure]) -> str:
    """The section of figures that were measured with these weights."""
    if not figures:
        return "## Figures\n\nNone were recorded with these weights.\n"
    words = (
        "Measured on these weights, by their fingerprint; online figures by their epoch. The last "
        "column stands for the data and settings of the measurement.\n"
    )
    lines = ["## Figures\n", words]
    lines += ["| measured | of | result | on | protocol | fingerprint |"]
    lines += ["|---|---|---|---|---|---|"]
    for figure in figures:
        mark = f"`{figure.fingerprint}`" if figure.fingerprint else "none recorded"
        name = figure.name or "these weights"
        cells = (figure.what, name, figure.value, figure.where, figure.protocol)
        lines.append(f"| {' | '.join(map(_cell, cells))} | {mark} |")
    return "\n".join(lines) + "\n"


def _loading(model: ConViT, targets: Mapping[str, Any], name: str, alone: bool) -> str:
    lines = ["## Load it\n"]
    height, width = model.config.image_shape
    oblong = height != width
    for target in targets:
        code = _USES[target].format(name=name, timm_arguments=_arguments(model, target))
        if oblong and target in ("timm", "official"):
            code = f"import convit_ssl.export.timm_models  # oblong images\n{code}"
        if alone:
            code = code.replace('"local-dir:timm"', '"local-dir:."').replace('"hf"', '"."')
        language = "yaml" if target == "vissl" else "python"
        lines.append(f"{_TITLES[target]}:\n\n```{language}\n{code}\n```\n")
    return "\n".join(lines)


def _arguments(model: ConViT, target: str) -> str:
    """Only the official weights are loaded by a call that names the network."""
    return timm_arguments(model) if target == "official" else ""


def timm_arguments(model: ConViT) -> str:
    """Arguments of ``timm.create_model`` that build this network, as source."""
    from convit_ssl.export.timm_target import architecture, is_oblong, model_args
    from convit_ssl.models import VARIANTS

    config = model.config
    name = architecture(config)
    given = {**model_args(config), "in_chans": config.in_chans, "num_classes": config.num_classes}
    usual = {} if is_oblong(config) else model_args(VARIANTS[name])
    usual |= {"in_chans": 3, "num_classes": 1000}
    differing = [f"{key}={value!r}" for key, value in given.items() if usual.get(key) != value]
    return ", ".join([f'"{name}"', *differing])


def _images(model: ConViT, provenance: Mapping[str, Any]) -> str:
    data = (provenance.get("entry") or {}).get("data")
    data = data if isinstance(data, dict) else {}
    usual = evaluation_transform(model.config.image_shape)
    mean, std = (
        ", ".join(f"{v:.4g}" for v in data.get(key, getattr(usual, key))) for key in ("mean", "std")
    )
    known = "mean" in data or provenance.get("method")
    return (
        "`images` are float32 tensors (batch, channels, height, width), normalised: values in 0..1 "
        f"minus the mean ({mean}), over the standard deviation ({std})"
        + (".\n" if known else ", unless you know better.\n")
    )


def _checked(differences: Mapping[str, Sequence[Difference]], is_oblong: bool = False) -> str:
    lines = ["## Checked\n", "Largest difference to convit_ssl's outputs on random images:\n"]
    lines += ["| form | run by | difference |", "|---|---|---|"]
    for target, values in differences.items():
        text = ", ".join(str(value) for value in values) or "keys and values compared"
        by = _CHECKED_BY[target]
        if is_oblong and by == "timm's own ConViT":
            by = "convit_ssl's class in timm, which takes oblong images"
        lines.append(f"| {target} | {by} | {text} |")
    return "\n".join(lines) + "\n"
