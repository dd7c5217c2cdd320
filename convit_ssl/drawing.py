"""Writing figures of matplotlib: whole or not at all, and with letters of most scripts."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from convit_ssl.writing import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Searched in turn for what matplotlib's own font lacks: one of them is on most systems that are
# used in Chinese, Japanese or Korean.
_WIDE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK KR",
    "Noto Sans CJK TC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "IPAGothic",
    "NanumGothic",
    "PingFang SC",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Arial Unicode MS",
)


@functools.cache
def _font_families() -> list[str]:
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in _WIDE_FONTS if name in installed)]


def save_figure(figure: Figure, path: str | Path, dpi: int = 150) -> Path:
    """Write PNG, SVG or PDF by the name's ending, whole or not at all.

    Args:
        figure: letters that matplotlib's own font lacks are taken from one that has them, where
            such a one is installed.
        path: of the file; its folder is made.
        dpi: of a PNG.
    """
    import matplotlib
    from matplotlib.text import Text

    path = Path(path)
    families = _font_families()
    if len(families) > 1:
        for text in figure.findobj(Text):
            text.set_fontfamily(families)
    # Text stays text in vector files, so that it can be searched and edited.
    with (
        whole_file(path) as partial,
        matplotlib.rc_context({"svg.fonttype": "none", "pdf.fonttype": 42}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands there
        figure.savefig(partial, dpi=dpi, facecolor="white")
    return path
