import subprocess
import sys
from pathlib import Path

import pytest

from convit_ssl.cli import doctor_command
from convit_ssl.compat import environment


@pytest.fixture
def startup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "convit_ssl_torchvision.pth"
    monkeypatch.setattr(environment, "startup_file", lambda: path)
    return path


def reasons(monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
    left = list(answers)
    monkeypatch.setattr(environment, "why_torchvision_fails", lambda: left.pop(0))


def test_nothing_is_added_where_torchvision_imports(
    startup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    startup.write_text(environment.LINE)  # of an earlier installation
    reasons(monkeypatch, "")
    assert environment.mend() == ""
    assert not startup.exists()


def test_the_line_is_added_and_said(startup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reasons(monkeypatch, "operator torchvision::nms does not exist", "")
    said = environment.mend()
    assert "different builds" in said
    assert "nms does not exist" in said
    assert startup.read_text() == environment.LINE


def test_a_line_that_does_not_help_is_taken_back(
    startup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons(monkeypatch, "undefined symbol", "undefined symbol")
    with pytest.raises(RuntimeError, match="undefined symbol"):
        environment.mend()
    assert not startup.exists()


def test_the_line_registers_the_shim_and_imports_nothing_heavy() -> None:
    code = (
        environment.LINE + "import sys\n"
        "from convit_ssl.compat import _hooks\n"
        "assert list(_hooks._during) == ['torchvision._meta_registrations'], _hooks._during\n"
        "assert not _hooks._after\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_doctor_counts_it_as_a_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "why_torchvision_fails", lambda: "no operator")
    assert doctor_command.run(None) == 1  # type: ignore[arg-type]
    output = capsys.readouterr().out
    assert "problem: torchvision and timm cannot be imported in plain Python" in output
    assert output.rstrip().splitlines()[-1].startswith("verdict: ")
    assert "problem" in output.rstrip().splitlines()[-1]


def test_doctor_says_that_nothing_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor_command, "_findings", lambda: iter([("python", "3.11", None)]))
    assert doctor_command.run(None) == 0  # type: ignore[arg-type]
    assert capsys.readouterr().out.endswith("verdict: no problems found\n")
