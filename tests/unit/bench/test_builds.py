"""``bench builds``: what is trained by which build, how it is timed, what the table says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from convit_ssl.bench import builds
from convit_ssl.cli.main import main
from convit_ssl.engines.options.compose import compose_experiment
from convit_ssl.errors import UserError

SETTING = builds.Setting("simclr", "folder", "birds", "convit_nano", ("crops.global_size=32",))


def test_both_builds_get_the_same_words() -> None:
    assert SETTING.words() == [
        "config=convit_simclr", "data=folder", "run=cpu", "trunk=convit_nano", "run.threads=1",
        "data.workers=0", "data_dir=birds", "crops.global_size=32",
    ]  # fmt: skip


def test_a_run_has_options_that_there_are(tmp_path: Path) -> None:
    tree = compose_experiment(SETTING.run(3, 7, tmp_path)).tree
    assert (tree.optim.epochs, tree.seed, tree.run.dir) == (3, 7, str(tmp_path))
    assert (tree.run.threads, tree.data.workers, tree.data_dir) == (1, 0, "birds")


def test_options_of_today_alone_are_not_the_earlier_builds(tmp_path: Path) -> None:
    setting = builds.Setting("simclr", "textures", None, "convit_nano", (), ("optim=muon",))
    assert "optim=muon" in setting.run(3, 7, tmp_path)
    assert "optim=muon" not in setting.run(3, 7, tmp_path, earlier=True)


def test_comparisons_of_other_seeds_are_joined() -> None:
    def of(seed: int, **more: Any) -> dict[str, Any]:
        runs = [{"seed": seed, "core_seconds": 1.0, "knn": 0.5}]
        rows = [{"arm": arm, "epochs": 3, "runs": runs} for arm in (builds.EARLIER, builds.TODAY)]
        equal = {"training": SETTING.words(), "against": "0123456789", "epochs": 3}
        return {**equal, "seeds": [seed], "rows": rows, **more}

    other = of(2, today_set=["optim=muon"])
    first, second = builds.joined([of(0), other, of(1)])
    assert first["seeds"] == [0, 1] and second == other
    assert [run["seed"] for run in first["rows"][1]["runs"]] == [0, 1]
    assert "today with optim=muon" in builds.table(second)[0]


def test_each_arm_imports_its_own_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(builds.SWITCH, raising=False)
    first = builds.Arm(builds.EARLIER, tmp_path, 10)
    earlier, *today, without = builds.arms(first, [5, 10], without_onednn=True)
    assert [arm.epochs for arm in (earlier, *today, without)] == [10, 5, 10, 10]
    assert builds.arms(first, [5, 10]) == [earlier, *today]
    assert builds._environment(earlier)["PYTHONPATH"] == str(tmp_path)
    assert builds._environment(today[0])["PYTHONPATH"] == str(builds.ROOT)
    assert builds._environment(without)[builds.SWITCH] == "0"
    assert builds.SWITCH not in builds._environment(today[0])


def test_processor_time_of_children_counts(tmp_path: Path) -> None:
    busy = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    parent = (
        f"import subprocess, sys; print('said'); subprocess.run([sys.executable, '-c', {busy!r}])"
    )
    log = tmp_path / "log"
    code, spent, seconds = builds.run_timed([sys.executable, "-c", parent], {}, log)
    assert code == 0 and spent >= 0.2 and seconds >= 0.2
    assert log.read_text() == "said\n"
    code, spent, _ = builds.run_timed([sys.executable, "-c", "raise SystemExit(3)"], {}, log)
    assert code == 3 and spent < 0.2


def test_what_a_build_refuses_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(line: Any, environment: Any, log: Path) -> tuple[int, float, float]:
        log.write_text("error: data=openclipart does not exist")
        return 2, 0.1, 0.1

    monkeypatch.setattr(builds, "run_timed", refused)
    arm = builds.Arm(builds.EARLIER, tmp_path, 1)
    with pytest.raises(UserError, match="exit code 2: error: data=openclipart does not exist"):
        builds._train(arm, SETTING, 0, tmp_path / "run")


def test_another_source_than_the_commit_is_refused(tmp_path: Path) -> None:
    arm = builds.Arm(builds.EARLIER, tmp_path, 1)
    builds._check_source(arm, "0123456789", "0123456789")
    builds._check_source(builds.Arm(builds.TODAY, tmp_path, 1), "fedcba", "0123456789")
    with pytest.raises(UserError, match="ran fedcba instead of 0123456789"):
        builds._check_source(arm, "fedcba", "0123456789")


@pytest.mark.skipif(not (builds.ROOT / ".git").exists(), reason="needs a git checkout")
def test_a_commit_is_checked_out_beside(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no such commit"):
        builds.check_out("no-such-commit", tmp_path / "none")
    commit = builds.check_out("HEAD", tmp_path / "source")
    assert (tmp_path / "source" / "convit_ssl" / "__init__.py").is_file()
    head = ["git", "-C", str(tmp_path / "source"), "rev-parse", "HEAD"]
    assert subprocess.run(head, capture_output=True, text=True).stdout.strip() == commit


def test_no_checkout_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(builds, "ROOT", tmp_path)
    with pytest.raises(UserError, match="is not a git checkout"):
        builds.check_out("HEAD", tmp_path / "source")


def test_shares_and_differences_are_paired_by_seed() -> None:
    def row(arm: str, epochs: int, *runs: tuple[float, float]) -> dict[str, Any]:
        found = [{"core_seconds": spent, "knn_5": near, "knn": near} for spent, near in runs]
        return {"arm": arm, "epochs": epochs, "runs": found}

    comparison = {
        "training": SETTING.words(),
        "against": "0123456789",
        "seeds": [0, 1],
        "rows": [
            row(builds.EARLIER, 10, (100.0, 0.50), (80.0, 0.40)),
            row(builds.TODAY, 5, (50.0, 0.52), (40.0, 0.43)),
        ],
    }
    title, columns, lines = builds.table(comparison)
    assert title.startswith("config=convit_simclr data=folder") and title.endswith("seeds 0, 1")
    assert len(columns) == len(lines[0]) == 7
    assert lines[0][:3] == ["0123456, 10 epochs", "90", "1.00"]
    assert lines[1][:5] == ["today, 5 epochs", "45", "0.50", "47.5", "+2.5 (-3.9 to +8.9)"]
    reached = "to 5-NN of 0123456 (45.0 %): today, 5 epochs"
    assert lines[2] == [reached, "45", "0.50", "", "", "", ""]
    comparison["rows"][1]["runs"][0]["knn"] = 0.4  # type: ignore[index]
    assert builds.table(comparison)[2][3][0] == "to kNN of 0123456 (45.0 %): not by 5 epochs"
    comparison["rows"].append(row(builds.TODAY, 4, (30.0, 0.50), (24.0, 0.50)))  # type: ignore[attr-defined]
    assert builds.table(comparison)[2][3][0] == "to 5-NN of 0123456 (45.0 %): today, 4 epochs"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--epochs 0", "--epochs 0: give at least 1"),
        ("--seeds -1", "--seeds -1: give at least 0"),
        ("--methods supervised", "--methods supervised: choose from "),
        ("--today-epochs 5 0", "--today-epochs 0: give at least 1"),
    ],
)
def test_options_that_cannot_be_meant(
    words: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(builds, "measure", lambda *_: pytest.fail("measured"))
    assert main(["bench", "builds", "--against", "HEAD", *words.split()]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
