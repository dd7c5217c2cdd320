"""``config=convit_auto``: who races, who wins, and what becomes of a race that is interrupted."""

import copy
import dataclasses
import functools
import json
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import convit_ssl.adapters  # noqa: F401
from convit_ssl.engines.auto import choice as auto
from convit_ssl.engines.auto import race as auto_race
from convit_ssl.engines.auto import record as auto_record
from convit_ssl.engines.auto import trial as auto_trial
from convit_ssl.engines.auto.judge import Judge, Score, held_share
from convit_ssl.engines.auto.report import adopt
from convit_ssl.engines.auto.schedule import finalists, timetable, whole_epochs
from convit_ssl.engines.auto.trial import Cost, StoppedTrial
from convit_ssl.engines.checkpoints.files import CHECKPOINTS, checkpoint_name, find_checkpoint
from convit_ssl.engines.launch.command import run_experiment
from convit_ssl.engines.options.compose import Composed, compose_experiment
from convit_ssl.engines.options.plan import make_plan
from convit_ssl.engines.options.write import write_config
from convit_ssl.errors import UserError

DIGITS = "config=convit_auto data=digits run=cpu trunk=convit_nano run.threads=1 optim.epochs=100"
Scores = dict[str, float]


@functools.lru_cache
def _known(words: tuple[str, ...]) -> Composed:
    return compose_experiment(words)


def quick(arguments: Sequence[str]) -> Composed:
    """`compose_experiment`, half a second of YAML read once: only run folders differ."""
    folder = next(word for word in arguments if word.startswith("run.dir=")).partition("=")[2]
    found = _known(tuple(word for word in arguments if not word.startswith("run.dir=")))
    tree = copy.deepcopy(found.tree)
    tree.run.dir = folder
    explicit = found.explicit | {"run.dir"}
    return dataclasses.replace(found, tree=tree, explicit=explicit, arguments=tuple(arguments))


def composed(folder: Path, *more: str, words: str = DIGITS) -> Composed:
    return quick([*shlex.split(words), f"run.dir={folder}", *more])


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[Scores], list[str]]:
    """Trials that take no time; returns the names of those that are trained."""

    def make(scores: Scores) -> list[str]:
        trained: list[str] = []
        monkeypatch.setattr(auto_trial, "compose_experiment", quick)

        def train(race: Any, whole: Any, settings: Any, rows: Any, epochs: int, folder: Any) -> Any:
            name = " ".join((whole.options["method"]["name"], *settings))
            trained.append(f"{name} {epochs}")
            if scores[name] < 0:
                raise UserError("does not fit")
            return name, Cost(6.0, 6.0)

        def score(judge: Judge, plan: Any, network: Any) -> Score:
            right = round(scores[network] * judge.asked)
            hits = np.arange(judge.asked) < right
            return Score(scores[network], hits, np.zeros(judge.asked, int))

        monkeypatch.setattr(auto_race, "train_trial", train)
        monkeypatch.setattr(Judge, "score", score)
        monkeypatch.setattr(Judge, "references", lambda judge, plan: {})
        return trained

    return make


ROUND_TWO = "vicreg crops.global_scale=[0.4,1.0]"


