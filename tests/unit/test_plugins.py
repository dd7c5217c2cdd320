"""Code from outside is found by name or path, imported once, and never because a run says so."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from convit_ssl import plugins
from convit_ssl.engines.options.compose import compose_experiment
from convit_ssl.errors import UserError


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(plugins, "_left_out", [])
    for name in [name for name in sys.modules if name.startswith("plug_")]:
        monkeypatch.delitem(sys.modules, name)


def test_a_module_of_the_current_folder_is_found_again_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / "plug_a.py").write_text("VALUE = 1\n")
    assert plugins.load(["plug_a"]) == [str(tmp_path / "plug_a.py")]
    assert sys.modules["plug_a"].VALUE == 1
    assert sys.path[-1] == str(tmp_path)
    assert plugins.load([str(tmp_path / "plug_a.py")]) == [str(tmp_path / "plug_a.py")]


def test_a_path_and_a_package_are_plugins(tmp_path: Path) -> None:
    (tmp_path / "code" / "plug_b").mkdir(parents=True)
    file = tmp_path / "code" / "plug_b" / "__init__.py"
    file.write_text("")
    assert plugins.load(["code/plug_b"]) == [str(file)]
    assert plugins.load([str(file)]) == [str(file)]


def test_an_installed_module_keeps_its_name() -> None:
    assert plugins.load(["colorsys"]) == ["colorsys"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plug_none", "no such module.*code/plug_none.py"),
        ("code/plug_none.py", "no such file"),
        ("colorsys", "hidden by .*colorsys.py; rename"),
        ("plug_bad", r"ZeroDivisionError.*plug_bad.py, line 2"),
        ("plug_words", "VALUE is missing"),
    ],
)
def test_what_cannot_be_imported_is_named(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "colorsys.py").write_text("")
    (tmp_path / "plug_bad.py").write_text("\n1 / 0\n")
    words = "from convit_ssl.errors import UserError\nraise UserError('VALUE is missing')\n"
    (tmp_path / "plug_words.py").write_text(words)
    with pytest.raises(UserError, match=message):
        plugins.load([name])


def test_plugins_of_installed_packages_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = importlib.metadata.EntryPoint("mine", "plug_missing", plugins.GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry])
    with pytest.raises(UserError, match="plugin mine of the installed package plug_missing"):
        plugins.load([])


def test_a_run_chooses_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plug_known", "plug_other"):
        (tmp_path / f"{name}.py").write_text("")
    known, other = (str(tmp_path / f"{name}.py") for name in ("plug_known", "plug_other"))
    plugins.load([known])
    monkeypatch.delitem(sys.modules, "plug_known")
    plugins.load_recorded([known, other, "antigravity"])
    assert "plug_known" in sys.modules
    assert not {"plug_other", "antigravity"} & {*sys.modules}
    assert f"CONVIT_SSL_PLUGINS={other},antigravity" in plugins.advice()
    monkeypatch.setenv(plugins.VARIABLE, other)
    plugins.load_recorded([])
    assert "plug_other" in sys.modules


def test_an_experiment_names_its_plugins(tmp_path: Path) -> None:
    (tmp_path / "plug_c.py").write_text("")
    (tmp_path / "plug_d.py").write_text("")
    words = ["config=convit_dino", "data=digits", "plugins=plug_c,plug_d"]
    tree = compose_experiment(words).tree
    assert list(tree.plugins) == [str(tmp_path / f"plug_{name}.py") for name in "cd"]
    assert {"plug_c", "plug_d"} <= {*sys.modules}
