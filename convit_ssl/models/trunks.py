"""Trunks that are not ConViTs: any network of timm, torchvision's ResNet-50, and a plugin's own.

``trunk=timm:NAME`` takes a network of timm; every other name is an entry of `TRUNKS`, which
`register_trunk` adds to. Each becomes an `OtherTrunk`, which maps images to one vector each.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from convit_ssl.errors import UserError
from convit_ssl.models.convit import ConViT, ConViTConfig

TIMM = "timm:"
REGULARISATION = ("drop_rate", "attn_drop_rate", "drop_path_rate")
OPTIONAL = (*REGULARISATION, "global_pool", "img_size", "dynamic_img_size", "strict_img_size")

Factory = Callable[..., nn.Module]
TRUNKS: dict[str, Factory] = {}
"""What builds each trunk that has a name of its own."""


def register_trunk(name: str) -> Callable[[Factory], Factory]:
    """Make a network known as ``trunk=NAME``; decorates a function or a class.

    It is called with those of ``in_chans``, ``img_size``, ``drop_rate``, ``attn_drop_rate``,
    ``drop_path_rate`` and ``global_pool`` that it declares, and returns a module that maps images
    (B, C, H, W) to features (B, D), or to maps (B, D, h, w), whose mean is taken.

    Raises:
        UserError: the name is taken, or has a colon in it.
    """

    def register(factory: Factory) -> Factory:
        known = TRUNKS.get(name)
        if ":" in name or (known is not None and known.__module__ != factory.__module__):
            raise UserError(
                f"a trunk cannot be named {name!r}: the name is taken or contains a colon"
            )
        TRUNKS[name] = factory
        return factory

    return register


@register_trunk("resnet50")
def resnet50() -> nn.Module:
    """The ResNet-50 of torchvision without its classifier, as VISSL builds it."""
    from torchvision.models import resnet50 as build

    network: nn.Module = build(weights=None)
    network.fc = nn.Identity()
    return network


@dataclass(frozen=True)
class TrunkConfig:
    """What an `OtherTrunk` is built from.

    Attributes:
        trunk: ``timm:NAME``, or a name of `TRUNKS`.
        img_size: side in pixels, or (height, width), that the network is made for.
        in_chans: channels of the image.
        embed_dim: channels of a feature, as `measured` found them.
        patch_size: sides of images must be a multiple of it; 1 where the network does not say.
        drop_rate: dropout before the features.
        attn_drop_rate: dropout on attention maps.
        drop_path_rate: stochastic depth.
        global_pool: how positions become one feature; None for the network's own way.
        num_classes: always 0: a classifier is a head behind the trunk.
    """

    trunk: str
    img_size: int | tuple[int, int] = 224
    in_chans: int = 3
    embed_dim: int = 0
    patch_size: int = 1
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    global_pool: str | None = None
    num_classes: int = 0

    @property
    def image_shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        if isinstance(self.img_size, int):
            return self.img_size, self.img_size
        height, width = self.img_size
        return int(height), int(width)


class UncountedError(Exception):
    """The operations of a network cannot be counted."""


class OtherTrunk(nn.Module):
    """A network of another library, or of the user's own: images (B, C, H, W) to (B, D).

    Attributes:
        network: as its library built it; its state dict is what `export` writes.
        config: what it was built from.
        ignored: options of the configuration that this network does not have.
        provenance: where the weights came from; of networks that `export` loaded alone.

    Raises:
        UserError: there is no network of this name, or it cannot be built like this.
    """

    provenance: dict[str, Any]

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.config = config
        self.network, self.ignored = build_network(config)

    def forward(self, images: Tensor) -> Tensor:
        """One vector an image."""
        return pooled(self.network(images), self.config.trunk)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep fewer activations, where the network knows how.

        Raises:
            UserError: it does not.
        """
        if not enable:
            return
        switch = getattr(self.network, "set_grad_checkpointing", None)
        try:
            if switch is None:
                raise AssertionError
            switch(True)
        except AssertionError:  # timm's word for a network that cannot
            raise UserError(
                f"trunk={self.config.trunk} has no run.grad_checkpointing; leave it out"
            ) from None

    def patch_projection(self) -> nn.Module | None:
        """The projection of patches to tokens; None in a network without."""
        found = getattr(getattr(self.network, "patch_embed", None), "proj", None)
        return found if isinstance(found, nn.Module) else None

    def normalises_batches(self) -> bool:
        """Whether the output of an image depends on the others of its batch in training."""
        kind = nn.modules.batchnorm._BatchNorm
        return any(isinstance(module, kind) for module in self.network.modules())

    def layers(self) -> tuple[dict[nn.Parameter, int], int]:
        """The layer of each parameter, for layer decay, and that of a head behind the trunk.

        Raises:
            UserError: the network does not say how its layers follow one another.
        """
        if not hasattr(self.network, "group_matcher"):
            raise UserError(
                f"trunk={self.config.trunk} does not say what its layers are, so "
                "optim.layer_decay has no meaning; leave it out"
            )
        from timm.models import group_parameters

        network: Any = self.network
        matcher = network.group_matcher(coarse=False)
        numbers = group_parameters(self.network, matcher, reverse=True)
        layer = {p: int(numbers[name]) for name, p in self.network.named_parameters()}
        return layer, max(layer.values(), default=0) + 1

    def without_decay(self) -> set[nn.Parameter]:
        """Parameters that the network's author exempts from weight decay: tokens, positions."""
        names: set[str] = getattr(self.network, "no_weight_decay", set)()
        return {p for name, p in self.network.named_parameters() if name in names}


