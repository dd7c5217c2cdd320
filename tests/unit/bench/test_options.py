"""What cannot be measured or written is refused before anything is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from convit_ssl.bench import commands, figures, measure, models, scaling, steps, threads
from convit_ssl.cli.main import main


@pytest.fixture
def nothing_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(*_: Any) -> None:
        raise AssertionError("measured before all options were looked at")

    for module, name in (
        (models, "compare"), (models, "compare_times"), (steps, "compare"),
        (scaling, "growth"), (scaling, "processes"), (threads, "measure"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, measured)


@pytest.mark.usefixtures("nothing_measured")
@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("model --images 0", "--images 0: give at least 1"),
        ("step --images -3", "--images -3: give at least 1"),
        ("scaling --images 0", "--images 0: give at least 1"),
        ("model --sides 0", "--sides 0: give at least 1"),
        ("model --sides 32 33", "--sides 33: "),
        ("model --threads 0", "--threads 0: give at least 1"),
        ("model --device mps", "--device mps: give cpu or cuda"),
        ("model --device meta", "--device meta: give cpu or cuda"),
        ("step --local-crops -2", "--local-crops -2: give at least 0"),
        ("step --local-side 15", "--local-side 15: "),
        ("step --global-side 100", "--global-side 100: "),
        ("step --out-dim 0", "--out-dim 0: give at least 1"),
        ("step --methods dino moco", "--methods moco: choose from dino, simclr"),
        ("scaling --processes 0", "--processes 0: give at least 1"),
        ("scaling --processes 1 -1", "--processes -1: give at least 1"),
        ("scaling --side 15", "--side 15: "),
        ("scaling --sides 16 33", "--sides 33: "),
        ("scaling --sizes tiny huge", "unknown size 'huge'"),
        ("threads --neighbours 65", "--neighbours 65: give at most 64"),
        ("threads --neighbours -1", "--neighbours -1: give at least 0"),
        ("threads --seconds nan", "--seconds nan: give at least 0.1"),
        ("threads --seconds inf", "--seconds inf: give at most 60"),
        ("threads --side 9", "--side 9 is not a multiple of --patch 2"),
        ("threads --side 8 64 --patch 2 2 2", "--patch has 3 values for 2 of --side"),
        ("threads --sizes huge", "unknown size 'huge'"),
        ("model --figure x.txt", "--figure x.txt: the name of a figure must end in ."),
        ("model --figure x", "--figure x: the name of a figure must end in ."),
    ],
)
def test_refused(command: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *command.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.usefixtures("nothing_measured")
@pytest.mark.parametrize("option", ["--json", "--markdown", "--figure"])
def test_a_folder_is_no_file(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "a.png"
    place.mkdir()
    assert main(["bench", "model", option, str(place)]) == 2
    assert f"{option} {place} is a folder; give a file" in capsys.readouterr().err


def test_a_figure_makes_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.png"
    with figures._figure(str(path), 1, 1):
        pass
    assert path.stat().st_size > 1000


@pytest.mark.slow
def test_threads_are_set_before_records_are_compared(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    path = str(tmp_path / "a.json")
    command = ["bench", "model", "--sizes", "nano", "--sides", "16", "--images", "1"]
    command += ["--repeats", "1", "--contenders", "ours", "--modes", "forward", "--json", path]
    try:
        assert main([*command, "--threads", "2"]) == 0
        torch.set_num_threads(1)
        assert main([*command, "--threads", "2", "--add"]) == 0
        assert main([*command, "--threads", "1", "--add"]) == 2
    finally:
        torch.set_num_threads(before)


def test_nothing_is_measured_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And the record is written after each comparison."""
    path = tmp_path / "a.json"
    asked, written = [], []

    def compare(setting: models.Setting, names: list[str], _: int) -> list[models.Row]:
        asked.append((setting.size, setting.side, setting.dtype, setting.mode, tuple(names)))
        if path.exists():
            written.append(len(json.loads(path.read_text())["comparisons"]))
        return []

    monkeypatch.setattr(models, "compare", compare)
    monkeypatch.setattr(commands.report, "print_table", lambda *_: None)
    monkeypatch.setattr(commands.report, "ratio_cells", lambda _: [])
    command = "bench model --sizes nano nano --sides 32 16 32 --dtype fp32 fp32 --contenders"
    command += f" timm timm --modes forward forward --json {path}"
    assert main(command.split()) == 0
    assert asked == [("nano", side, "fp32", "forward", ("timm",)) for side in (32, 16)]
    assert written == [1]


