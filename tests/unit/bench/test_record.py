"""One file from several runs of a benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from convit_ssl.bench import measure, models, report, scaling, startup, steps
from convit_ssl.bench.record import check_record, make_record
from convit_ssl.cli.main import main
from convit_ssl.errors import UserError
from convit_ssl.reading import read_json


def comparison(side: int, speed: float) -> dict[str, Any]:
    return {"setting": {"side": side}, "rows": [speed]}


def test_adding_keeps_what_was_not_measured_again(tmp_path: Path) -> None:
    path = str(tmp_path / "out.json")
    make_record("model", [comparison(1, 1.0), comparison(2, 1.0)], path)
    make_record("model", [comparison(3, 1.0)], path, add=True)
    made = make_record("model", [comparison(2, 5.0), comparison(1, 5.0)], path, add=True)
    assert made == read_json(Path(path))
    found = {c["setting"]["side"]: (c["rows"][0], c["run"]) for c in made["comparisons"]}
    # Nothing is left of the first run, and so it is not named.
    assert found == {3: (1.0, 0), 2: (5.0, 1), 1: (5.0, 1)}
    assert len(made["runs"]) == 2
    fresh = make_record("model", [comparison(9, 1.0)], path)
    assert [c["setting"]["side"] for c in fresh["comparisons"]] == [9]


def test_adding_to_what_cannot_be_compared(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    with pytest.raises(UserError, match="--add needs --json"):
        check_record("model", None, add=True)
    check_record("model", str(path), add=True)  # a new file
    made = make_record("step", [comparison(1, 1.0)], str(path))
    with pytest.raises(UserError, match="is of `convit-ssl bench step`"):
        check_record("model", str(path), add=True)
    made["runs"][0]["hardware"] = {**made["runs"][0]["hardware"], "cpu": "another"}
    path.write_text(json.dumps(made))
    with pytest.raises(UserError, match=r"another.*give another --json"):
        check_record("step", str(path), add=True)
    path.write_text("[]")
    with pytest.raises(UserError, match="is not a file of `convit-ssl bench step`"):
        check_record("step", str(path), add=True)


def test_peak_memory_is_what_a_call_holds() -> None:
    def run() -> None:
        first = torch.ones(2**18)  # 1 MiB
        second = first + 1
        del first
        torch.ones(2**18)
        del second

    assert measure.peak_memory(run, torch.device("cpu")) == pytest.approx(2.0, rel=0.01)


def test_peak_memory_of_training_is_at_least_what_is_saved() -> None:
    model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
    images = torch.randn(512, 64)

    def train() -> None:
        model(images).sum().backward()
        model.zero_grad()

    saved = measure.saved_bytes(lambda: model(images), model) / measure.MIB
    assert measure.peak_memory(train, torch.device("cpu")) > saved * 0.9


@pytest.mark.slow
def test_ratios_in_one_table_whatever_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["convit-ssl", "bench", "model"])
    command = ["bench", "model", "--sizes", "nano", "--images", "1", "--repeats", "1"]
    command += ["--json", str(tmp_path / "a.json"), "--markdown", str(tmp_path / "a.md"), "--add"]
    command += ["--figure", str(tmp_path / "a.png"), "--contenders", "vit", "--modes"]
    assert main([*command, "training", "--sides", "32"]) == 0
    assert main([*command, "forward", "--sides", "16"]) == 0
    made = json.loads((tmp_path / "a.json").read_text())
    lines = report.ratio_cells(sorted(made["comparisons"], key=models.place))
    assert [line[1] for line in lines] == ["16", "32"]
    assert lines[0][5:7] == ["-", "-"]
    assert lines[0][-1] == "-" and float(lines[1][-1]) < 1.06
    text = (tmp_path / "a.md").read_text()
    assert text.count("`convit-ssl ") == 3  # two runs, and the command for a GPU
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_scaling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "scaling", "--sizes", "nano", "--sides", "16", "32", "64", "--repeats", "1"]
    command += ["--processes", "1", "2", "--side", "16", "--json", str(tmp_path / "a.json")]
    command += ["--figure", str(tmp_path / "a.png"), "--markdown", str(tmp_path / "a.md")]
    assert main(command) == 0
    growth, processes = json.loads((tmp_path / "a.json").read_text())["comparisons"]
    assert [row["name"] for row in growth["rows"]] == list(scaling.GROWING)
    assert [row["processes"] for row in processes["rows"]] == [1, 2]
    assert "communication" in capsys.readouterr().out
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_the_gain_of_each_part() -> None:
    names = ["published", "+ our trunk", "+ our loss", "ours: + our optimiser", "ours, with input"]
    rows = [
        {"name": name, "milliseconds": spent, "faster": 8.0 / spent}
        for name, spent in zip(names, (8.0, 4.0, 2.0, 1.0, 3.0), strict=True)
    ]
    setting = {"method": "simclr", "size": "tiny", "global_side": 224, "batch": 1, "dtype": "fp32"}
    _, columns, lines = steps.table({"setting": setting, "rows": rows})
    assert [line[columns.index("gain of this part")] for line in lines] == [
        "", "2.00 x", "2.00 x", "2.00 x", "",
    ]  # fmt: skip
    assert [manner.name for manner in steps.MANNERS] == names[:4]


IMPORTS = """
import time: self [us] | cumulative | imported package
import time:      2000 |       3000 |   torch.nn
import time:   1000000 |    1003000 | torch
import time:    500000 |     500000 | convit_ssl.engines.train
import time:    250000 |     250000 |     rich.console
something else on the terminal
"""


def test_what_a_start_is_spent_on() -> None:
    spent = startup.group_imports(IMPORTS)
    assert spent["PyTorch"] == 1.002
    assert spent["convit_ssl"] == 0.5
    assert spent[startup.OTHERS] == 0.25
    rows = {"first_step_s": [4.0, 3.0, 5.0], "watched_first_step_s": 6.0, "imports_s": spent}
    _, _, lines = startup.table({"experiment": ["config=x"], "rows": rows})
    assert [line[1] for line in lines[:3]] == ["3.00", "4.00", "6.00"]
    assert float(lines[-1][1]) == pytest.approx(6.0 - sum(spent.values()), abs=0.01)


@pytest.mark.slow
def test_startup(tmp_path: Path) -> None:
    path = tmp_path / "startup.json"
    assert main(["bench", "startup", "--repeats", "1", "--json", str(path)]) == 0
    (comparison,) = json.loads(path.read_text())["comparisons"]
    assert comparison["rows"]["first_step_s"][0] > 0
    assert comparison["rows"]["imports_s"]["PyTorch"] > 0
    # What is drawn, probed or exported is not needed to train.
    assert comparison["rows"]["modules"] < 4000
