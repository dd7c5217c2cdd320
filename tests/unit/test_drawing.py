"""Figures on disk: whole or not at all, in the letters that fonts here have."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from convit_ssl import drawing


@pytest.fixture(autouse=True)
def fresh_fonts() -> None:
    drawing._font_families.cache_clear()


def named(*names: str) -> Figure:
    figure = Figure(figsize=(2, 2))
    axes = figure.add_subplot()
    axes.set_xticks(range(len(names)), names)
    axes.set_title(names[0])
    return figure


def test_letters_are_looked_for_in_fonts_that_are_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib import font_manager

    installed = ["DejaVu Sans", "DejaVu Serif", "Malgun Gothic", "Noto Sans CJK SC"]
    monkeypatch.setattr(font_manager, "get_font_names", lambda: installed)
    figure = named("细胞", "세포")
    drawing.save_figure(figure, tmp_path / "a.png")
    families = {tuple(text.get_fontfamily()) for text in figure.findobj(Text)}
    assert families == {("DejaVu Sans", "Noto Sans CJK SC", "Malgun Gothic")}


def test_without_such_fonts_nothing_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    from matplotlib import font_manager

    monkeypatch.setattr(font_manager, "get_font_names", lambda: ["DejaVu Sans"])
    figure = named("细胞", "b")
    before = [text.get_fontfamily() for text in figure.findobj(Text)]
    path = drawing.save_figure(figure, tmp_path / "new" / "a.png")
    assert path.stat().st_size > 500
    assert [text.get_fontfamily() for text in figure.findobj(Text)] == before
    assert not [w for w in recwarn if "Glyph" in str(w.message)]


def test_a_figure_that_cannot_be_drawn_leaves_the_earlier_one(tmp_path: Path) -> None:
    path = drawing.save_figure(named("a"), tmp_path / "a.png")
    earlier = path.read_bytes()
    with pytest.raises(ValueError, match=r"\\frac"):
        drawing.save_figure(named(r"$\frac{$"), path)
    assert path.read_bytes() == earlier
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