Network = ConViT | OtherTrunk
AnyConfig = ConViTConfig | TrunkConfig


def build_trunk(config: AnyConfig) -> Network:
    """The network of a configuration, at random init."""
    return OtherTrunk(config) if isinstance(config, TrunkConfig) else ConViT(config)


def is_other(name: object) -> bool:
    """Whether a trunk of this name is an `OtherTrunk`, though there may be no such network."""
    return str(name).startswith(TIMM) or name in TRUNKS


def count_parameters(config: AnyConfig) -> int:
    """Of a trunk without a classifier; nothing is allocated where that can be avoided."""
    return sum(parameter.numel() for parameter in sketch(config).parameters())


def sketch(config: AnyConfig) -> Network:
    """The network without memory for its weights, or with it where it cannot do without.

    Raises:
        UserError: as `OtherTrunk`.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tensors without elements, where an image is too small
        try:
            with torch.device("meta"):
                return build_trunk(config)
        except UserError:
            raise
        except Exception:
            if not isinstance(config, TrunkConfig):
                raise
            return build_trunk(config)


def measured(config: TrunkConfig, sides: tuple[int, ...]) -> TrunkConfig:
    """The configuration with the width of the features, once images of these sides went through.

    Args:
        config: of the trunk.
        sides: of all crops, in pixels.

    Raises:
        UserError: the network cannot take images of one of them, or gives no vector for each.
    """
    trunk = sketch(config).eval()
    width = 0
    for side in sides:
        try:
            width = _width(trunk, config, side)
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[-1][:200]
            raise UserError(
                f"trunk={config.trunk} cannot take images of {side} x {side} px ({reason}); set "
                "crops.global_size to a size it was made for, leave small crops out with "
                "crops.local_count=0, or choose another trunk"
            ) from None
    return TrunkConfig(**{**asdict(config), "embed_dim": width})


def _width(trunk: Network, config: TrunkConfig, side: int) -> int:
    """Channels of a feature; computed for real where sizes alone are not enough."""
    device = next((p.device for p in trunk.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad():
            return int(trunk(torch.zeros(2, config.in_chans, side, side, device=device)).shape[1])
    except Exception:
        if device.type != "meta":
            raise
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return int(build_trunk(config).eval()(torch.zeros(2, config.in_chans, side, side)).shape[1])


@functools.cache
def single_position_strided(config: TrunkConfig, side: int) -> bool:
    """Whether a convolution with a stride meets a map of one position, for images of this side.

    There the bfloat16 gradient of PyTorch on a CPU is wrong; see `engines.options.trunks`.
    """
    found = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is torch.ops.aten.convolution.default:
                maps, weight, _, stride = args[:4]
                one = maps.shape[2:].numel() == 1
                found.append(one and weight.shape[2:].numel() > 1 and max(stride) > 1)
            return func(*args, **(kwargs or {}))

    network = sketch(config).eval()
    with Watch():  # type: ignore[no-untyped-call]
        _width(network, config, side)
    return any(found)


@functools.cache
def operations_of(config: TrunkConfig, side: int) -> int:
    """Floating-point operations of the forward pass of one image of this side in pixels.

    Raises:
        UncountedError: images of this side do not fit, or the network needs real tensors.
    """
    from torch.utils.flop_counter import FlopCounterMode

    trunk = sketch(config).eval()
    device = next((p.device for p in trunk.parameters()), torch.device("cpu"))
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            trunk(torch.zeros(1, config.in_chans, side, side, device=device))
    except Exception as error:
        raise UncountedError(f"the operations of {config.trunk} cannot be counted") from error
    return int(counter.get_total_flops())


def pooled(output: Any, name: str) -> Tensor:
    """Features (B, D) of what a network gives: as they are, or the mean over a map.

    Raises:
        UserError: it gives something else.
    """
    if isinstance(output, Tensor) and output.dim() == 2:
        return output
    if isinstance(output, Tensor) and output.dim() == 4:
        return output.mean(dim=(2, 3))
    found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise UserError(
        f"trunk={name} returns {found}, but features (images, channels) or maps (images, channels, "
        "rows, columns) are needed; pool its output in the network"
    )


def build_network(config: TrunkConfig) -> tuple[nn.Module, frozenset[str]]:
    """The bare network, and the options that it does not have.

    Raises:
        UserError: there is none of this name, or its factory fails.
    """
    given: dict[str, Any] = {"in_chans": config.in_chans, "img_size": config.img_size}
    given |= {name: getattr(config, name) for name in REGULARISATION if getattr(config, name)}
    if config.global_pool is not None:
        given["global_pool"] = config.global_pool
    name = config.trunk
    try:
        if name.startswith(TIMM):
            more = {"dynamic_img_size": True, "strict_img_size": False}
            return _timm_network(name.removeprefix(TIMM), {**given, **more})
        factory = TRUNKS.get(name)
        if factory is None:
            from convit_ssl import plugins

            known = ", ".join((*TRUNKS, f"{TIMM}NAME"))
            raise UserError(f"unknown trunk {name!r} (available: {known}){plugins.advice()}")
        declared = inspect.signature(factory).parameters.values()
        any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in declared)
        names = {parameter.name for parameter in declared}
        kept = {key: value for key, value in given.items() if any_name or key in names}
        if "in_chans" not in kept and config.in_chans != 3:
            raise UserError(f"trunk={name} takes 3 channels, and images have {config.in_chans}")
        network = factory(**kept)
    except UserError:
        raise
    except Exception as error:
        if torch.empty(0).is_meta:  # `sketch` tries again with memory
            raise
        reason = (str(error).splitlines() or [""])[-1][:200]
        what = f"{type(error).__name__}: {reason}"
        raise UserError(f"trunk={name} cannot be built: {what}") from error
    if not isinstance(network, nn.Module):
        raise UserError(f"trunk={name}: its factory returns {type(network).__name__}, not a module")
    return network, frozenset(given) - frozenset(kept)


def _timm_network(name: str, given: dict[str, Any]) -> tuple[nn.Module, frozenset[str]]:
    import timm

    # Names alone: timm also takes addresses, and a file may say what its trunk is.
    if not timm.is_model(name.partition(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(TIMM + word for word in near)}?" if near else ""
        raise UserError(
            f"timm {timm.__version__} has no network {name!r}{hint}; timm.list_models() lists all"
        )
    kept, ignored = dict(given), set[str]()
    while True:
        try:
            return timm.create_model(name, num_classes=0, **kept), frozenset(ignored)
        except TypeError as error:
            unknown = _unknown_arguments(str(error)) & set(kept) & set(OPTIONAL)
            if not unknown:
                raise
            ignored |= unknown
            kept = {key: value for key, value in kept.items() if key not in unknown}


def _unknown_arguments(text: str) -> set[str]:
    """The names in ``got an unexpected keyword argument 'img_size'``, and in timm's like it."""
    return set(re.findall(r"'(\w+)'", text.partition("unexpected keyword argument")[2]))
