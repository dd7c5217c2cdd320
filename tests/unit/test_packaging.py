"""Version, extras and recipes agree with one another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from convit_ssl import __version__

ROOT = Path(__file__).parents[2]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def section(name: str) -> str:
    return PYPROJECT.split(f"[{name}]", 1)[1].split("\n[", 1)[0]


EXTRAS = re.findall(r"^(\w+) = \[", section("project.optional-dependencies"), re.MULTILINE)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_one_version() -> None:
    assert yaml.safe_load(text("CITATION.cff"))["version"] == __version__
    assert f'{{% set version = "{__version__}" %}}' in text("conda/meta.yaml")
    assert f"## [{__version__}]" in text("CHANGELOG.md")
    minor = __version__.rpartition(".")[0]
    assert f" to {minor}" in text("UPGRADING.md")


def test_all_is_every_extra() -> None:
    whole = re.search(r'"convit_ssl\[([\w,]+)\]"', section("project.optional-dependencies"))
    assert whole is not None
    assert set(whole.group(1).split(",")) == set(EXTRAS) - {"all"}


def test_every_extra_is_documented() -> None:
    page = text("docs/install.md")
    assert [name for name in EXTRAS if f"| `{name}` |" not in page] == []


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_images_name_extras_and_files_that_exist(name: str) -> None:
    recipe = text(f"docker/{name}.Dockerfile")
    (extras,) = re.findall(r"^ARG EXTRAS=(.*)$", recipe, re.MULTILINE)
    assert set(extras.split(",")) <= set(EXTRAS)
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", recipe, re.MULTILINE):
        assert all((ROOT / word).exists() for word in line.split())
    assert re.search(r"^USER (?!root)", recipe, re.MULTILINE)
    assert not re.search(r"^(ADD|RUN .*sudo)", recipe, re.MULTILINE)


def test_the_conda_recipe_has_the_requirements_of_the_wheel() -> None:
    lines = re.search(
        r"^    run:\n((?:    - .*\n)+)", text("conda/meta.yaml").replace("  run:", "    run:"), re.M
    )
    assert lines is not None
    names = {line.split()[1] for line in lines.group(1).splitlines()}
    other = {
        "torch": "pytorch",
        "opencv-python-headless": "py-opencv",
        "matplotlib": "matplotlib-base",
    }
    block = PYPROJECT.split("\ndependencies = [", 1)[1].split("\n]", 1)[0]
    required = {Requirement(one).name for one in re.findall(r'^    "([^"]+)"', block, re.MULTILINE)}
    assert {other.get(name, name) for name in required} <= names


def test_workflows_are_yaml_with_jobs_and_few_rights() -> None:
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert found["jobs"] and found["permissions"] == {"contents": "read"}
