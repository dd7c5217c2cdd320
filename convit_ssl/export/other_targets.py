"""Networks that are not ConViTs, written for other libraries, and compared there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from convit_ssl import __version__
from convit_ssl.data.augment.evaluation import evaluation_transform
from convit_ssl.errors import UserError
from convit_ssl.export import graphs, timm_target
from convit_ssl.export.card import figures_part
from convit_ssl.export.check import Difference, compare, own_size
from convit_ssl.export.figures import Figure
from convit_ssl.export.files import read_weights, write_json, write_safetensors, write_text
from convit_ssl.export.other import describe_other, other_trunk
from convit_ssl.models.trunks import TIMM, OtherTrunk

Networks = Callable[[Tensor], Tensor]
TARGETS = ("safetensors", "timm", "onnx", "torch-export")


def write_other(
    model: OtherTrunk,
    targets: Sequence[str],
    folder: Path,
    name: str,
    license_name: str,
    figures: Sequence[Figure] = (),
) -> list[tuple[str, list[str], Difference]]:
    """Write a network in each form, read it back there and compare.

    Args:
        model: as `load_network` gives it.
        targets: some of `TARGETS`; timm only for networks of timm.
        folder: where to write.
        name: of the files.
        license_name: of the weights.
        figures: measured with these weights, for the model card.

    Returns:
        Each form, its files relative to the folder, and how far the outputs lie apart.

    Raises:
        UserError: a form that cannot hold this network, or whose outputs differ.
    """
    is_timms = model.config.trunk.startswith(TIMM)
    for target in targets:
        if target not in TARGETS or (target == "timm" and not is_timms):
            can = [form for form in TARGETS if form != "timm" or is_timms]
            raise UserError(
                f"--to {target} cannot hold {model.config.trunk}; choose from {', '.join(can)}"
            )
    entry = describe_other(model)
    written = []
    for target in dict.fromkeys(targets):
        before = set(folder.rglob("*"))
        theirs = _FORMS[target](model, folder, name, entry, license_name)
        files = sorted(path for path in set(folder.rglob("*")) - before if path.is_file())
        difference = compare(model, theirs, own_size(model))
        if not difference.within_tolerance:
            raise UserError(
                f"{target} computes something else: {difference}, more than rounding explains; "
                "nothing was written"
            )
        written.append((target, [str(path.relative_to(folder)) for path in files], difference))
    write_json(folder / "config.json", entry)
    write_text(folder / "README.md", _card(model, written, name, license_name, figures))
    return written


def _safetensors(
    model: OtherTrunk, folder: Path, name: str, entry: dict[str, Any], license_name: str
) -> Networks:
    path = folder / f"{name}.safetensors"
    write_safetensors(path, dict(model.network.state_dict()), entry)
    tensors, described = read_weights(path)
    return other_trunk(tensors, described, str(path))


def _timm(
    model: OtherTrunk, folder: Path, name: str, entry: dict[str, Any], license_name: str
) -> Networks:
    place = folder / "timm"
    write_safetensors(place / "model.safetensors", dict(model.network.state_dict()), entry)
    write_json(place / "config.json", _timm_config(model, entry, license_name))
    opened: Networks = timm_target.open_timm_folder(place)
    return opened


def _onnx(
    model: OtherTrunk, folder: Path, name: str, entry: dict[str, Any], license_name: str
) -> Networks:
    path = folder / f"{name}.onnx"
    graphs.write_onnx(graphs.make_program(model), path, entry)
    opened: Networks = graphs.open_onnx(path)
    return opened


def _program(
    model: OtherTrunk, folder: Path, name: str, entry: dict[str, Any], license_name: str
) -> Networks:
    path = folder / f"{name}.pt2"
    graphs.write_program(graphs.make_program(model), path)
    opened: Networks = graphs.open_program(path)
    return opened


_FORMS = {"safetensors": _safetensors, "timm": _timm, "onnx": _onnx, "torch-export": _program}


def _timm_config(model: OtherTrunk, entry: dict[str, Any], license_name: str) -> dict[str, Any]:
    """The config.json that timm reads."""
    config, data = model.config, entry.get("data") or {}
    usual = evaluation_transform(config.image_shape, crop_ratio=data.get("crop_ratio"))
    own = (usual.mean, usual.std) if config.in_chans == 3 else ((0.5,) * config.in_chans,) * 2
    args = {
        "img_size": config.img_size,
        "dynamic_img_size": True,
        "strict_img_size": False,
        "global_pool": config.global_pool,
    }
    cfg: dict[str, Any] = getattr(model.network, "pretrained_cfg", None) or {}
    kept = {key: cfg[key] for key in ("first_conv", "classifier", "pool_size") if key in cfg}
    return {
        "architecture": config.trunk.removeprefix(TIMM).partition(".")[0],
        "num_classes": 0,
        "num_features": config.embed_dim,
        "model_args": {
            key: value
            for key, value in args.items()
            if value is not None and key not in model.ignored
        },
        "pretrained_cfg": {
            **kept,
            "custom_load": False,
            "input_size": [config.in_chans, *config.image_shape],
            "interpolation": data.get("interpolation", usual.interpolation),
            "crop_pct": usual.crop_ratio,
            "crop_mode": "squash" if usual.whole else "center",
            "mean": list(data.get("mean") or own[0]),
            "std": list(data.get("std") or own[1]),
            "num_classes": 0,
            "license": license_name,
        },
    }


def _card(
    model: OtherTrunk,
    written: Sequence[tuple[str, list[str], Difference]],
    name: str,
    license_name: str,
    figures: Sequence[Figure],
) -> str:
    provenance: dict[str, Any] = vars(model)["provenance"]
    height, width = model.config.image_shape
    loading = {
        "safetensors": f'convit_ssl.export.load_network("{name}.safetensors")',
        "timm": 'timm.create_model("local-dir:timm", pretrained=True)',
        "onnx": f'onnxruntime.InferenceSession("{name}.onnx")',
        "torch-export": f'torch.export.load("{name}.pt2").module()',
    }
    lines = [
        f"# {name}",
        "",
        f"{model.config.trunk}, pretrained with {provenance['method']}; images of {height} x "
        f"{width} px to {model.config.embed_dim} features. License of the weights: {license_name}.",
        "",
        figures_part(figures),
        "| form | files | largest difference of outputs | to load it |",
        "|---|---|---|---|",
        *(
            f"| {form} | {', '.join(files)} | {difference} | `{loading[form]}` |"
            for form, files, difference in written
        ),
        "",
        f"Written by convit_ssl {__version__}.",
    ]
    return "\n".join(lines) + "\n"
