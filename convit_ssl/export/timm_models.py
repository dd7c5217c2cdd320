"""Our variants under names of their own in timm's registry.

``import convit_ssl.export.timm_models`` is enough; after it,
``timm.create_model("convit_ssl_small", features_only=True)`` and all else that timm does with
its own models works with ours: any image size that the patch divides, one-channel images,
feature maps, layer-wise learning rates. timm's ``convit_small`` is another, slower class.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import (
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
    register_notrace_function,
    register_notrace_module,
)
from torch import Tensor, nn

from convit_ssl.errors import UserError
from convit_ssl.export.grid import square_side
from convit_ssl.export.keys import has_gpsa, to_official, without_class_position
from convit_ssl.export.layouts import choose, find_trunks
from convit_ssl.export.load import resample_positions
from convit_ssl.models import GPSA, VARIANTS, ConViT, ConViTConfig
from convit_ssl.models.attention import SelfAttention

# Models that are made by name alone; register_model adds them.
__all__ = ["TimmConViT"]

_POOLS = ("", "token", "avg")
# torch.fx takes these as they are: inside, they unpack tensors and choose by shape.
register_notrace_module(GPSA)
register_notrace_module(SelfAttention)


class TimmConViT(ConViT):
    """A ConViT with timm's interface on top.

    `forward_intermediates` follows timm here. The project's own, which can also return gates
    and attention, is that of `trunk`.

    Args:
        config: sizes and options.
        global_pool: "token", "avg", or "" to return all tokens.
    """

    def __init__(self, config: ConViTConfig, global_pool: str = "token") -> None:
        super().__init__(config)
        self.global_pool = _checked_pool(global_pool)
        self.in_chans = config.in_chans
        self.num_prefix_tokens = 1
        self.feature_info = [
            {"num_chs": config.embed_dim, "reduction": config.patch_size, "module": f"blocks.{i}"}
            for i in range(config.depth)
        ]

    @property
    def trunk(self) -> ConViT:
        """The same network, weights shared, without timm's interface."""
        plain = ConViT.__new__(ConViT)
        plain.__dict__ = self.__dict__
        return plain

    # torch.fx looks for functions it must not enter in the module that defines this method.
    def forward(self, x: Tensor) -> Tensor:
        """Logits, or features when num_classes is 0."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor, keep: Tensor | None = None) -> Any:
        """Normalised tokens, the class token first; see `ConViT.forward_features`."""
        if _is_traced(x):
            return self._traceable_features(x)
        return super().forward_features(x, keep)

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool, and classify unless `pre_logits`."""
        if self.global_pool == "avg":
            tokens = tokens[:, self.num_prefix_tokens :].mean(dim=1)
        elif self.global_pool == "token":
            tokens = tokens[:, 0]
        tokens = self.head_drop(tokens)
        return tokens if pre_logits else self.head(tokens)

    def forward_intermediates(  # type: ignore[override]  # timm's interface, by design
        self,
        x: Tensor,
        indices: int | list[int] | tuple[int, ...] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Patch tokens of chosen blocks, by timm's interface.

        Args:
            x: images.
            indices: the last n blocks if a number, all if None, else these blocks.
            norm: apply the final LayerNorm to each.
            stop_early: leave out the blocks behind the last one asked for.
            output_fmt: "NCHW" for maps, "NLC" for tokens.
            intermediates_only: leave out the final tokens.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt={output_fmt!r} must be 'NCHW' or 'NLC'")
        take = _take_indices(len(self.blocks), indices)
        network = self._first_blocks(max(take) + 1) if stop_early else self.trunk
        final, inside = network.forward_intermediates(x)
        height, width = self.grid_size(*x.shape[-2:])
        features = []
        for index in take:
            tokens = self.norm(inside.tokens[index]) if norm else inside.tokens[index]
            tokens = tokens[:, tokens.shape[1] - height * width :]
            if output_fmt == "NCHW":
                tokens = tokens.transpose(1, 2).unflatten(2, (height, width)).contiguous()
            features.append(tokens)
        return features if intermediates_only else (final, features)

    def get_intermediate_layers(self, *args: Any, **kwargs: Any) -> Any:
        """As `ConViT.get_intermediate_layers`."""
        return self.trunk.get_intermediate_layers(*args, **kwargs)

    def prune_intermediate_layers(
        self,
        indices: int | list[int] | tuple[int, ...] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Drop what the chosen blocks do not need; returns their indices."""
        take = _take_indices(len(self.blocks), indices)
        self.blocks = self.blocks[: max(take) + 1]
        if max(take) < self.config.num_gpsa_layers:  # the class token would join later
            self.cls_token = None  # type: ignore[assignment]
            self.num_prefix_tokens = 0
            prune_head = prune_head or self.global_pool == "token"
        if prune_norm:
            self.norm = nn.Identity()  # type: ignore[assignment]
        if prune_head:
            self.reset_classifier(0, "")
        return take

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier; 0 classes leaves features."""
        if global_pool is not None:
            self.global_pool = _checked_pool(global_pool)
        self.num_classes = num_classes
        self.config = dataclasses.replace(self.config, num_classes=num_classes)
        like = self.patch_embed.proj.weight
        self.head = self._classifier(num_classes).to(like.device, like.dtype).train(self.training)

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay, besides biases and norms."""
        gates = {name for name, _ in self.named_parameters() if name.endswith("gating_param")}
        return {"pos_embed", "cls_token"} | gates

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which layer a parameter belongs to, for layer-wise learning rates."""
        return {
            "stem": r"^cls_token|pos_embed|patch_embed",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        }

    def _first_blocks(self, number: int) -> ConViT:
        network = copy.copy(self.trunk)
        network._modules = {**self._modules, "blocks": self.blocks[:number]}
        return network

    def _traceable_features(self, x: Tensor) -> Any:
        """`ConViT.forward_features` for torch.fx, which cannot follow a choice by shape."""
        grid = grid_of(x, self.config)
        tokens = self.patch_embed(x)
        if self.pos_embed is not None:
            tokens = tokens + positions_for(self.pos_embed, self.config, grid)
        for index, block in enumerate(self.blocks):
            if index == self.config.num_gpsa_layers and self.cls_token is not None:
                tokens = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), tokens], dim=1)
            tokens = block(tokens, grid)
        return self.norm(tokens)


