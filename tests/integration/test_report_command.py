"""`convit-ssl report` and `convit-ssl attention` on whole, odd and damaged runs."""

from __future__ import annotations

import html.parser
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convit_ssl.analysis.locality import uniform_distance
from convit_ssl.cli import main

make_run = runpy.run_path(str(Path(__file__).parents[1] / "unit/analysis/make_run.py"))["make_run"]


@pytest.fixture
def images(tmp_path):
    """A folder of 3 classes x 12 pictures, one class with a name that is no honest name."""
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for index, name in enumerate(("apple", "<script>alert(1)<", "plum & pear")):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(12):
                pixels = generator.integers(0, 120, (32, 40, 3), dtype=np.uint8)
                pixels[..., index] += 120
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "images"


def report(*arguments, expect=0):
    assert main.run_command("report", [str(a) for a in arguments]) == expect


def read(folder):
    page = (folder / "report.html").read_text()
    assert len(page.encode()) < 8e6
    return page, json.loads((folder / "report.json").read_text())


class Links(html.parser.HTMLParser):
    """Collects whatever a browser would fetch."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        fetched = ("src", "href", "data", "action")
        self.found += [v for k, v in attrs if k in fetched and not v.startswith(("#", "data:"))]


def test_whole_run(tmp_path, images, capsys):
    run = make_run(tmp_path / "a_run", epochs=10, num_classes=3)
    report(run, "--data", "folder", "--data-dir", images, "--images", 30)
    page, numbers = read(run / "report")
    assert "a_run" in page
    links = Links()
    links.feed(page)
    assert links.found == []
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page.split('id="data"')[0])
    assert "<script>alert(1)<" not in page
    found = numbers["runs"][0]
    assert found["problems"] == []
    assert found["classes"] == ["<script>alert(1)<", "apple", "plum & pear"]
    assert len(found["curves"]["loss"]["x"]) == 10
    assert np.array(found["gates"]["y"]).shape == (10, 4, 4)
    assert np.array(found["nonlocality_history"]["y"]).shape[1:] == (6, 4)
    assert found["nonlocality"]["uniform"] == pytest.approx(uniform_distance((8, 8)), rel=1e-5)
    assert len(found["attribution"]) == 4
    assert found["provenance"]["checkpoint sha256"]
    names = {path.name for path in (run / "report" / "figures").iterdir()}
    assert {"training.png", "gates.png", "heads.png", "nonlocality.png"} <= names
    assert {"features.png", "confusion.png", "attribution.png", "attention_01.png"} <= names
    assert "written:" in capsys.readouterr().out


def test_several_runs_with_the_same_name(tmp_path, images):
    runs = [
        make_run(tmp_path / p / "run", v, epochs=3)
        for p, v in (("x", "convit_nano"), ("y", "deit_nano"))
    ]
    report(
        *runs, "--data", "folder", "--data-dir", images, "--out", tmp_path / "out", "--no-figures"
    )
    _, numbers = read(tmp_path / "out")
    assert [run["name"] for run in numbers["runs"]] == ["x/run", "y/run"]
    assert any("no GPSA layers" in text for text in numbers["runs"][1]["problems"])
    assert numbers["runs"][1]["nonlocality"]["position"][0] == [None] * 4


def odd_runs(folder):
    """Name, run folder, and what the page must say."""
    yield make_run(folder / "one_epoch", epochs=1, checkpoints=1), None
    thousands = make_run(folder / "thousands", epochs=1, checkpoints=1)
    rows = [
        {"kind": "epoch", "epoch": e, "loss": 1 / e, "gates": [[0.5] * 4] * 4}
        for e in range(1, 5001)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (thousands / "metrics.jsonl").write_text(lines)
    yield thousands, None
    yield (
        make_run(folder / "interrupted", epochs=4, planned=50),
        "Unfinished: the last measurement is of epoch 4 of 50",
    )
    damaged = make_run(folder / "damaged_line", epochs=4)
    with (damaged / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "epoch", "epoch": 5, "lo')
    yield damaged, "skipped lines that are damaged or not JSON objects"
    cut = make_run(folder / "cut_checkpoint", epochs=4)
    newest = (cut / "checkpoints" / "last.torch").resolve()
    newest.write_bytes(newest.read_bytes()[:1000])
    yield cut, f"Checkpoint {newest.name} left out"
    bare = make_run(folder / "no_checkpoint", epochs=4, checkpoints=0)
    yield bare, "No checkpoint in checkpoints/"
    unread = make_run(folder / "bad_config", epochs=2)
    (unread / "config.yaml").write_text("a: [1\n b: :")
    yield unread, "cannot be read (cannot read"
    silent = make_run(folder / "no_metrics", epochs=2)
    (silent / "metrics.jsonl").unlink()
    yield silent, "No training curves"
    yield (
        make_run(folder / "ungated", epochs=2, use_gating=False, write_gates=False),
        "without gating",
    )
    yield make_run(folder / "not_local", epochs=2, local_init=False), None
    nan = make_run(folder / "nan", epochs=2)
    with (nan / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "epoch", "epoch": 3, "loss": NaN}\n')
    yield nan, "loss is not finite"


def test_odd_runs_give_a_page_that_says_what_is_missing(tmp_path, images):
    for run, says in odd_runs(tmp_path):
        report(run, "--data", "folder", "--data-dir", images, "--images", 6, "--no-figures")
        _, numbers = read(run / "report")
        problems = " ".join(numbers["runs"][0]["problems"])
        assert says is None or says in problems, (run.name, problems)
        if run.name == "thousands":
            assert len(numbers["runs"][0]["curves"]["loss"]["x"]) <= 400
            assert numbers["runs"][0]["curves"]["loss"]["x"][-1] == 5000


def test_png_figures_of_odd_runs(tmp_path, images):
    for variant, options in (
        ("deit_nano", {}),
        ("convit_nano", {"use_gating": False, "write_gates": False}),
    ):
        run = make_run(tmp_path / variant, variant, epochs=1, checkpoints=1, **options)
        report(run, "--data", "folder", "--data-dir", images, "--images", 6)
        assert (run / "report" / "figures" / "training.png").stat().st_size > 1000


def test_pictures_of_any_shape_without_a_data_set(tmp_path):
    run = make_run(tmp_path / "run", epochs=2)
    (run / "config.yaml").write_text("{}")
    for name, size in (("wide.png", (300, 20)), ("tall.png", (3, 90)), ("grey.png", (64, 64))):
        Image.effect_noise(size, 80).save(tmp_path / name)
    pictures = [
        part for n in ("wide", "tall", "grey") for part in ("--image", tmp_path / f"{n}.png")
    ]
    report(run, *pictures, "--no-figures")
    _, numbers = read(run / "report")
    assert any("features are not shown" in text for text in numbers["runs"][0]["problems"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "not a run folder"),
        (["."], "contains no metrics.jsonl"),
        (["RUN", "--image", "nowhere.png"], "cannot open nowhere.png"),
        (["RUN", "--images", "1"], "at least 3"),
    ],
)
def test_bad_input_is_one_message(tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / "runs" / "x", epochs=1, checkpoints=1)
    report(*[run if a == "RUN" else a for a in arguments], expect=2)
    assert says in capsys.readouterr().err
    assert not (run / "report").exists()


def test_unreadable_data_is_said_on_the_page(tmp_path):
    run = make_run(tmp_path / "run", epochs=2)
    config = run / "config.yaml"
    config.write_text(f"data: {{name: folder}}\ndata_dir: {tmp_path / 'nowhere'}\n")
    report(run, "--no-figures")
    page, numbers = read(run / "report")
    assert any("No images of data=folder" in text for text in numbers["runs"][0]["problems"])
    # What is given is meant, and a good page is not overwritten by one without it.
    report(run, "--data", "folder", "--data-dir", tmp_path / "elsewhere", expect=2)
    report(run, "--weights", "ema", expect=2)
    assert read(run / "report") == (page, numbers)


def test_figures_of_runs_that_are_not_in_it_go(tmp_path, images):
    first, second = (make_run(tmp_path / name, epochs=2) for name in ("a", "b"))
    out = tmp_path / "out"
    report(first, second, "--out", out)
    (out / "figures" / "mine.png").write_bytes(b"")
    assert (out / "figures" / "gates_2.png").exists()
    report(first, "--out", out)
    names = {path.name for path in (out / "figures").glob("*.png")}
    assert {"gates.png", "mine.png"} <= names
    assert not any(name.endswith(("_1.png", "_2.png")) for name in names)


def test_watch_follows_a_run_and_stops_when_asked(tmp_path, images):
    run = make_run(tmp_path / "run", epochs=2)
    command = [
        sys.executable,
        "-m",
        "convit_ssl.cli.main",
        "report",
        run,
        "--watch",
        "--every",
        "1",
    ]
    command += ["--data", "folder", "--data-dir", images, "--images", "6"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert "written" in process.stdout.readline()
        page, _ = read(run / "report")
        assert '"refresh_seconds":1' in page
        time.sleep(0.1)
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"kind": "epoch", "epoch": 3, "loss": 0.125}\n')
        assert "refreshed" in process.stdout.readline()
        assert read(run / "report")[1]["runs"][0]["curves"]["loss"]["y"][-1] == 0.125
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_attention_command(tmp_path, capsys):
    run = make_run(tmp_path / "run", epochs=1, checkpoints=1)
    Image.effect_noise((80, 50), 90).save(tmp_path / "photo.png")
    common = [str(tmp_path / "photo.png"), "--checkpoint", str(run)]
    for ending in ("png", "svg", "pdf"):
        out = tmp_path / f"map.{ending}"
        arguments = [*common, "--out", str(out), "--layers", "0,5", "--query", "1,2", "--dpi", "60"]
        assert main.run_command("attention", arguments) == 0
        assert out.stat().st_size > 1000
    assert "8 x 13 patches, 6 layers" in capsys.readouterr().out
    assert main.run_command("attention", [*common, "--out", "x.gif"]) == 2
    assert "must end in" in capsys.readouterr().err
    assert (
        main.run_command("attention", [*common, "--layers", "9", "--out", str(tmp_path / "y.png")])
        == 2
    )
    assert "layers 0 to 5" in capsys.readouterr().err
    assert not (tmp_path / "y.png").exists()


def test_comparison_page(tmp_path, capsys):
    rows = [
        {
            "accuracy": 0.5 + share / 4 + seed / 100,
            "seed": seed,
            "settings": {"model": model, "fraction": written},
        }
        for model in ("convit_nano", "deit_nano")
        for share, written in ((0.05, 0.05), (0.1, "10%"), (1.0, 100))
        for seed in range(3)
    ]
    rows += [{"accuracy": 0.6, "ablation": "no gating", "fraction": 0.1}, {"accuracy": None}]
    path = tmp_path / "study" / "results.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"results": rows}))
    report(path)
    numbers = json.loads((path.parent / "comparison" / "comparison.json").read_text())
    assert len(numbers["points"]) == 7
    assert numbers["points"][0]["seeds"] == 3
    assert numbers["points"][0]["spread"] == pytest.approx(0.01)
    assert {point["fraction"] for point in numbers["points"]} == {0.05, 0.1, 1.0}
    assert numbers["published"]["sample_efficiency"][1] == {
        "fraction": 0.1,
        "convit": 59.6,
        "deit": 48.0,
    }
    study = {
        "study": "ablation",
        "summary": [{"name": "no gating", "trunk": "convit_nano", "fraction": 0.1, "paper": 0.574}],
        "results": [
            {"name": "no gating", "fraction": 0.1, "seed": s, "accuracy": 0.5} for s in (0, 1)
        ],
        "failed": {"no conv init, 10 %, seed 0": "killed"},
    }
    path.write_text(json.dumps(study))
    report(path)
    numbers = json.loads((path.parent / "comparison" / "comparison.json").read_text())
    (point,) = numbers["points"]
    assert (point["ablation"], point["published"]) == ("no gating", 0.574)
    assert 1.1e6 < point["parameters"] < 1.3e6
    assert "no conv init" in numbers["problems"][0]
    path.write_text("[1, 2")
    report(path, expect=2)
    assert "as JSON" in capsys.readouterr().err
