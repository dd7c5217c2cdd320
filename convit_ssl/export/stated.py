"""What is said about weights elsewhere than in their tensors: in the file, beside it, by the user.

Tensors do not tell how many heads a plain ViT has, which epsilon its LayerNorms add, which
activation its MLPs have, how its images were normalised. Files beside them often do: config.json
and preprocessor_config.json of timm and of Hugging Face transformers, args.json of solo-learn, and
the hyper-parameters that training tools keep in their checkpoints.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convit_ssl.errors import UserError
from convit_ssl.export.inert import plain
from convit_ssl.reading import read_json

# Names of files beside weights that say what the weights are.
_BESIDE = ("config.json", "preprocessor_config.json", "args.json")
# Keys under which training tools keep their settings in a checkpoint.
_SETTINGS = (
    "args", "hyper_parameters", "hparams", "config", "cfg", "opt", "arch", "lightly_train",
)  # fmt: skip

_HEADS = ("num_heads", "num_attention_heads", "n_heads")
_EPS = ("layer_norm_eps", "norm_eps", "layernorm_eps")
_ACTIVATION = ("hidden_act", "act_layer", "activation", "hidden_activation")
_SIZE = ("img_size", "image_size", "input_size", "crop_size", "global_crops_size")
_NAMES = ("arch", "architecture", "model_name", "model", "backbone", "name", "vit_arch", "encoder")
_MEAN = ("mean", "image_mean")
_STD = ("std", "image_std")
_PILLOW = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
INTERPOLATIONS = tuple(_PILLOW.values())

ACTIVATIONS = {  # to one of ACTIVATION_NAMES
    "gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_tanh": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh", "quick_gelu": "quick_gelu",
    "quickgelu": "quick_gelu", "relu": "relu", "silu": "silu", "swish": "silu",
}  # fmt: skip


@dataclass(frozen=True)
class Stated:
    """What is known of weights, each None where nothing says so.

    Attributes:
        num_heads: attention heads.
        eps: of the LayerNorms.
        activation: of the MLPs, one of the values of `ACTIVATIONS`.
        sizes: images that the position embeddings may have been made for (height, width).
        names: of architectures.
        method: of training, in lower case without signs.
        mean, std: of the images' channels.
        interpolation, crop_ratio: of evaluation.
        origin: where each was read, by name.
    """

    num_heads: int | None = None
    eps: float | None = None
    activation: str | None = None
    sizes: tuple[tuple[int, int], ...] = ()
    names: tuple[str, ...] = ()
    method: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str | None = None
    crop_ratio: float | None = None
    origin: Mapping[str, str] = field(default_factory=dict)

    def under(self, stronger: Stated) -> Stated:
        """The same, where `stronger` says nothing else."""
        given: dict[str, Any] = {}
        for each in dataclasses.fields(self):
            value = getattr(stronger, each.name)
            given[each.name] = value if value not in (None, (), "") else getattr(self, each.name)
        given["sizes"] = tuple(dict.fromkeys((*stronger.sizes, *self.sizes)))
        given["names"] = tuple(dict.fromkeys((*stronger.names, *self.names)))
        given["origin"] = {**self.origin, **stronger.origin}
        return Stated(**given)

    def images(self) -> dict[str, Any]:
        """How images are made, as our own checkpoints say it."""
        names = ("mean", "std", "interpolation", "crop_ratio")
        found = {name: getattr(self, name) for name in names}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in found.items()
            if value is not None
        }


def stated_beside(file: Path) -> Stated:
    """What the files beside weights say. A damaged one is an error: it would be left out unseen.

    Raises:
        UserError: one of them is no JSON.
    """
    found = Stated()
    for name in _BESIDE:
        place = file.parent / name
        if not place.is_file():
            continue
        content = read_json(place)
        if isinstance(content, Mapping) and "num_gpsa_layers" not in content:
            found = found.under(_read(content, name))
    return found


def stated_inside(content: Any) -> Stated:
    """What the hyper-parameters in a checkpoint say."""
    found = Stated()
    if not isinstance(content, Mapping):
        return found
    for key in _SETTINGS:
        if key in content:
            settings = plain(content[key])
            settings = {key: settings} if isinstance(settings, str) else settings
            if isinstance(settings, Mapping):
                found = found.under(_read(settings, f"{key} in the file"))
    return found


def _read(settings: Mapping[Any, Any], where: str) -> Stated:
    pretrained = settings.get("pretrained_cfg")
    trained = settings.get("normalize_args")  # lightly-train's own, stronger than a network's
    values: dict[str, list[Any]] = {}
    for key, value in _entries(settings):
        values.setdefault(str(key), []).append(value)
    size = values.get("img_size") and _sizes(values["img_size"])
    found: dict[str, Any] = {
        "num_heads": _only(_all(values, _HEADS), _is_count),
        "eps": _only(_all(values, _EPS), lambda value: _is_number(value) and 0 < value < 0.1),
        "activation": _activation(_all(values, _ACTIVATION)),
        "sizes": size or _sizes(_all(values, _SIZE)),
        "names": tuple(v for v in _all(values, _NAMES) if isinstance(v, str) and len(v) < 200),
        "method": _method(values.get("method", [])),
        "mean": _only(_all(values, _MEAN), _is_list),
        "std": _only(_all(values, _STD), lambda v: _is_list(v) and min(v) > 0),
        "interpolation": _interpolation(
            [*values.get("interpolation", []), *values.get("resample", [])]
        ),
        "crop_ratio": _crop(pretrained if isinstance(pretrained, Mapping) else settings),
    }
    for name in ("mean", "std"):
        if isinstance(trained, Mapping) and _is_list(trained.get(name)):
            found[name] = trained[name]
        found[name] = None if found[name] is None else tuple(map(float, found[name]))
    known = [name for name, value in found.items() if value not in (None, (), "")]
    return Stated(**found, origin=dict.fromkeys(known, where))


def _entries(settings: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    if isinstance(settings, Mapping) and depth < 20:
        for key, value in settings.items():
            yield key, value
            yield from _entries(value, depth + 1)


def _all(values: Mapping[str, list[Any]], keys: tuple[str, ...]) -> list[Any]:
    return [value for key in keys for value in values.get(key, [])]


def _only(values: list[Any], is_good: Any) -> Any:
    """The value, where all that are good agree."""
    good = [value for value in values if is_good(value)]
    return good[0] if good and all(value == good[0] for value in good) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 1024


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and 0 < len(value) < 100 and all(map(_is_number, value))


def _sizes(values: list[Any]) -> tuple[tuple[int, int], ...]:
    found = []
    for value in values:
        if isinstance(value, Mapping):
            value = [value.get("height"), value.get("width")]
        if _is_count_of_pixels(value):
            found.append((value, value))
        elif isinstance(value, (list, tuple)) and len(value) in (2, 3):
            height, width = value[-2:]
            if _is_count_of_pixels(height) and _is_count_of_pixels(width):
                found.append((height, width))
    return tuple(dict.fromkeys(found))


def _is_count_of_pixels(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 100_000


def _activation(values: list[Any]) -> str | None:
    """A known activation, or one that is refused later by its name."""
    texts = [value.rpartition(".")[2].lower() for value in values if isinstance(value, str)]
    known = {ACTIVATIONS.get(text, text) for text in texts if text}
    return known.pop() if len(known) == 1 else None


def _method(values: list[Any]) -> str:
    texts = [value for value in values if isinstance(value, str)]
    return "".join(char for char in texts[0].lower() if char.isalnum()) if texts else ""


def _interpolation(values: list[Any]) -> str | None:
    texts = [_PILLOW.get(value, "") if isinstance(value, int) else value for value in values]
    found: str | None = _only(texts, lambda value: value in INTERPOLATIONS)
    return found


def _crop(settings: Mapping[Any, Any]) -> float | None:
    """Timm's crop_pct, or what Hugging Face's two sizes come to."""
    if settings.get("crop_mode") == "squash":
        return None  # the whole image, as our evaluation does of small ones
    ratio: Any = settings.get("crop_pct")
    if _is_number(ratio) and 0.1 <= ratio <= 1:
        return float(ratio)
    size, crop = settings.get("size"), settings.get("crop_size")
    if not settings.get("do_center_crop") or not isinstance(size, Mapping):
        return None
    side: Any = crop.get("height") if isinstance(crop, Mapping) else crop
    edge: Any = size.get("shortest_edge")
    if _is_number(side) and _is_number(edge) and 0 < side <= edge:
        return float(side) / float(edge)
    return None


def check_given(
    num_heads: int | None, eps: float | None, activation: str | None, images: Mapping[str, Any]
) -> Stated:
    """What the user says, checked.

    Raises:
        UserError: values that no network has.
    """
    if num_heads is not None and not _is_count(num_heads):
        raise UserError(f"num_heads={num_heads!r} must be a whole number of at least 1")
    if eps is not None and not (_is_number(eps) and 0 < eps < 0.1):
        raise UserError(f"eps={eps!r} must lie between 0 and 0.1, such as 1e-6")
    if activation is not None and activation not in ACTIVATIONS.values():
        choices = ", ".join(dict.fromkeys(ACTIVATIONS.values()))
        raise UserError(f"activation={activation!r}: choose one of {choices}")
    unknown = sorted(set(images) - {"mean", "std", "interpolation", "crop_ratio"})
    if unknown:
        raise UserError(
            f"images: {', '.join(unknown)} is unknown; choose from mean, std, "
            "interpolation and crop_ratio"
        )
    given = {key: value for key, value in images.items() if value is not None}
    for name in ("mean", "std"):
        if name in given:
            if not _is_list(list(given[name])) or (name == "std" and min(given[name]) <= 0):
                raise UserError(f"{name}={given[name]!r} must be numbers, one per channel")
            given[name] = tuple(map(float, given[name]))
    values = {"num_heads": num_heads, "eps": eps, "activation": activation, **given}
    known = {name: "you" for name, value in values.items() if value is not None}
    return Stated(**values, origin=known)