def _is_traced(x: object) -> bool:
    return isinstance(x, torch.fx.Proxy)


def _take_indices(depth: int, indices: int | list[int] | tuple[int, ...] | None) -> list[int]:
    """Block indices: the last n for a number, all for None, negative ones counted from the end.

    Raises:
        ValueError: a block that is not there.
    """
    if indices is None:
        return list(range(depth))
    wanted = list(range(depth - indices, depth)) if isinstance(indices, int) else list(indices)
    too_many = isinstance(indices, int) and indices > depth
    if not wanted or too_many or not all(-depth <= index < depth for index in wanted):
        raise ValueError(f"indices={indices!r}: there are {depth} blocks, 0 to {depth - 1}")
    return [index % depth for index in wanted]


@register_notrace_function  # type: ignore[untyped-decorator]
def grid_of(x: Tensor, config: ConViTConfig) -> tuple[int, int]:
    """Rows and columns of patches. Public by name: torch.fx enters functions that are not."""
    return config.grid_size(x.shape[-2], x.shape[-1])


@register_notrace_function  # type: ignore[untyped-decorator]
def positions_for(pos_embed: Tensor, config: ConViTConfig, grid: tuple[int, int]) -> Tensor:
    """The position embeddings for a grid."""
    return resample_positions(pos_embed, config.grid_size(*config.image_shape), grid)


def checkpoint_filter_fn(state_dict: dict[str, Any], model: TimmConViT) -> dict[str, Tensor]:
    """What timm calls on a file of weights: any layout to ours, positions to the model's grid."""
    trunk = choose(find_trunks(state_dict, "the checkpoint"), "teacher", "the checkpoint")
    tensors = to_official(trunk.tensors)
    if model.pos_embed is None or "pos_embed" not in tensors:
        return tensors  # timm names what is missing or left over
    grid = model.grid_size(*model.config.image_shape)
    count, own = tensors["pos_embed"].shape[1], grid[0] * grid[1]
    plain = not has_gpsa(tensors)
    if plain and (count == own + 1 or (count != own and square_side(count) is None)):
        tensors = without_class_position(tensors)
        count -= 1
    if count == own:  # made for this grid, be it a square or not
        return tensors
    side = square_side(count)
    if side is None:
        raise UserError(
            f"{count} position embeddings do not form a square, and the model's grid of "
            f"{grid[0]} x {grid[1]} has {own}; create the model with the img_size that "
            "they were made for"
        )
    tensors["pos_embed"] = resample_positions(tensors["pos_embed"], (side, side), grid)
    return tensors


def _checked_pool(global_pool: str) -> str:
    if global_pool not in _POOLS:
        raise ValueError(
            f"global_pool={global_pool!r} must be one of {', '.join(map(repr, _POOLS))}"
        )
    return global_pool


def _build(name: str, device: Any = None, dtype: Any = None, **options: Any) -> TimmConViT:
    pool = options.pop("global_pool", VARIANTS[name].global_pool)
    if isinstance(options.get("img_size"), list):  # from JSON
        options["img_size"] = tuple(options["img_size"])
    unknown = sorted(set(options) - {field.name for field in dataclasses.fields(ConViTConfig)})
    if unknown:
        raise TypeError(f"{name} has no option {', '.join(unknown)}")
    # timm's convention: an empty pool returns tokens, which is no matter of the configuration.
    config = dataclasses.replace(VARIANTS[name], **options, global_pool=pool or "token")
    return TimmConViT(config, pool).to(device=device, dtype=dtype)


def _entrypoint(variant: str) -> Any:
    name = timm_name(variant)

    def create(pretrained: bool = False, **options: Any) -> nn.Module:
        out_indices = options.pop("out_indices", 3)
        model: nn.Module = build_model_with_cfg(
            lambda **given: _build(variant, **given),
            name,
            pretrained,
            pretrained_filter_fn=checkpoint_filter_fn,
            feature_cfg={"out_indices": out_indices, "feature_cls": "getter"},
            **options,
        )
        return model

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"`convit_ssl.models.{variant}` with timm's interface."
    return create


def timm_name(variant: str) -> str:
    """convit_small -> convit_ssl_small, deit_small -> convit_ssl_deit_small."""
    return f"convit_ssl_{variant.removeprefix('convit_')}"


def _default_cfg(config: ConViTConfig) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": config.num_classes,
        "input_size": (config.in_chans, *config.image_shape),
        "pool_size": None,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "fixed_input_size": False,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }


default_cfgs = generate_default_cfgs(
    {timm_name(variant): _default_cfg(config) for variant, config in VARIANTS.items()}
)
for _variant in VARIANTS:
    globals()[timm_name(_variant)] = register_model(_entrypoint(_variant))
