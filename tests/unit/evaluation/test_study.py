"""A study is the right list of runs; it survives stops and failures; its report adds up."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from convit_ssl.errors import UserError
from convit_ssl.evaluation.studies import slurm as study_slurm
from convit_ssl.evaluation.studies.design import (
    Run,
    Settings,
    Study,
    ablation,
    check_batch,
    pretraining,
    sample_efficiency,
)
from convit_ssl.evaluation.studies.report import (
    markdown,
    progress_table,
    study_rows,
    summarise,
    write_study,
)
from convit_ssl.evaluation.studies.runner import State, run_study
from convit_ssl.runs import RunFolder

SETTINGS = Settings("digits", epochs=20, batch_size=32)

# Stands for a training run: says when it ran, and leaves what a run leaves.
TRAIN = """
import json, os, sys, time
from pathlib import Path
folder, accuracy, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
with open(folder.parent / "trace.txt", "a") as trace:
    trace.write(f"start {folder.name} {time.time()}\\n")
time.sleep(seconds)
if accuracy == "fail":
    sys.exit("the lights went out")
data = {"digest": "0f", "folder": "/home/me/images"}
result = {"accuracy": float(accuracy), "epochs": 1, "data": data}
(folder / "result.json").write_text(json.dumps(result))
with open(folder.parent / "trace.txt", "a") as trace:
    trace.write(f"end {folder.name} {time.time()}\\n")
