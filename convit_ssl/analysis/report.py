"""``report.html``, its figures as PNG and its numbers as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from convit_ssl import __version__
from convit_ssl.analysis.page import build_page, write_text
from convit_ssl.analysis.serialise import CURVES, numbers, page_run
from convit_ssl.analysis.summary import RunSummary

# Characters of attention maps in one page; the limit of the whole page is 8 MB.
ATTENTION_BUDGET = 4_500_000


def write_report(
    summaries: Sequence[RunSummary],
    folder: Path,
    command: str = "",
    figures: bool = True,
    refresh_seconds: int | None = None,
) -> Path:
    """Write report.html, report.json and figures/*.png.

    Args:
        summaries: one or more runs, from `summarise_run`.
        folder: is made where it does not exist.
        command: the command line that makes the report again.
        figures: also draw the PNG files.
        refresh_seconds: the page loads itself again after this time.

    Returns:
        The path of report.html.
    """
    now = time.strftime("%Y-%m-%d %H:%M:%S %z")
    content = {"format": 1, "made": now, "convit_ssl": __version__, "command": command}
    rows = [numbers(summary) for summary in summaries]
    text = json.dumps({**content, "runs": rows}, indent=1, allow_nan=False)
    write_text(folder / "report.json", text + "\n")
    if figures:
        from convit_ssl.analysis.figures import write_figures

        write_figures(summaries, folder / "figures")
    names = ", ".join(summary.run.name for summary in summaries)
    data = {
        "runs": [page_run(summary, ATTENTION_BUDGET // len(summaries)) for summary in summaries],
        "main_curves": list(CURVES),
        "refresh_seconds": refresh_seconds,
        "footer": f"Made {now} by convit_ssl {__version__}" + (" with" if command else "."),
        "command": command,
    }
    page = folder / "report.html"
    subtitle = f"{len(summaries)} run{'s' if len(summaries) > 1 else ''} · made {now}"
    write_text(page, build_page("report", f"Report: {names}", subtitle, data))
    return page