def test_the_best_of_two_rounds_is_taken_with_its_reason(
    tmp_path: Path, fake: Callable[[Scores], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    trained = fake({"vicreg": 0.6, "simclr": 0.5, "lejepa": 0.4, ROUND_TWO: 0.8})
    found = auto.decide(composed(tmp_path), afresh=False)
    assert isinstance(found, Composed)
    assert found.race is not None
    assert [one.rpartition(" ")[0] for one in trained] == [
        "vicreg", "simclr", "lejepa", "vicreg", "simclr", ROUND_TWO
    ]  # fmt: skip
    decision = found.race["decision"]
    assert (decision["method"], decision["settings"]) == (
        "vicreg",
        ["crops.global_scale=[0.4,1.0]"],
    )
    assert "80.0 of 199 images held out of train" in decision["reason"]
    assert "simclr 50.0" in decision["reason"]
    assert "0.1 core-minutes" in decision["reason"]
    assert decision["reason"] in capsys.readouterr().out
    plan = make_plan(found)
    adopt(plan, found.race)
    assert plan.options["crops"]["global_scale"] == [0.4, 1.0]
    assert plan.options["experiment"] == "convit_auto"
    write_config(plan)
    assert decision["reason"] in (tmp_path / "config.yaml").read_text()
    assert json.loads((tmp_path / "race.json").read_text())["decision"] == decision


def test_the_winner_has_the_options_of_the_plain_command(
    tmp_path: Path, fake: Callable[[Scores], list[str]]
) -> None:
    fake({"vicreg": 0.6, "simclr": 0.7, "lejepa": 0.4, "simclr crops.global_scale=[0.4,1.0]": 0.1})
    found = auto.decide(composed(tmp_path), afresh=False)
    assert isinstance(found, Composed)
    plain = composed(tmp_path, words=DIGITS.replace("_auto", "_simclr"))
    one, other = make_plan(found).options, make_plan(plain).options
    assert one.pop("experiment") == "convit_auto"
    other.pop("experiment")
    assert one == other


def test_a_run_that_has_begun_is_not_raced_again(
    tmp_path: Path, fake: Callable[[Scores], list[str]]
) -> None:
    trained = fake({"vicreg": 0.6, "simclr": 0.7, "lejepa": 0.4, ROUND_TWO: 0.1,
                    "simclr crops.global_scale=[0.4,1.0]": 0.1})  # fmt: skip
    first = auto.decide(composed(tmp_path), afresh=False)
    assert isinstance(first, Composed)
    count = len(trained)
    again = auto.decide(composed(tmp_path), afresh=False)
    assert isinstance(again, Composed)
    assert again.race == first.race
    plan = make_plan(first)
    assert first.race is not None
    adopt(plan, first.race)
    write_config(plan)
    (tmp_path / CHECKPOINTS).mkdir()
    (tmp_path / CHECKPOINTS / checkpoint_name(1, 0)).touch()
    (tmp_path / "race.json").unlink()  # the configuration has the decision, too
    lost = auto.decide(composed(tmp_path), afresh=False)
    assert isinstance(lost, Composed)
    assert lost.tree.method.name == "simclr"
    assert len(trained) == count
    (tmp_path / "config.yaml").unlink()
    shutil.rmtree(tmp_path / "race")  # as the launch does
    with pytest.raises(UserError, match="whose race"):
        auto.decide(composed(tmp_path), afresh=False)


def test_other_options_race_anew_before_the_run_has_begun(
    tmp_path: Path, fake: Callable[[Scores], list[str]]
) -> None:
    scores = {"vicreg": 0.6, "simclr": 0.5, "lejepa": 0.4, ROUND_TWO: 0.1}
    trained = fake(scores)
    auto.decide(composed(tmp_path), afresh=False)
    count = len(trained)
    auto.decide(composed(tmp_path, "seed=1"), afresh=False)
    assert len(trained) == 2 * count
    auto.decide(composed(tmp_path, "seed=1"), afresh=True)
    assert len(trained) == 3 * count


def test_a_stopped_race_keeps_its_trials(
    tmp_path: Path, fake: Callable[[Scores], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = fake({"vicreg": 0.6, "simclr": 0.5, "lejepa": 0.4, ROUND_TWO: 0.1})
    ordinary = auto_race.train_trial

    def stopped(*arguments: Any) -> Any:
        if len(trained) == 2:
            raise StoppedTrial(143)
        return ordinary(*arguments)

    monkeypatch.setattr(auto_race, "train_trial", stopped)
    assert auto.decide(composed(tmp_path), afresh=False) == 143
    assert len(trained) == 2
    monkeypatch.setattr(auto_race, "train_trial", ordinary)
    assert isinstance(auto.decide(composed(tmp_path), afresh=False), Composed)
    assert len(trained) == 6  # none of them twice


def test_a_candidate_that_ends_the_process_twice_is_left_out(
    tmp_path: Path, fake: Callable[[Scores], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """As by SIGKILL: nothing is written any more."""

    fake({"simclr": 0.5, "vicreg": 0.4, "simclr crops.global_scale=[0.4,1.0]": 0.1})
    ordinary = auto_race.train_trial

    def killed(race: Any, whole: Any, *others: Any) -> Any:
        if whole.options["method"]["name"] == "vicreg":
            raise Killed
        return ordinary(race, whole, *others)

    monkeypatch.setattr(auto_race, "train_trial", killed)
    words = composed(tmp_path, "auto.methods=[vicreg,simclr]")
    for _ in range(2):
        with pytest.raises(Killed):
            auto.decide(words, afresh=False)
    found = auto.decide(words, afresh=False)
    assert isinstance(found, Composed)
    assert found.tree.method.name == "simclr"


def test_a_candidate_that_cannot_be_trained_is_left_out(
    tmp_path: Path, fake: Callable[[Scores], list[str]]
) -> None:
    fake({"vicreg": -1, "simclr": 0.5, "lejepa": 0.4, "simclr crops.global_scale=[0.4,1.0]": 0.1})
    found = auto.decide(composed(tmp_path), afresh=False)
    assert isinstance(found, Composed)
    assert found.race is not None
    assert found.race["decision"]["method"] == "simclr"
    assert found.race["trials"][0]["problem"] == "does not fit"
    fake(dict.fromkeys(("vicreg", "simclr", "lejepa"), -1))
    with pytest.raises(UserError, match="does not fit"):
        auto.decide(composed(tmp_path / "other"), afresh=False)


def folder_of(root: Path, images: int, classes: int) -> Path:
    generator = np.random.default_rng(0)
    for number in range(images):
        place = root / "train" / f"class{number % classes}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 255, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{number:03d}.png")
    return root


def test_few_images_are_not_raced(tmp_path: Path, fake: Callable[[Scores], list[str]]) -> None:
    trained = fake({})
    words = f"config=convit_auto data=folder data_dir={folder_of(tmp_path / 'im', 32, 2)} run=cpu"
    found = auto.decide(
        composed(
            tmp_path / "run", "trunk=convit_nano", "auto.methods=[simclr,vicreg]", words=words
        ),
        afresh=False,
    )
    assert isinstance(found, Composed)
    assert found.race is not None
    assert found.tree.method.name == "simclr"
    assert "32 images are too few" in found.race["decision"]["reason"]
    assert not trained


def test_one_class_is_judged_without_labels(tmp_path: Path) -> None:
    words = f"config=convit_auto data=folder data_dir={folder_of(tmp_path / 'im', 60, 1)} run=cpu"
    plan = make_plan(composed(tmp_path / "run", "trunk=convit_nano", words=words))
    judge = Judge(plan, "auto")
    assert judge.by == "retrieval"
    assert "one class" in judge.why
    assert len(judge.held) == 30
    assert not set(judge.held) & set(judge.learned)
    with pytest.raises(UserError, match="one class"):
        Judge(plan, "labels")
    scores = judge.references(plan)
    assert set(scores) == {"raw pixels", "untrained network"}
    assert all(0 <= one.value <= 1 for one in scores.values())


def test_labels_judge_images_that_no_trial_learned_from(tmp_path: Path) -> None:
    plan = make_plan(composed(tmp_path))
    judge = Judge(plan, "auto")
    assert judge.by == "labels"
    assert len(judge.held) + len(judge.learned) == 1000
    assert judge.references(plan)["raw pixels"].value > 0.9
    assert Judge(plan, "retrieval").by == "retrieval"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("config=convit_auto method.temperature=0.2", "method.temperature"),
        ("config=convit_auto teacher=timm:resnet18", "teacher"),
        ("config=convit_auto method=simclr", "auto.methods"),
        ("config=convit_auto auto.methods=[simclr,simcrl]", "did you mean 'simclr'"),
        ("config=convit_auto auto.methods=[supervised]", "unknown method 'supervised'"),
        ("config=convit_auto auto.methods=[]", "empty"),
        ("config=convit_dino auto.share=0.1", "config=convit_auto"),
    ],
)
def test_what_does_not_go_with_a_race_is_refused(words: str, named: str) -> None:
    with pytest.raises(UserError) as caught:
        compose_experiment([*words.split(), "data=digits"])
    assert named in str(caught.value)


def test_several_processes_that_start_at_once_wait_for_the_first(
    tmp_path: Path, fake: Callable[[Scores], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = fake({"vicreg": 0.6, "simclr": 0.5, "lejepa": 0.4, ROUND_TWO: 0.1})
    words = composed(tmp_path)
    auto.decide(words, afresh=False)
    race = auto_record.decided(tmp_path)
    answers = iter([None, None, race])
    monkeypatch.setattr(auto, "_place", lambda composed: (1, "torchrun"))
    monkeypatch.setattr(auto, "POLL", 0.0)
    monkeypatch.setattr(auto_record, "decided", lambda folder: next(answers))
    count = len(trained)
    found = auto.decide(words, afresh=False)
    assert isinstance(found, Composed)
    assert found.race == race
    assert len(trained) == count
    with pytest.raises(UserError, match="torchrun"):
        auto.decide(words, afresh=True)


def test_a_run_of_another_experiment_is_left_to_the_launch(
    tmp_path: Path, fake: Callable[[Scores], list[str]]
) -> None:
    trained = fake({})
    write_config(make_plan(composed(tmp_path, words=DIGITS.replace("_auto", "_simclr"))))
    (tmp_path / CHECKPOINTS).mkdir()
    (tmp_path / CHECKPOINTS / checkpoint_name(1, 0)).touch()
    found = auto.decide(composed(tmp_path), afresh=False)
    assert isinstance(found, Composed)
    assert found.race is None and not trained


def test_a_job_is_submitted_before_the_race_and_resumes_what_it_chose(
    tmp_path: Path, fake: Callable[[Scores], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = fake({"vicreg": 0.5, "simclr": 0.6, "lejepa": 0.4,
                    "simclr crops.global_scale=[0.4,1.0]": 0.1})  # fmt: skip
    with monkeypatch.context() as cluster:
        cluster.setattr(auto, "_place", lambda composed: (0, "slurm"))
        found = auto.decide(composed(tmp_path), afresh=False)
        assert isinstance(found, Composed)
        assert found.auto and found.race is None and not trained
    auto.decide(composed(tmp_path), afresh=False)  # the first process of the job
    monkeypatch.setattr(auto, "_place", lambda composed: (0, "slurm"))
    again = auto.decide(composed(tmp_path), afresh=False)
    assert isinstance(again, Composed)
    assert again.tree.method.name == "simclr"


def test_a_timetable_keeps_to_its_share() -> None:
    full = timetable(3, 400, 1000, 800, 0.25)
    assert full is not None
    assert (full.methods, full.finalists, full.left_out) == (3, 4, "")
    spent = 3 * full.epochs(400, 1000, 800, False) + 4 * full.epochs(400, 1000, 800, True)
    assert spent * 800 <= 0.26 * 400 * 1000
    short = timetable(3, 20, 1000, 800, 0.25)
    assert short is not None
    assert (short.methods, short.finalists) == (3, 0)
    assert "crops and patches" in short.left_out
    assert timetable(3, 4, 1000, 800, 0.25) is None
    assert timetable(3, 400, 1000, 800, 0.25, seconds=10.0) is None
    assert timetable(1, 400, 1000, 800, 0.25, settings=False) is None
    alone = timetable(1, 400, 1000, 800, 0.25)
    assert alone is not None
    assert (alone.methods, alone.finalists) == (0, 3)
    assert whole_epochs(0.02, 100, 1_000_000, 20_000) == 100


def test_settings_that_were_given_are_not_raced(tmp_path: Path) -> None:
    words = DIGITS.replace(" optim.epochs=100", "")
    options = make_plan(composed(tmp_path, words=words)).settings
    free = [one.name for one in finalists(["vicreg", "simclr"], options, frozenset(), 4)]
    assert free == ["vicreg", "simclr", ROUND_TWO, "vicreg trunk.patch_size=1"]
    given = frozenset({"crops.global_scale", "optim.epochs"})
    assert [one.name for one in finalists(["vicreg", "simclr"], options, given, 4)] == free[:2]
    assert finalists(["vicreg"], options, given, 4) == []


def test_small_collections_hold_out_half() -> None:
    assert [held_share(images) for images in (60, 240, 1000, 5000)] == [0.5, 0.5, 0.2, 0.2]


@pytest.mark.slow
def test_the_winners_run_is_that_of_the_plain_command_bit_by_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto_race, "planned_seconds", lambda plan: None)  # it is a short one
    images = folder_of(tmp_path / "im", 96, 3)
    words = (
        f"config=convit_auto data=folder data_dir={images} run=cpu trunk=convit_nano "
        "run.threads=1 data.workers=0 optim.epochs=8 auto.share=1 auto.methods=[simclr,lejepa] "
        "auto.settings=false run.tensorboard=false"
    ).split()
    raced, plain = tmp_path / "raced", tmp_path / "plain"
    assert run_experiment([*words, f"run.dir={raced}"]) == 0
    race = json.loads((raced / "race.json").read_text())
    assert len(race["trials"]) == 4
    assert not (raced / "race").exists()
    assert json.loads((raced / "result.json").read_text())["race"] == race["decision"]
    command = [word for word in race["command"][2:] if not word.startswith("run.dir=")]
    assert run_experiment([*command, f"run.dir={plain}"]) == 0
    weights = []
    for folder in (raced, plain):
        found = find_checkpoint(folder / CHECKPOINTS)
        assert found is not None
        state = torch.load(found.path, weights_only=True)
        weights.append(state["classy_state_dict"]["base_model"]["model"]["trunk"])
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
