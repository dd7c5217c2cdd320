"""Model cards say what is known, and the code in them runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from convit_ssl.errors import UserError
from convit_ssl.evaluation.results import write_json
from convit_ssl.export import load_trunk
from convit_ssl.export.card import model_card, timm_arguments
from convit_ssl.export.check import Difference
from convit_ssl.export.figures import (
    Figure,
    figures_from_results,
    figures_from_run,
    of_these_weights,
)
from convit_ssl.export.save import describe_weights
from convit_ssl.models import create_model


def test_a_card_says_what_is_known(run_folder: Path) -> None:
    model = load_trunk(run_folder)
    differences = {"timm": [Difference((16, 16), 1e-6, 1.0)]}
    figures = figures_from_run(run_folder / "checkpoints" / "last.torch", model.provenance)
    card = model_card(model, differences, "trunk", "cc-by-4.0", figures)
    front = card.split("---")[1]
    assert "license: cc-by-4.0" in front
    assert "library_name: timm" in front
    for word in ("dino", "digits", "90.0 %", "| epochs | 7 |", "1.0e-06 at 16 x 16 px", "abc"):
        assert word in card, word
    assert model.provenance["fingerprint"] in card
    assert "mean (0.1, 0.2, 0.3)" in card
    assert 'timm.create_model("local-dir:.", pretrained=True)' in card


def test_a_card_has_the_accuracy_of_the_verdict_and_what_it_is_of(run_folder: Path) -> None:
    model = load_trunk(run_folder)
    last = run_folder / "checkpoints" / "last.torch"
    verdict = {"probe": "kNN", "metric": "accuracy", "score": 0.6, "labels": 120}
    result = {"epochs": 7, "verdict": {**verdict, "tested": "30 images"}}
    write_json(result, run_folder / "result.json")
    found, online = figures_from_run(last, model.provenance)
    assert (found.what, found.value) == ("kNN accuracy", "60.0 %")
    assert found.protocol == "120 labels, tested on 30 images"
    assert online.protocol.startswith("while training, ")
    for other in ({"epochs": 6}, {"verdict": {**verdict, "score": 60}}, {"verdict": [1]}):
        write_json({**result, **other}, run_folder / "result.json")
        assert figures_from_run(last, model.provenance) == [online]


def test_a_card_names_the_data_and_not_where_it_lay(run_folder: Path) -> None:
    model = load_trunk(run_folder)
    data = {"name": "folder", "folder": "/home/me/secret", "images": 1200, "digest": "ab12"}
    model.provenance = {**model.provenance, "data": data, "entry": {"data": data}}
    card = model_card(model, {}, "trunk", "mit")
    assert "| data | folder (1,200 images, hash `ab12`) |" in card
    # Ours are always normalised alike, so that the card need not guess.
    assert "minus the mean (0.485, 0.456, 0.406), over the standard deviation (0.229" in card
    assert "unless you know better" not in card
    assert "secret" not in card + json.dumps(describe_weights(model))


def test_a_card_says_why_a_race_took_the_method(run_folder: Path) -> None:
    model = load_trunk(run_folder)
    assert "race" not in model_card(model, {}, "trunk", "mit")
    config = {"derived": {"race": {"reason": "vicreg: 61.2; simclr 55.0"}}}
    model.provenance = {**model.provenance, "entry": {"config": config}}
    assert "| chosen by a race | vicreg: 61.2; simclr 55.0 |" in model_card(
        model, {}, "trunk", "mit"
    )


def test_a_card_of_unknown_weights_invents_nothing() -> None:
    card = model_card(create_model("deit_nano"), {}, "x", "unknown")
    assert "None were recorded" in card
    assert card.count("not recorded") == 5
    assert "ConViT's baseline" in card
    assert "1000 logits" in card


def test_results_keep_their_fingerprints(tmp_path: Path) -> None:
    row = {
        "kind": "linear",
        "name": "trunk",
        "accuracy": 0.913,
        "interval_95": [0.9, 0.92],
        "settings": {"data": "digits"},
        "fingerprint": {"data": "1" * 64, "weights": "2" * 64},
    }
    (tmp_path / "one.json").write_text(json.dumps([row, {**row, "fingerprint": "a" * 64}]))
    first, second = figures_from_results([tmp_path / "one.json"])
    assert first.value == "91.3 % (95 % interval 90.0 - 92.0)"
    assert (first.what, first.where) == ("linear", "digits")
    assert len(first.fingerprint) == 12
    assert second == Figure("linear", first.value, "digits", "a" * 12, "trunk")
    for content in ("{}", "[1]", "no json"):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(UserError, match=r"bad\.json"):
            figures_from_results([tmp_path / "bad.json"])


def test_source_for_timm_builds_the_same_network() -> None:
    import timm

    for name, options in (
        ("convit_nano", {"num_classes": 0}),
        ("convit_tiny", {}),
        ("deit_nano", {"in_chans": 1, "num_classes": 5}),
    ):
        ours = create_model(name, **options)
        theirs = eval(f"timm.create_model({timm_arguments(ours)})", {"timm": timm})
        shapes = {key: value.shape for key, value in theirs.state_dict().items()}
        assert shapes == {key: value.shape for key, value in ours.state_dict().items()}
    assert timm_arguments(create_model("convit_small")) == '"convit_small"'


def test_only_figures_of_these_weights_are_shown(run_folder: Path, tmp_path: Path) -> None:
    model = load_trunk(run_folder)
    mark = model.provenance["fingerprint"]
    row = {"kind": "knn", "accuracy": 0.9, "settings": {"data": "digits", "k": 20, "mask": None}}
    rows = [
        {**row, "name": "raw pixels", "weights": "0" * 64},
        {**row, "name": "untrained network", "accuracy": 0.5, "weights": "1" * 64},
        {**row, "name": "old", "accuracy": 0.4},
        {**row, "name": "mine <b>|", "weights": mark},
    ]
    (tmp_path / "knn.json").write_text(json.dumps({"results": rows}))
    found = figures_from_results([tmp_path / "knn.json"])
    kept, left_out = of_these_weights(found, {mark})
    assert [figure.name for figure in kept] == ["mine <b>|"]
    assert len(left_out) == 3
    assert "untrained network, 50.0 %: of other weights" in left_out[1]
    assert "does not say of which weights" in left_out[2]
    card = model_card(model, {}, "trunk", "mit", kept)
    assert "| knn | mine &lt;b&gt;\\| | 90.0 % | digits | k 20 |" in card
    assert "raw pixels" not in card


def test_online_figures_are_those_of_the_same_epoch_and_weights(run_folder: Path) -> None:
    path = run_folder / "checkpoints" / "last.torch"
    assert figures_from_run(path, load_trunk(run_folder).provenance)
    assert not figures_from_run(path, load_trunk(run_folder, weights="student").provenance)
    assert not figures_from_run(path, {**load_trunk(run_folder).provenance, "epoch": 6})


LICENCES = ["cc-by\n---\nlicense: mit", "a: b", "- x", "[1]", "\x1b[31m", "a | b"]


@pytest.mark.parametrize("text", LICENCES)
def test_a_licence_of_any_text_leaves_the_card_whole(text: str, run_folder: Path) -> None:
    import yaml

    card = model_card(load_trunk(run_folder), {}, "trunk", text)
    front = yaml.safe_load(card.split("---\n")[1])
    assert isinstance(front["license"], str)
    assert front["library_name"] == "convit_ssl"
    assert "\x1b" not in card


@pytest.mark.parametrize("value", [7.5, -0.1, True, "0.9", None, float("nan"), [0.9]])
def test_accuracies_are_shares(value: object, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps([{"kind": "knn", "accuracy": value}]))
    with pytest.raises(UserError, match="is not a number from 0 to 1"):
        figures_from_results([tmp_path / "r.json"])
