"""The wheel, installed where nothing of the checkout can be seen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
# What the build reads (MANIFEST.in, setup.py, pyproject.toml); the rest only costs time.
SOURCES = ["convit_ssl", "configs", "pyproject.toml", "setup.py", "README.md", "LICENSE"]

pytestmark = pytest.mark.slow


def run(command: Sequence[str | Path], cwd: Path) -> str:
    """Output of a command that knows nothing of the checkout; fails with all it wrote."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy: nothing is written into the checkout."""
    folder = tmp_path_factory.mktemp("build")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignore)
        else:
            shutil.copy(source, folder / name)
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "."], folder)
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with our wheel and this one's third-party packages."""
    venv = tmp_path_factory.mktemp("empty") / "venv"
    run([sys.executable, "-m", "venv", "--without-pip", venv], venv.parent)
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin" / "python"]
    run([*pip, "install", "-q", "--no-index", "--no-deps", wheel], venv.parent)
    # A .pth adds a folder to sys.path without reading the .pth files in it, so the editable
    # installation of the checkout stays unseen.
    (site_packages,) = venv.glob("lib/python*/site-packages")
    (site_packages / "third_party.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return venv / "bin"


def test_nothing_is_installed_beside_the_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"convit_ssl"}
    assert "convit_ssl/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_every_module_is_in_the_wheel(wheel: Path) -> None:
    """A folder without __init__.py would be left out."""
    modules = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("convit_ssl/**/*.py")}
    assert modules <= set(zipfile.ZipFile(wheel).namelist())


def test_every_experiment_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = [path.relative_to(ROOT / "configs") for path in ROOT.glob("configs/**/*.yaml")]
    assert {f"convit_ssl/experiments/{path.as_posix()}" for path in configs} <= names
    assert "convit_ssl/experiments/__init__.py" not in names


def test_requirements_are_ones_that_plain_pip_can_install(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    required = [
        Requirement(line.removeprefix("Requires-Dist: "))
        for line in lines
        if line.startswith("Requires-Dist: ")
    ]
    ordinary = [r for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]
    assert ordinary
    assert "vissl" not in {r.name for r in required}, "its pins of 2021 build nowhere"
    for requirement in ordinary:
        version = metadata.version(requirement.name)
        assert requirement.specifier.contains(version), f"{requirement} but locked {version}"


def test_command_line_works_from_an_empty_folder(
    wheel: Path, installed: Path, tmp_path: Path
) -> None:
    assert "convit_dino" in run([installed / "convit-ssl", "--help"], tmp_path)
    version = wheel.name.split("-")[1]
    assert version in run([installed / "convit-ssl", "--version"], tmp_path)


def test_models_import_without_vissl_or_hydra(installed: Path, tmp_path: Path) -> None:
    code = (
        "import sys, convit_ssl\n"
        "from convit_ssl.models import convit_small\n"
        "names = {'vissl', 'classy_vision', 'hydra', 'omegaconf', 'matplotlib'}\n"
        "heavy = names & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "print(convit_ssl.__file__)"
    )
    origin = Path(run([installed / "python", "-c", code], tmp_path).strip())
    assert origin.is_relative_to(installed.parent), "the checkout was imported, not the wheel"


def test_an_experiment_composes_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = (
        "from convit_ssl.engines.options.compose import compose_experiment, experiments_dir\n"
        "composed = compose_experiment("
        "'config=convit_dino data=digits run=cpu trunk=convit_nano'.split())\n"
        "assert composed.tree.experiment == 'convit_dino'\n"
        "print(experiments_dir())"
    )
    folder = Path(run([installed / "python", "-c", code], tmp_path).strip())
    assert folder.is_relative_to(installed.parent)
    assert folder.name == "experiments"
