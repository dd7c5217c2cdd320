"""The documentation as a site: nothing is fetched from the network, and links lead somewhere."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from mkdocs.exceptions import PluginError

ROOT = Path(__file__).parents[2]
HOOKS = runpy.run_path(str(ROOT / "docs" / "site_hooks.py"))


def build(folder: Path, **pages: str) -> dict[str, Any]:
    (folder / "img").mkdir()
    (folder / "img" / "a.png").write_bytes(b"")
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text)
    return {"site_dir": str(folder)}


def test_a_page_that_needs_nothing_else_passes(tmp_path: Path) -> None:
    text = (
        '<h1 id="top">A</h1><a href="b.html#there">b</a><a href="#top">a</a><img src="img/a.png">'
        '<a href="https://arxiv.org/abs/2103.10697">paper</a><a href="mailto:a@b.c">mail</a>'
    )
    HOOKS["on_post_build"](build(tmp_path, a=text, b='<p id="there">B</p>'))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('<script src="https://example.org/shim"></script>', "https://example.org/shim"),
        ('<link rel="stylesheet" href="//example.org/a.css">', "//example.org/a.css"),
        ('<a href="missing.html">x</a>', "missing.html"),
        ('<a href="b.html#nowhere">x</a>', "b.html#nowhere"),
        ('<img src="img/b.png">', "img/b.png"),
    ],
)
def test_what_is_missing_or_outside_is_named(tmp_path: Path, text: str, named: str) -> None:
    config = build(tmp_path, a=text, b="<p>B</p>")
    with pytest.raises(PluginError, match=named.replace(".", r"\.")):
        HOOKS["on_post_build"](config)


def test_scripts_of_the_site_are_files_of_ours() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    named = [*config["extra_css"], *config["extra_javascript"], *config["extra"]["polyfills"]]
    assert all((ROOT / "docs" / name).is_file() for name in named)
    # The offline plugin fetches its own script unless one of this name is there.
    assert any("iframe-worker" in name for name in config["extra"]["polyfills"])
    assert config["theme"]["font"] is False
