"""What the configuration refuses, and in which words."""

from __future__ import annotations

import re

import pytest

from convit_ssl.models import ConViTConfig, create_config, create_model

REFUSED = [
    ({"patch_size": 0}, "patch_size=0 must be at least 1"),
    ({"num_classes": -1}, "num_classes=-1 must be at least 0"),
    ({"depth": 0, "num_gpsa_layers": 0}, "depth=0 must be at least 1"),
    ({"img_size": 225}, "image height 225 is not a multiple of patch_size=16; use 224 or 240"),
    ({"img_size": (224, 100)}, "image width 100 is not a multiple of patch_size=16; use 96 or 112"),
    ({"img_size": 7}, "image height 7 is not a multiple of patch_size=16; use 16 or 32"),
    ({"embed_dim": 100}, "embed_dim=100 is not divisible by num_heads=9; use 99"),
    (
        {"num_heads": 6},
        "num_heads=6 is not a square, and local_init places the heads on a square kernel; "
        "use 4 or 9 heads, or local_init=False",
    ),
    ({"num_gpsa_layers": 13}, "num_gpsa_layers=13 must lie between 0 and depth=12"),
    ({"num_gpsa_layers": -1}, "num_gpsa_layers=-1 must lie between 0 and depth=12"),
    (
        {"num_gpsa_layers": 12},
        "num_gpsa_layers=12 equals depth, so the class token, which joins after the last GPSA "
        "layer, would attend to nothing; use at most 11, or global_pool='avg'",
    ),
    ({"global_pool": "max"}, "global_pool='max' must be 'token' or 'avg'"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_refused_with_the_value_and_the_way_out(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ConViTConfig(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"num_heads": 6, "local_init": False},
        {"num_heads": 6, "num_gpsa_layers": 0},
        {"num_gpsa_layers": 12, "global_pool": "avg"},
        {"img_size": (224, 96)},
    ],
)
def test_what_those_messages_advise_is_accepted(options: dict[str, object]) -> None:
    ConViTConfig(**options)  # type: ignore[arg-type]


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'convit_small'"):
        create_model("convit_smal")
    with pytest.raises(ValueError, match="did you mean 'embed_dim'"):
        create_config("convit_tiny", embeddim=64)


def test_overrides_reach_the_configuration() -> None:
    config = create_config("convit_small", img_size=96, num_classes=0, locality_strength=0.5)
    assert (config.img_size, config.num_classes, config.locality_strength) == (96, 0, 0.5)
    assert (config.embed_dim, config.num_heads) == (432, 9)
