"""Every option says what it means and what it may be, and all lists of options agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from convit_ssl.cli.main import run_command
from convit_ssl.engines.options import describe
from convit_ssl.engines.options.compose import compose_experiment
from convit_ssl.engines.options.ranges import check_values
from convit_ssl.errors import UserError
from convit_ssl.methods import METHODS
from convit_ssl.options import Described, described, undescribed
from convit_ssl.schema import Experiment

PAGE = Path(__file__).parents[4] / "docs" / "OPTIONS.md"
OPTIONS = describe.all_options()
# Numbers that are ratios, weights or momenta, and have no unit.
PLAIN = {
    "betas", "center_momentum", "ema", "epsilon", "mlp_ratio", "momentum",
    "momentum_end", "pos_embed_std", "prototypes", "seed", "smoothing", "student_temperature",
    "teacher_temperature", "temperature", "warmup_teacher_temperature", "weight_decay",
    "weight_decay_end", "patch_temperature", "warmup_patch_temperature",
    "channels",  # their numbers in a file
    "physical", "pixel_size",  # lengths, given with their unit
}  # fmt: skip


def ids(found: Described) -> str:
    return f"{found.method or ''} {found.key}"


def test_no_field_lacks_a_description() -> None:
    kinds = [Experiment, *(method.Options for method in METHODS.values())]
    kinds += [type(getattr(Experiment(), name)) for name in ("data", "trunk", "crops", "optim")]
    kinds += [type(getattr(Experiment(), name)) for name in ("augmentation", "run", "watch")]
    assert {kind.__name__: undescribed(kind) for kind in kinds if undescribed(kind)} == {}
    assert len(OPTIONS) > 130


@pytest.mark.parametrize("found", OPTIONS, ids=ids)
def test_an_option_has_a_sentence_a_range_and_a_unit(found: Described) -> None:
    assert found.option.says.endswith((".", ")."))
    assert found.range
    number = any(kind in found.type for kind in ("int", "float"))
    if number:
        assert found.option.bounds or found.option.form
        assert found.option.unit or found.key.rpartition(".")[2] in PLAIN


@pytest.mark.parametrize("found", OPTIONS, ids=ids)
def test_the_default_lies_in_the_range(found: Described) -> None:
    values = found.default if isinstance(found.default, list) else [found.default]
    for value in values:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            assert found.option.allows(value)
        elif found.option.choices and not (value is None and "None" in found.type):
            assert value in found.option.choices


def test_no_option_is_of_any_type() -> None:
    """What OmegaConf cannot check has a type for type checkers and for the page."""
    assert not [found.key for found in OPTIONS if "Any" in found.type]


def test_the_page_is_what_the_command_writes() -> None:
    advice = "convit-ssl options --markdown > docs/OPTIONS.md"
    assert PAGE.read_text(encoding="utf-8") == describe.as_markdown(OPTIONS), advice


def test_a_prefix_a_method_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("options", ["optim.l", "--json"]) == 0
    keys = [entry["key"] for entry in json.loads(capsys.readouterr().out)]
    assert keys == ["optim.lr", "optim.layer_decay"]
    assert run_command("options", ["swav"]) == 0
    shown = capsys.readouterr().out
    assert "method.prototypes = 3000" in shown
    assert "koleo" not in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_an_unknown_prefix_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("options", ["optm.lr"]) == 2
    assert "optim.lr" in capsys.readouterr().err


def test_sections_are_walked_in_order() -> None:
    keys = [found.key for found in described(Experiment)]
    assert keys.index("data.name") < keys.index("trunk.variant") < keys.index("optim.name")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("augmentation.hue=0.7", "augmentation.hue=0.7: give from 0 to 0.5"),
        ("augmentation.blur=[0.5]", "augmentation.blur=.* give a number, or a list"),
        ("augmentation.blur=often", "augmentation.blur=often: give a number"),
        ("augmentation.jitter=[0.1,1.5]", r"augmentation.jitter=\[0.1,1.5\]: give from 0 to 1"),
        ("augmentation.blur_sigma=[2]", "augmentation.blur_sigma=.*smallest, largest"),
        ("crops.global_scale=[0.9,0.1]", "crops.global_scale=.*smallest, largest"),
        ("crops.local_scale=[0,0.1]", "crops.local_scale=.*more than 0"),
        ("optim.betas=[0.9]", "optim.betas=.*beta1, beta2"),
        ("optim.clip_mode=each", "optim.clip_mode='each': use parameter or global"),
        ("optim.lr=-1", "optim.lr=-1.0: give 0 or more"),
        ("method.teacher_temperature=0", "method.teacher_temperature=0.0: give more than 0"),
        ("trunk.global_pool=max", "trunk.global_pool='max': use token or avg"),
    ],
)
def test_values_outside_the_range_are_refused(given: str, words: str) -> None:
    tree = compose_experiment(["config=convit_dino", "data=digits", given]).tree
    with pytest.raises(UserError, match=words):
        check_values(tree)


def test_strengths_and_lists_pass_from_the_command_line() -> None:
    given = ["augmentation.hue=0", "augmentation.saturation=0.2", "augmentation.blur=[1,0.1,0.5]"]
    tree = compose_experiment(["config=convit_dino", "data=digits", *given]).tree
    check_values(tree)
    assert list(tree.augmentation.blur) == [1, 0.1, 0.5]