def test_growth_sorts_its_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    def quadratic(setting: models.Setting, names: list[str], _: int) -> list[Any]:
        spent = float(setting.side**2)
        return [(name, measure.Timing(spent, spent, spent, [spent])) for name in names]

    monkeypatch.setattr(models, "compare_times", quadratic)
    for sides in ([64, 16, 32, 16], [16, 32, 32]):
        made = scaling.growth("nano", sides, "fp32", "cpu", "wall", 1)
        assert made["growth"]["sides"] == sorted(set(sides))
    made = scaling.growth("nano", [128, 16, 64, 32], "fp32", "cpu", "wall", 1)
    assert [row["exponent"] for row in made["rows"]] == pytest.approx([2.0] * 3)


def test_efficiency_is_of_the_fewest_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    monkeypatch.setattr(scaling, "_time_processes", lambda n, *_: counts.append(n) or (1.0, 1.0))
    made = scaling.processes("nano", 16, 2, [4, 1, 2, 1], "cpu", 1)
    assert counts == [1, 2, 4] == [row["processes"] for row in made["rows"]]


@pytest.mark.parametrize(
    ("method", "sides", "crops", "device", "known"),
    [
        ("dino", (224, 96), 8, "cpu", True),
        ("dino", (192, 96), 8, "cpu", False),
        ("dino", (224, 96), 6, "cpu", False),
        ("simclr", (224, 96), 2, "cpu", True),
        ("simclr", (96, 96), 8, "cpu", False),
        ("simclr", (224, 96), 8, "cuda", False),
        ("dino", (224, 96), 8, "cuda:0", False),
    ],
)
def test_input_is_added_where_it_was_measured(
    method: str, sides: tuple[int, int], crops: int, device: str, known: bool
) -> None:
    """For these crops, and on the core that also trains."""
    plan = steps.Plan(method, "nano", 1, *sides, crops, 64, "fp32", device, "wall")
    assert steps.input_is_known(plan) is known


class Exhausted(torch.nn.Module):
    def forward(self, _: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")


def exhaust(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    build = models.contenders.build
    monkeypatch.setattr(
        models.contenders, "build",
        lambda name, config: Exhausted() if name in names else build(name, config),
    )  # fmt: skip


@pytest.mark.slow
def test_who_runs_out_of_memory_gets_a_line_that_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exhaust(monkeypatch, "timm")
    files = {kind: str(tmp_path / f"a.{kind}") for kind in ("json", "md", "png")}
    command = "bench model --sizes nano --sides 16 --images 1 --repeats 1 --contenders ours timm"
    command += f" --json {files['json']} --markdown {files['md']} --figure {files['png']}"
    assert main(command.split()) == 0
    for comparison in json.loads(Path(files["json"]).read_text())["comparisons"]:
        assert [row["name"] for row in comparison["rows"]] == ["ours"]
        assert comparison["out_of_memory"] == ["timm"]
    assert "out of memory" in Path(files["md"]).read_text()
    assert "out of memory" in capsys.readouterr().out


def test_growth_goes_on_without_who_runs_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    exhaust(monkeypatch, "timm")
    made = scaling.growth("nano", [16, 32], "fp32", "cpu", "wall", 1)
    assert made["rows"][-1] == {"name": "timm", "milliseconds": [None, None], "exponent": None}
    _, _, lines = scaling.table(made)
    assert lines[-1][1:] == ["-", "-", "-"]


def test_ours_out_of_memory_ends_the_run_with_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exhaust(monkeypatch, "ours")
    command = "bench model --sizes nano --sides 16 --images 1 --repeats 1 --contenders ours"
    assert main(command.split()) == 2
    assert "out of memory" in capsys.readouterr().err
    with pytest.raises(torch.OutOfMemoryError):
        measure.alternate({"ours": lambda: Exhausted()(torch.zeros(1))}, 1, torch.device("cpu"))