"""


def fake(accuracy: object = 0.5, seconds: float = 0.0):  # type: ignore[no-untyped-def]
    def command(run: Run, folder: Path) -> list[str]:
        value = accuracy(run) if callable(accuracy) else accuracy
        return [sys.executable, "-c", TRAIN, str(folder), str(value), str(seconds)]

    return command


def small_study() -> Study:
    settings = Settings("digits", epochs=2, batch_size=16)
    return sample_efficiency(
        ["convit_nano", "deit_nano"], settings, fractions=[0.5, 1.0], seeds=[0, 1]
    )


def test_every_run_takes_the_same_number_of_steps() -> None:
    study = sample_efficiency(["convit_nano", "deit_nano"], SETTINGS, seeds=[0, 1])
    assert len(study.runs) == 2 * 5 * 2
    assert len({run.name for run in study.runs}) == len(study.runs)
    assert {run.fraction: run.epochs for run in study.runs} == {
        0.05: 400, 0.1: 200, 0.3: 67, 0.5: 40, 1.0: 20,
    }  # fmt: skip
    unscaled = Settings("digits", epochs=20, scale_epochs=False)
    assert {r.epochs for r in sample_efficiency(["deit_nano"], unscaled).runs} == {20}


def test_seeds_come_one_after_the_other() -> None:
    seeds = [run.seed for run in sample_efficiency(["deit_nano"], SETTINGS).runs]
    assert seeds == sorted(seeds)


def test_command_of_a_run() -> None:
    study = sample_efficiency(
        ["convit_nano"], SETTINGS, [0.05, 1.0], [3], {"convit_nano": "runs/dino"}
    )
    words = {run.name: run.overrides() for run in study.runs}
    scratch = words["convit_nano-5pct-seed3"]
    assert scratch[0] == "config=convit_supervised"
    assert "data.subset='fraction=0.05,seed=3'" in scratch
    assert "optim.epochs=400" in scratch
    assert "seed=3" in scratch
    tuned = words["convit_nano_pretrained-100pct-seed3"]
    assert tuned[0] == "config=convit_finetune"
    assert "weights='runs/dino'" in tuned
    assert not any("subset" in word for word in tuned)


def test_a_cnn_is_spared_the_options_of_the_others() -> None:
    settings = Settings("digits", overrides=("trunk.patch_size=2", "optim.lr=1e-2"))
    runs = sample_efficiency(["convit_nano", "resnet50"], settings, [1.0], [0]).runs
    given = {run.arm.trunk: run.overrides() for run in runs}
    assert "trunk.patch_size=2" in given["convit_nano"]
    assert [word for word in given["resnet50"] if word.startswith("trunk")] == ["trunk=resnet50"]
    assert "optim.lr=1e-2" in given["resnet50"]


def test_only_seeds_may_differ_in_an_average() -> None:
    runs = sample_efficiency(["convit_nano", "deit_nano"], SETTINGS, [0.1, 1.0], [0, 1]).runs
    groups = {(run.arm.name, run.fraction): set() for run in runs}
    for run in runs:
        groups[run.arm.name, run.fraction].add(run.settings_hash())
    hashes = [h for group in groups.values() for h in group]
    assert len(hashes) == len(set(hashes)) == 4


def test_ablation_presets() -> None:
    study = ablation("nano", SETTINGS, ["table3", "gpsa-layers", "locality"], depth=6)
    by_name = {arm.name: arm for arm in study.arms}
    assert by_name["no gating, no conv init"].overrides == (
        "trunk.use_gating=false", "trunk.local_init=false",
    )  # fmt: skip
    assert by_name["DeiT"].trunk == "deit_nano"
    assert by_name["frozen position, no conv init"].paper == {1.0: 0.737, 0.1: 0.448}
    assert [n for n in by_name if "GPSA" in n] == [f"{n} GPSA layers" for n in range(6)]
    assert sum("locality" in name for name in by_name) == 5
    with pytest.raises(UserError, match="unknown ablation 'table4'"):
        ablation("nano", SETTINGS, ["table4"])


def test_impossible_studies() -> None:
    with pytest.raises(UserError, match="'deit_base', which is not among the trunks"):
        sample_efficiency(["convit_nano"], SETTINGS, weights={"deit_base": "x"})
    with pytest.raises(UserError, match=r"at most 1, found 5"):
        sample_efficiency(["convit_nano"], SETTINGS, fractions=[5])
    with pytest.raises(UserError, match="has no runs"):
        sample_efficiency(["convit_nano"], SETTINGS, seeds=[])
    with pytest.raises(UserError, match="50 images of 5 % of digits; use --batch-size 50"):
        check_batch(Settings("digits", batch_size=64), 1000, [0.05, 1])


def test_runs_at_once_never_exceed_the_jobs(tmp_path: Path) -> None:
    wait = (
        "deadline = time.monotonic() + 100\n"
        "while (folder.parent / 'trace.txt').read_text().count('start') < 3:\n"
        "    assert time.monotonic() < deadline; time.sleep(0.02)\n"
    )
    together = TRAIN.replace("time.sleep(seconds)\n", wait)

    def command(run: Run, folder: Path) -> list[str]:
        return [sys.executable, "-c", together, str(folder), "0.5", "0"]

    states = run_study(small_study(), tmp_path, jobs=3, command=command, interval=0.02)
    assert [state.status for state in states] == ["done"] * 8
    events = [line.split() for line in (tmp_path / "runs" / "trace.txt").read_text().splitlines()]
    events.sort(key=lambda event: float(event[2]))
    running = peak = 0
    for event in events:
        running += 1 if event[0] == "start" else -1
        peak = max(peak, running)
    assert peak == 3


def test_what_is_done_is_not_run_again(tmp_path: Path) -> None:
    failing = fake(lambda run: "fail" if run.seed == 1 else 0.5)
    first = run_study(small_study(), tmp_path, jobs=4, command=failing, interval=0.02)
    assert [s.status for s in first] == ["done"] * 4 + ["failed"] * 4
    assert first[-1].message == "exit code 1: the lights went out"
    second = run_study(small_study(), tmp_path, jobs=4, command=fake(0.7), interval=0.02)
    assert [s.result["accuracy"] for s in second] == [0.5] * 4 + [0.7] * 4
    assert second[0].result["seconds"] > 0


def test_other_settings_in_a_folder_are_refused(tmp_path: Path) -> None:
    run_study(small_study(), tmp_path, jobs=4, command=fake(), interval=0.02)
    longer = sample_efficiency(["convit_nano"], Settings("digits", epochs=3), [1.0], [0])
    with pytest.raises(UserError, match=r"different settings \(.*optim.epochs=2.*another --out"):
        run_study(longer, tmp_path, command=fake())


def test_a_stop_stops_the_runs(tmp_path: Path) -> None:
    def interrupt(states: list[State]) -> None:
        if (tmp_path / "runs" / "trace.txt").exists():
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_study(small_study(), tmp_path, 2, interrupt, fake(0.5, 60.0), interval=0.02)
    assert time.monotonic() - started < 30
    done = run_study(small_study(), tmp_path, 4, command=fake(0.6), interval=0.02)
    assert {state.result["accuracy"] for state in done} == {0.6}


def test_slurm_jobs_are_waited_for(tmp_path: Path) -> None:
    settings = Settings("digits", epochs=1, run="slurm")
    study = sample_efficiency(["convit_nano"], settings, [1.0], [0, 1])
    submit = [sys.executable, "-c", "pass"]
    seen: list[list[str]] = []

    def watch(states: list[State]) -> None:
        seen.append([state.status for state in states])
        if seen[-1] == ["submitted", "submitted"]:
            for state in states:
                (state.folder / "result.json").write_text('{"accuracy": 0.5}')

    states = run_study(study, tmp_path, 1, watch, lambda run, folder: submit, interval=0.02)
    assert ["submitted", "submitted"] in seen
    assert [state.status for state in states] == ["done", "done"]


# Stands for SLURM: the jobs in the file beside it are in the queue.
SQUEUE = """#!/bin/sh
asked=",$(echo "$5"),"
while read -r job; do case "$asked" in *",$job,"*) echo "$job";; esac; done < "$0.jobs"
"""


def slurm_with(folder: Path, *jobs: int) -> Path:
    """A folder for PATH, whose queue holds these jobs."""
    folder.mkdir(exist_ok=True)
    (folder / "squeue").write_text(SQUEUE)
    (folder / "squeue").chmod(0o755)
    (folder / "squeue.jobs").write_text("".join(f"{job}\n" for job in jobs))
    return folder


def submitting(run: Run, folder: Path) -> list[str]:
    script = (
        "import sys; from pathlib import Path; folder = Path(sys.argv[1]) / 'slurm'\n"
        "folder.mkdir(exist_ok=True); (folder / 'job').write_text(sys.argv[2])\n"
        "(folder / f'{sys.argv[2]}_0_log.out').write_text('out of memory\\nsrun: error\\n')"
    )
    return [sys.executable, "-c", script, str(folder), str(10 + run.seed)]


def test_a_job_that_ends_without_a_result_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = sample_efficiency(["convit_nano"], Settings("digits", run="slurm"), [1.0], [0, 1])
    queue = slurm_with(tmp_path / "bin", 10, 11)
    monkeypatch.setenv("PATH", f"{queue}:{os.environ['PATH']}")
    monkeypatch.setattr(study_slurm, "SECONDS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(study_slurm, "SECONDS_WITHOUT_RESULT", 0.1)

    def watch(states: Sequence[State]) -> None:
        if [state.status for state in states] == ["submitted", "submitted"]:
            slurm_with(queue, 11)  # job 10 is gone
        if states[0].status == "failed":
            (states[1].folder / "result.json").write_text('{"accuracy": 0.5}')

    states = run_study(study, tmp_path, 2, watch, submitting, interval=0.02)
    assert [state.status for state in states] == ["failed", "done"]
    assert states[0].message == "job 10 ended without a result: out of memory"


def test_a_study_that_is_started_again_submits_what_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = sample_efficiency(["convit_nano"], Settings("digits", run="slurm"), [1.0], [0, 1])
    queue = slurm_with(tmp_path / "bin", 10, 11)
    monkeypatch.setenv("PATH", f"{queue}:{os.environ['PATH']}")

    def leave(states: Sequence[State]) -> None:
        if {state.status for state in states} == {"submitted"}:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(study, tmp_path, 2, leave, submitting, interval=0.02)
    slurm_with(queue, 11)
    again: list[str] = []

    def command(run: Run, folder: Path) -> list[str]:
        again.append(run.name)
        return fake(0.5)(run, folder)

    def finish(states: Sequence[State]) -> None:
        (states[1].folder / "result.json").write_text('{"accuracy": 0.5}')

    states = run_study(study, tmp_path, 2, finish, command, interval=0.02)
    assert [state.status for state in states] == ["done", "done"]
    assert again == [states[0].run.name]


@pytest.mark.parametrize("mark", ["images", "weights"])
def test_other_images_or_weights_are_no_repetition(tmp_path: Path, mark: str) -> None:
    study = sample_efficiency(
        ["convit_nano"], SETTINGS, [1.0], [0], {"convit_nano": "run"}, scratch=False
    )
    marks = {"images": {"images": "aa"}, "weights": {"weights": {"run": "aa"}}}[mark]
    first = dataclasses.replace(study, **marks)
    states = run_study(first, tmp_path, command=fake(), interval=0.02)
    (row,) = study_rows(states)
    assert row["fingerprint"][mark] == "aa"
    assert run_study(first, tmp_path, command=fake(0.7), interval=0.02)[0].result["accuracy"] == 0.5
    changed = {"images": {"images": "bb"}, "weights": {"weights": {"run": "bb"}}}[mark]
    with pytest.raises(UserError, match=r"changed since .* another --out"):
        run_study(dataclasses.replace(study, **changed), tmp_path, command=fake())


def test_progress_is_read_from_the_run(tmp_path: Path) -> None:
    run = small_study().runs[0]
    state = State(run, tmp_path, "running")
    assert state.progress == 0
    (tmp_path / "metrics.jsonl").write_text('{"kind":"epoch","epoch":1}\n{"kind":"step","epoch":2')
    assert RunFolder(tmp_path).last_row() == {"kind": "epoch", "epoch": 1}
    assert state.progress == 1 / run.epochs


def finished(tmp_path: Path, study: Study) -> list[State]:
    states = [State(run, tmp_path / run.name) for run in study.runs]
    for state in states:
        state.status = "done"
        state.result = {"accuracy": 0.5 + 0.1 * state.run.seed + 0.1 * state.run.fraction}
    return states


def test_report_of_a_study(tmp_path: Path) -> None:
    study = small_study()
    states = finished(tmp_path, study)
    summary = write_study(study, states, tmp_path)
    found = {(row["name"], row["fraction"]): row for row in summary}
    row = found["convit_nano", 0.5]
    assert row["mean"] == pytest.approx(0.6)
    assert row["spread"] == pytest.approx(0.1 / 2**0.5)
    assert row["paper"] == 0.782
    content = json.loads((tmp_path / "results.json").read_text())
    assert len(content["results"]) == 8
    assert {"commit", "versions", "hardware", "settings"} <= set(content)
    text = (tmp_path / "results.md").read_text()
    assert "| convit_nano | 60.0 ± 7.1 | 65.0 ± 7.1 |" in text
    with Image.open(tmp_path / "sample_efficiency.png") as image:
        assert image.width > image.height


def test_report_of_an_ablation(tmp_path: Path) -> None:
    study = ablation("nano", SETTINGS, ["table3"], depth=6)
    write_study(study, finished(tmp_path, study), tmp_path)
    with Image.open(tmp_path / "ablation.png") as image:
        assert min(image.size) > 300
    study = ablation("nano", SETTINGS, ["locality"], depth=6)
    write_study(study, finished(tmp_path, study), tmp_path)


def test_table_of_an_unfinished_study(tmp_path: Path) -> None:
    study = small_study()
    states = finished(tmp_path, study)
    states[-1].status, states[-1].message = "failed", "no power"
    states[-2].status = "running"
    assert len(study_rows(states)) == 6
    assert summarise(study, study_rows(states))[-1]["count"] == 1
    console = Console(width=90, record=True, file=io.StringIO())
    console.print(progress_table(study, states))
    text = console.export_text()
    assert "60.0 ± 7.1" in text
    assert "1/2 0 %" in text
    assert "1 failed" in text
    assert "| deit_nano | 60.0 ± 7.1 | 60.0 |" in markdown(
        study, summarise(study, study_rows(states))
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_terminate_of_the_study_reaches_the_runs(number: signal.Signals, tmp_path: Path) -> None:
    """Told to end, or without its terminal, a study passes it on and leaves no run behind."""
    pid_file = tmp_path / "pid"
    child = "import os,sys,time; open(sys.argv[1],'w').write(str(os.getpid())); time.sleep(60)"
    main = (
        "import signal, sys\n"
        "from pathlib import Path\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # the tests may run under nohup
        "from convit_ssl.evaluation.studies.design import Settings, sample_efficiency\n"
        "from convit_ssl.evaluation.studies.runner import run_study\n"
        "study = sample_efficiency(['deit_nano'], Settings('digits'), [1.0], [0])\n"
        f"command = [sys.executable, '-c', {child!r}, {str(pid_file)!r}]\n"
        f"run_study(study, {str(tmp_path)!r}, command=lambda run, folder: command)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", main], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(40) == 128 + number
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_a_part_of_the_images_is_the_whole_of_a_study() -> None:
    settings = Settings("digits", epochs=20, images_per_class=40)
    runs = sample_efficiency(["deit_nano"], settings, [0.05, 0.3, 1.0], [2]).runs
    assert [run.subset for run in runs] == [
        "per_class=2,seed=2", "per_class=12,seed=2", "per_class=40,seed=2",
    ]  # fmt: skip
    assert "data.subset='per_class=40,seed=2'" in runs[-1].overrides()


def test_val_is_looked_at_once() -> None:
    [run] = sample_efficiency(["deit_nano"], SETTINGS, [0.1], [0]).runs
    assert {"optim.epochs=200", "method.test_every=200"} <= set(run.overrides())


def test_pretraining_study_has_its_methods_and_a_supervised_run_of_as_many_views() -> None:
    given = ("run.threads=1", "convit_dino:method.out_dim=64", "convit_supervised:method.mixup=0")
    settings = Settings("digits", epochs=4, batch_size=32, overrides=given)
    study = pretraining(["convit_nano"], ["dino", "simclr"], settings, [5])
    dino, simclr, supervised = (run.overrides() for run in study.runs)
    assert dino[0] == "config=convit_dino"
    assert dino[-2:] == ["run.threads=1", "method.out_dim=64"]
    assert simclr[-1] == "run.threads=1"
    assert not any(word.startswith(("optim.batch_size", "method.test_every")) for word in simclr)
    assert "optim.epochs=4" in dino
    assert {"optim.epochs=8", "method.mixup=0", "optim.batch_size=32"} <= set(supervised)
    with pytest.raises(UserError, match="unknown method 'dinno'"):
        pretraining(["convit_nano"], ["dinno"], settings)


def test_runs_of_another_study_are_taken_over(tmp_path: Path) -> None:
    run_study(small_study(), tmp_path / "first", 4, command=fake(0.5), interval=0.02)
    settings = Settings("digits", epochs=2, batch_size=16)
    second = sample_efficiency(["convit_nano"], settings, [1.0], [0, 7])
    states = run_study(
        second, tmp_path / "second", 2, None, fake(0.7), 0.02, reuse=tmp_path / "first"
    )
    assert [state.result["accuracy"] for state in states] == [0.5, 0.7]


def test_every_row_says_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "convit_ssl/cli/main.py",
        "study",
        "ablation",
        "--note",
        "Expected ...",
        "--seeds",
        "2",
    ]
    monkeypatch.setattr(sys, "argv", words)
    states = run_study(small_study(), tmp_path, 4, command=fake(0.5), interval=0.02)
    write_study(small_study(), states, tmp_path, note="Expected: ConViT ahead.")
    content = json.loads((tmp_path / "results.json").read_text())
    for row in content["results"]:
        assert {
            "commit",
            "settings_hash",
            "data",
            "seed",
            "hardware",
            "time",
            "images_per_s",
        } <= set(row)
        assert row["data"] == {"digest": "0f"}
    page = (tmp_path / "results.md").read_text()
    assert "Expected: ConViT ahead." in page
    assert "| convit_nano, 50 % | 0 | 50.00 |" in page
    assert "8 of 8 done" in page
    assert "- Command: `convit-ssl study ablation --seeds 2`" in page
