"""What remains open about a plain ViT after all that is said about it, and what is assumed then.

Nothing is assumed in silence: each guess says what it is, how it could be wrong, and which option
sets it. The number of heads changes every feature, so it is assumed only where all published
networks of that width agree, and refused elsewhere; so are eps and activation of Hugging Face's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from convit_ssl.errors import UserError
from convit_ssl.export.architectures import Named, named_network
from convit_ssl.export.foreign import layout_of
from convit_ssl.export.grid import settle_size
from convit_ssl.export.keys import VISSL_LAYER_NORM_EPS, has_gpsa, is_vissl
from convit_ssl.export.normalisation import settle_images
from convit_ssl.export.stated import ACTIVATIONS, Stated
from convit_ssl.models import VARIANTS
from convit_ssl.reading import printable

# Heads of the published plain ViTs by width, and whose they are.
_PUBLISHED: dict[int, dict[int, str]] = {
    192: {3: "DeiT, DINO, timm", 12: "solo-learn's MoCo v3 and MAE"},
    384: {6: "DeiT, DINO, DINOv2, iBOT, timm", 12: "MoCo v3; MoCo v3 and MAE of solo-learn"},
    768: {12: "all"},
    1024: {16: "all"},
    1152: {16: "timm's SO400M"},
    1280: {16: "MAE, timm"},
    1408: {16: "timm"},
    1536: {24: "DINOv2"},
}
# Released files whose tensors leave it open, by the beginning of their names.
_RELEASED = (
    (r"(dino|dinov2|ibot|deit)[_-]?(deit)?_?(vit)?[_-]?s(mall)?\d*[_.-]", 6),
    (r"vit-s-\d+ep", 12),
    (r"(dino_)?(deit|vit)[_-]?ti(ny)?", 3),
)
PLAIN_LAYER_NORM_EPS = 1e-6
_WITH_EPS = {
    "official": "all plain ViTs of timm, DeiT, DINO, DINOv2, iBOT, MAE and MoCo v3",
    "torchvision": "all ViTs of torchvision",
}
CONVIT_LAYER_NORM_EPS = 1e-6  # of the release and of timm's
_IMPORTED = "a file that `convit-ssl import` wrote says it to every command"


@dataclass
class Settled:
    """What a network is taken for.

    Attributes:
        num_heads: attention heads.
        eps: of the LayerNorms.
        activation: of the MLPs.
        img_size: (height, width) that its position embeddings are for.
        class_position: whether the first of them belongs to the class token.
        resample: whether the user's image size is still to be resampled to.
        images: mean and std that a named network has, where nothing else says them.
        guesses: what was assumed, how it could be wrong, and what sets it.
        notes: what was read elsewhere than in the tensors.
    """

    num_heads: int
    eps: float
    activation: str
    img_size: tuple[int, int]
    class_position: bool
    resample: bool
    images: dict[str, list[float]] = field(default_factory=dict)
    guesses: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def settle(
    raw: Mapping[str, Tensor],
    tensors: dict[str, Tensor],
    where: str,
    stated: Stated,
    asked: tuple[int, int] | None,
    path: str,
) -> Settled:
    """Decide what the tensors leave open.

    Args:
        raw: the tensors under the file's own names.
        tensors: the same under official ones.
        where: the way to them in the file.
        stated: what is known besides.
        asked: image size that the user wants.
        path: of the file.

    Raises:
        UserError: it is open, and a wrong guess would give wrong features.
    """
    guesses: list[str] = []
    notes: list[str] = []
    width, _, _, patch = tensors["patch_embed.proj.weight"].shape
    blocks = {match[1] for key in tensors if (match := re.match(r"blocks\.(\d+)\.", key))}
    named = None if has_gpsa(tensors) else named_network(stated, where, width, len(blocks))
    _refuse_open_settings(raw, stated, named, path)
    heads = _heads(raw, tensors, len(blocks), stated, named, path, guesses, notes)
    eps = _eps(raw, has_gpsa(tensors), stated, named, guesses, notes)
    activation = _activation(tensors, stated, named, path, guesses, notes)
    size, class_position, used = settle_size(tensors, stated, asked, patch, path, guesses, notes)
    images = settle_images(raw, tensors, where, stated, named, path, guesses, notes)
    resample = asked is not None and not used
    return Settled(heads, eps, activation, size, class_position, resample, images, guesses, notes)


def _heads(
    raw: Mapping[str, Tensor],
    tensors: dict[str, Tensor],
    depth: int,
    stated: Stated,
    named: Named | None,
    path: str,
    guesses: list[str],
    notes: list[str],
) -> int:
    width = int(tensors["patch_embed.proj.weight"].shape[0])
    positions = tensors.get("blocks.0.attn.pos_proj.weight")
    origin = stated.origin.get("num_heads", "")
    if positions is not None:
        own = int(positions.shape[0])
        if origin == "you" and stated.num_heads != own:
            raise UserError(
                f"{path} has {own} attention heads, as its tensors show, not {stated.num_heads}; "
                "leave --num-heads out"
            )
        return own
    if stated.num_heads:
        if width % stated.num_heads == 0 or origin == "you":
            if origin != "you":
                notes.append(f"{stated.num_heads} attention heads, from {origin}")
            return stated.num_heads
        raise UserError(
            f"{path}: {origin} says {stated.num_heads} attention heads, which do not divide the "
            f"width {width}; give the right number with --num-heads N"
        )
    if named:
        origin = stated.origin.get("names", "")
        notes.append(f"{named.num_heads} attention heads, as {named.name} has them ({origin})")
        return named.num_heads
    if "mask_token" in raw and any(key.endswith(".ls1.gamma") for key in raw):
        guesses.append(
            f"{width // 64} attention heads of 64 channels are assumed, as in all networks of "
            "DINOv2, whose names these are; with another number all features are wrong. "
            "--num-heads N sets it"
        )
        return width // 64
    released = _released(path, width)
    if released:
        guesses.append(
            f"{released} attention heads are assumed from the name of the file; under a wrong name "
            "all features are wrong. --num-heads N sets it"
        )
        return released
    return _published(tensors, width, depth, path, guesses)


def _published(
    tensors: dict[str, Tensor], width: int, depth: int, path: str, guesses: list[str]
) -> int:
    if "blocks.0.attn.qkv.bias" not in tensors:  # of published plain ViTs, only our own
        for name, known in VARIANTS.items():
            if (known.embed_dim, known.depth, known.num_gpsa_layers) == (width, depth, 0):
                guesses.append(
                    f"{known.num_heads} attention heads are assumed, those of {name}, whose width "
                    "and depth these are; if it is another network, all features are wrong. "
                    "--num-heads N sets it"
                )
                return known.num_heads
    candidates = dict(_PUBLISHED.get(width, {}))
    if width == 192 and not has_fixed_positions(tensors):
        candidates.pop(12)  # both have fixed positions
    if len(candidates) == 1:
        (heads,) = candidates
        guesses.append(
            f"{heads} attention heads of {width // heads} channels are assumed, as in published "
            f"ViTs of width {width}; if this one has another number, all features are wrong. "
            "--num-heads N sets it"
        )
        return heads
    if candidates:
        listed = " or ".join(f"{heads} ({whose})" for heads, whose in candidates.items())
    else:
        listed = ", ".join(
            str(n) for n in range(1, width + 1) if width % n == 0 and 8 <= width / n <= 128
        )
    raise UserError(
        f"{path} holds a plain ViT of width {width} whose tensors do not say how many attention "
        f"heads it has, and nothing beside them does. All features depend on it, so nothing was "
        f"loaded. Give --num-heads N (num_heads=N in Python; {_IMPORTED}): {listed}"
    )


def has_fixed_positions(tensors: Mapping[str, Tensor]) -> bool:
    """Whether position embeddings are the fixed sines and cosines of MoCo v3 and MAE."""
    positions = tensors.get("pos_embed")
    if positions is None or positions.dim() != 3 or positions.shape[1] < 2:
        return False
    squares = positions[0, 1:].float().square().sum(-1)  # sin^2 + cos^2, half as many as channels
    expected = torch.full_like(squares, positions.shape[2] / 2)
    return bool(torch.allclose(squares, expected, rtol=1e-3, atol=1e-3))


def _released(path: str, width: int) -> int | None:
    name = re.split(r"[/\\]", path)[-1].lower()
    for pattern, heads in _RELEASED:
        if re.match(pattern, name) and heads in _PUBLISHED.get(width, {}):
            return heads
    return None


def _refuse_open_settings(
    raw: Mapping[str, Tensor], stated: Stated, named: Named | None, path: str
) -> None:
    """Refuse a ViT of transformers without its config.json, which may have any eps and activation.

    Raises:
        UserError: names what is open, with the values of the published networks.
    """
    if layout_of(dict(raw)) != "transformers" or any(".layer_scale" in key for key in raw):
        return  # DINOv2's networks all have the same
    known = {
        "--eps": stated.eps or (named and named.eps),
        "--activation": stated.activation or (named and named.activation),
    }
    missing = [option for option, value in known.items() if not value]
    if missing:
        raise UserError(
            f"{path} has the names of Hugging Face's ViT, whose LayerNorm eps and activation are "
            "in its config.json, and nothing beside it or in it says them. All features depend on "
            f"them, so nothing was loaded. Put config.json beside it, or give "
            f"{' and '.join(missing)} ({_IMPORTED}): google/vit and DeiT have --eps 1e-12 "
            "--activation gelu"
        )


def _eps(
    raw: Mapping[str, Tensor],
    gpsa: bool,
    stated: Stated,
    named: Named | None,
    guesses: list[str],
    notes: list[str],
) -> float:
    if stated.eps is not None:
        if stated.origin.get("eps") != "you":
            notes.append(f"LayerNorm eps {stated.eps:g}, from {stated.origin.get('eps')}")
        return stated.eps
    if is_vissl(dict(raw)):
        return VISSL_LAYER_NORM_EPS
    if named and named.eps:
        notes.append(f"LayerNorm eps {named.eps:g}, as {named.name} has it")
        return named.eps
    if gpsa:
        return CONVIT_LAYER_NORM_EPS
    tool = _WITH_EPS.get(layout_of(dict(raw)), "DINOv2's in transformers")
    guesses.append(
        f"LayerNorm eps {PLAIN_LAYER_NORM_EPS:g} is taken from the names of the tensors: {tool} "
        "have it. A network that was built with PyTorch's default, 1e-05, gives features that are "
        "off by up to 1 %. --eps X sets it"
    )
    return PLAIN_LAYER_NORM_EPS


def _activation(
    tensors: dict[str, Tensor],
    stated: Stated,
    named: Named | None,
    path: str,
    guesses: list[str],
    notes: list[str],
) -> str:
    found = stated.activation or (named.activation if named else None)
    if found:
        by_name = named.name if named else ""
        origin = stated.origin.get("activation", "") if stated.activation else by_name
        if found not in ACTIVATIONS.values():
            raise UserError(
                f"{path}: {origin} says that its activation is {printable(found)}, which is not "
                f"known here; give --activation: {', '.join(dict.fromkeys(ACTIVATIONS.values()))}"
            )
        if origin != "you":
            notes.append(f"activation {found}, from {origin}")
        return found
    if not has_gpsa(tensors):
        guesses.append(
            "GELU is assumed as the activation, which all networks with these names have in timm, "
            "DINO and MAE; one that was trained with another (CLIP's quick_gelu) gives wrong "
            "features. --activation NAME sets it"
        )
    return "gelu"
