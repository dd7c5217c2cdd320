"""Rules for small collections: sane everywhere, overridable, explained."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convit_ssl.errors import UserError
from convit_ssl.methods import Choice, scale_to_data, self_supervised
from convit_ssl.methods.scale import Budget, describe

METHODS = [*self_supervised()]


def values(choices: dict[str, Choice]) -> dict[str, object]:
    return {name: choice.value for name, choice in choices.items()}


@given(
    images=st.integers(2, 5_000_000),
    side=st.integers(1, 1024),
    method=st.sampled_from(METHODS),
)
def test_sizes_fit_together(images: int, side: int, method: str) -> None:
    choices = scale_to_data(images, side, method)
    chosen = {name: int(c.value) for name, c in choices.items() if isinstance(c.value, int | float)}
    assert 1 <= chosen["batch_size"] <= images
    assert 0 < chosen["warmup_epochs"] < chosen["epochs"]
    assert chosen["global_crop_size"] % chosen["patch_size"] == 0
    assert chosen["global_crop_size"] <= min(side, 224)
    if side >= 7:
        assert 7 <= chosen["global_crop_size"] // chosen["patch_size"] <= 14
    if method in ("dino", "swav"):
        assert chosen["local_crop_size"] % chosen["patch_size"] == 0
        assert chosen["local_crop_size"] <= chosen["global_crop_size"]
    assert all(choice.reason for choice in choices.values())


def test_the_published_recipe_on_imagenet() -> None:
    chosen = values(scale_to_data(1_281_167, (375, 500), "dino"))
    assert chosen == {
        "epochs": 100,
        "warmup_epochs": 10,
        "batch_size": 512,
        "patch_size": 16,
        "global_crop_size": 224,
        "global_crop_scale": (0.4, 1.0),
        "num_local_crops": 8,
        "local_crop_size": 96,
        "local_crop_scale": (0.05, 0.4),
        "momentum": 0.996,
        "out_dim": 65536,
        "teacher_temperature": 0.04,
    }


@pytest.mark.parametrize("images", [1_437, 4_900, 19_999])
def test_small_collections(images: int) -> None:
    chosen = values(scale_to_data(images, 64))
    assert chosen["out_dim"] == 1024
    assert 0.02 <= float(str(chosen["teacher_temperature"])) <= 0.03
    assert chosen["momentum"] == 0.99
    assert chosen["koleo_weight"] == 0.1
    assert chosen["use_bn"] == 1
    assert values(scale_to_data(20_000, 64))["out_dim"] != 1024


@pytest.mark.parametrize(
    ("side", "patch", "crop", "local"),
    [(8, 1, 8, 3), (28, 4, 28, 12), (32, 4, 32, 12), (64, 8, 64, 24), (96, 8, 96, 40)],
)
def test_small_images(side: int, patch: int, crop: int, local: int) -> None:
    chosen = values(scale_to_data(5_000, side))
    sizes = (chosen["patch_size"], chosen["global_crop_size"], chosen["local_crop_size"])
    assert sizes == (patch, crop, local)


def test_overrides_win_and_what_follows_follows() -> None:
    choices = scale_to_data(4_900, 64, overrides={"patch_size": 4, "momentum": 0.5})
    assert choices["momentum"].value == 0.5
    assert choices["momentum"].reason.startswith("given (the rule says 0.99:")
    assert choices["patch_size"].value == 4
    assert choices["local_crop_size"].value == 28  # 3/7 of 64 in patches of 4
    assert scale_to_data(4_900, 64, overrides={"warmup_epochs": 0.3})["warmup_epochs"].value == 0.3
    assert scale_to_data(4_900, 64, overrides={"epochs": 7})["warmup_epochs"].value == 1


def test_large_collections_take_each_methods_own_length() -> None:
    simclr = values(scale_to_data(1_281_167, 224, "simclr"))
    assert (simclr["epochs"], simclr["warmup_epochs"], simclr["batch_size"]) == (300, 40, 1024)
    shorter = scale_to_data(1_281_167, 224, "simclr", {"epochs": 20})
    assert shorter["warmup_epochs"].value == 2


def test_every_method_gets_its_own_settings() -> None:
    names = {method: set(scale_to_data(4_900, 64, method)) for method in METHODS}
    assert names["moco_v3"] - names["simclr"] == {"momentum"}
    assert names["barlow_twins"] - names["simclr"] == {"out_dim"}
    assert {"num_prototypes", "out_dim", "epsilon"} <= names["swav"]
    assert {"out_dim", "teacher_temperature"} <= names["dino"]


@pytest.mark.parametrize("width", [32, 128, 384, 768])
@pytest.mark.parametrize("images", [300, 4_900, 100_000, 1_281_167])
def test_no_embedding_is_at_right_angles_to_all_prototypes(images: int, width: int) -> None:
    chosen = values(scale_to_data(images, 64, "swav", width=width))
    published = 128
    assert int(str(chosen["num_prototypes"])) > int(str(chosen.get("out_dim", published)))


def test_table_for_the_user() -> None:
    lines = describe(scale_to_data(4_900, 64)).splitlines()
    assert lines[0].split(maxsplit=2) == ["epochs", "200", "4,900 images: under 20,000 images"]
    assert len(lines) == 19


def test_rate_and_head_follow_the_network_and_the_batch() -> None:
    nano = values(scale_to_data(4_900, 64, "simclr", width=128))
    assert (nano["lr"], nano["batch_size"], nano["hidden_dim"]) == (0.004, 128, 512)
    halved = values(scale_to_data(4_900, 64, "simclr", {"batch_size": 64}, width=128))
    assert halved["lr"] == 0.008  # the same rate a step
    wide = values(scale_to_data(4_900, 64, "simclr", width=1024))
    assert (wide["lr"], wide["hidden_dim"]) == (0.0005, 2048)
    assert "lr" not in scale_to_data(200_000, 64, "simclr", width=128)


@pytest.mark.parametrize(
    ("width", "batch", "optimizer"), [(128, 48, "muon"), (128, 47, "adamw"), (432, 128, "adamw")]
)
def test_muon_where_its_products_are_few(width: int, batch: int, optimizer: str) -> None:
    """A step of 2 x batch x 16 tokens, and 12 tokens per channel."""
    overrides: dict[str, Any] = {"batch_size": batch, "patch_size": 8, "global_crop_size": 32}
    choices = scale_to_data(2_000, 32, "simclr", overrides, width=width)
    assert choices["optimizer"].value == optimizer
    assert "optimizer" not in scale_to_data(2_000, 32, "dino", overrides, width=width)
    assert "optimizer" not in scale_to_data(2_000_000, 32, "simclr", overrides, width=width)


@given(images=st.integers(2, 199_999), side=st.integers(1, 512), method=st.sampled_from(METHODS))
def test_a_budget_shortens_and_never_lengthens(images: int, side: int, method: str) -> None:
    plain = values(scale_to_data(images, side, method))
    for epochs in (10, 1_000):
        budget = Budget(epochs, True, "a day")
        short = scale_to_data(images, side, method, budget=budget)
        assert short["epochs"].value == min(epochs, int(str(plain["epochs"])))
        assert ("a day; without that limit" in short["epochs"].reason) == (epochs == 10)
        patch, crop = (int(str(short[name].value)) for name in ("patch_size", "global_crop_size"))
        assert crop % patch == 0
        assert crop <= min(side, 224)
        assert crop // patch >= min(side, 4)
    assert scale_to_data(images, side, method, {"epochs": 3}, budget=budget)["epochs"].value == 3


@pytest.mark.parametrize(
    ("side", "patch"), [(3, 1), (8, 2), (28, 7), (32, 8), (64, 16), (96, 16), (500, 16)]
)
def test_few_tokens_for_processors(side: int, patch: int) -> None:
    choices = scale_to_data(4_900, side, "simclr", budget=Budget(10, True, ""))
    assert choices["patch_size"].value == patch


@pytest.mark.parametrize(
    ("images", "side", "overrides", "message"),
    [
        (1, 64, {}, "found 1 images of 64 pixels"),
        (10, 0, {}, "0 pixels"),
        (100, 64, {"momentumm": 0.9}, "did you mean momentum"),
        (100, 64, {"zzz": 0.9}, "known: epochs"),
        (100, 64, {"patch_size": 0}, "at least 1 pixel"),
        (100, 64, {"patch_size": 2.5}, "whole number"),
    ],
)
def test_what_cannot_be_scaled(
    images: int, side: int, overrides: dict[str, int | float], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        scale_to_data(images, side, overrides=overrides)


@pytest.mark.parametrize("method", ["dino", "simclr", "moco_v3", "swav", "barlow_twins"])
def test_a_batch_without_labels_has_others_to_compare_with(method: str) -> None:
    """Of 60 images, batches of two cost DINO 24 points and SimCLR 4."""
    sizes = {images: scale_to_data(images, 28, method)["batch_size"].value for images in (60, 300)}
    assert sizes == {60: 32, 300: 32}
    few = scale_to_data(25, 28, method)["batch_size"].value
    assert few == 16, "divides over two and four processes"
    assert scale_to_data(2, 28, method)["batch_size"].value == 2


@pytest.mark.parametrize(("images", "batch"), [(10, 8), (100, 16), (1000, 32), (5000, 128)])
def test_a_handful_of_labels_keeps_a_batch_that_teaches(images: int, batch: int) -> None:
    assert scale_to_data(images, 28, "simclr", labels="scratch")["batch_size"].value == batch


@pytest.mark.parametrize(
    ("images", "budget", "plain"),
    [
        (19_999, None, True),
        (20_000, None, False),
        (60_000, Budget(20, True, "a slow machine"), True),
        (60_000, Budget(500, True, "a fast one"), False),
        (1_281_167, None, False),
    ],
)
def test_the_published_recipe_of_labels_is_for_long_runs(
    images: int, budget: Budget | None, plain: bool
) -> None:
    for labels in ("scratch", "fine-tuning"):
        choices = scale_to_data(images, 64, "simclr", budget=budget, labels=labels)
        assert ("rand_augment" in choices) == plain
    assert "mixup" not in scale_to_data(images, 64, "simclr", budget=budget, labels="probe")
    text = describe(scale_to_data(1_000, 64, "simclr", labels="scratch"))
    assert "null" in text and "the published recipe" in text


def test_a_length_that_is_given_decides_about_the_recipe() -> None:
    """A run is not short because a rule would have made it so."""
    budget = Budget(20, True, "a slow machine")
    for epochs, plain in ((300, False), (50, True)):
        given = {"epochs": epochs}
        choices = scale_to_data(60_000, 64, "simclr", given, budget=budget, labels="scratch")
        assert ("mixup" in choices) == plain
