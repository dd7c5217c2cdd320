"""Make this folder's pictures again from a run: ``python docs/img/make.py runs/demo``.

Takes the folder of ``convit-ssl demo``, or of any run with a report. Needs Chromium and its driver
(on Debian: chromium, chromium-driver).
"""

from __future__ import annotations

import base64
import io
import runpy
import sys
from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).parent
BROWSER = HERE.parents[1] / "tests" / "unit" / "analysis" / "chromium.py"
DRAWN = "document.querySelector('.gallery')?.cell && document.querySelector('.neighbours')"
MARGIN = 12  # pixels


def main(run: Path) -> None:
    """Write report_desktop.jpg, report_phone.jpg and demo_before_after.png, and say their sizes."""
    chromium = runpy.run_path(str(BROWSER))
    if reason := chromium["missing"]():
        sys.exit(f"no pictures: {reason}")
    page = run / "report" / "report.html"
    if not page.is_file():
        sys.exit(f"{page} is not there; make it by: convit-ssl report {run}")
    with chromium["Browser"]() as browser:
        browser.size(1180)
        browser.open(page)
        browser.wait(DRAWN)
        shoot(browser, HERE / "report_desktop.jpg", "header", "#gates", 1180)
        browser.size(390, 844, dark=True)
        browser.open(page)
        browser.wait(DRAWN)
        shoot(browser, HERE / "report_phone.jpg", "#attention", "#attention", 390)
        if said := browser.console():
            sys.exit(f"the page has complaints: {said}")
    drawn = run / "before_after.png"
    if drawn.is_file():
        picture = Image.open(drawn).convert("RGB").quantize(128)
        picture.save(HERE / "demo_before_after.png", optimize=True)
    for path in sorted([*HERE.glob("*.jpg"), *HERE.glob("*.png")]):
        print(f"{path}  {path.stat().st_size / 1e3:.0f} kB")


def shoot(browser: Any, path: Path, first: str, last: str, width: int) -> None:
    """The page from one element's top to another's bottom, as a small JPEG."""
    top, bottom = browser.script(
        "const box = (name) => document.querySelector(name).getBoundingClientRect();"
        "return [box(arguments[0]).top + scrollY, box(arguments[1]).bottom + scrollY]",
        first,
        last,
    )
    top = max(top - MARGIN, 0)
    clip = {"x": 0, "y": top, "width": width, "height": bottom + MARGIN - top, "scale": 1}
    wanted = {"format": "png", "clip": clip, "captureBeyondViewport": True}
    shot = browser.devtools("Page.captureScreenshot", wanted)
    picture = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
    picture.save(path, quality=84, optimize=True, progressive=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/img/make.py RUN")
    main(Path(sys.argv[1]))
