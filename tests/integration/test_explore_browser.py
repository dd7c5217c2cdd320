"""The exploration in a real browser: quiet, offline, fast with 100,000 images, usable by keys."""

from __future__ import annotations

import runpy
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convit_ssl.analysis.explore import write_folder

_HERE = Path(__file__).parents[1] / "unit" / "analysis"
_make = runpy.run_path(str(_HERE / "make_exploration.py"))["make_exploration"]
_chromium = runpy.run_path(str(_HERE / "chromium.py"))
_missing = _chromium["missing"]()

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(_missing is not None, reason=str(_missing)),
]
READY = "document.body.dataset.ready"
PATH = "return document.querySelector('#detail .path')?.textContent || ''"


def picture(row):
    rgb = np.random.default_rng(row).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(rgb).resize((60, 40))


@pytest.fixture(scope="module")
def browser():
    with _chromium["Browser"]() as session:
        yield session


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """300 images with thumbnails."""
    folder = tmp_path_factory.mktemp("explore") / "out"
    found, images = _make(300)
    return write_folder(folder, found, images, picture, "300 <images>", "made up", {"a": "b"})


@pytest.fixture
def opened(browser, page):
    browser.size(1400, 950)
    browser.open(page)
    browser.wait(READY)
    return browser


def test_it_is_quiet_and_fetches_nothing(opened):
    opened.console()  # what the start of the browser left
    opened.open(opened.script("return location.pathname"))
    opened.wait(READY)
    assert opened.console() == []
    loaded = opened.script("return [...document.querySelectorAll('[src]')].map(e => e.src)")
    assert loaded and all(name.startswith("file:") for name in loaded)


def test_a_hundred_thousand_images_open_within_ten_seconds(browser, tmp_path):
    found, images = _make(100_000)
    page = write_folder(tmp_path / "large", found, images, None, "large", "", {})
    browser.size(1400, 950)
    started = time.perf_counter()
    browser.open(page)
    browser.wait(READY)
    assert time.perf_counter() - started < 10
    assert browser.script("return document.querySelectorAll('#all tbody tr').length") == 25
    # Once more by hand: panning stays fluent.
    drawn = "return Number(document.querySelector('#canvas').dataset.drawn)"
    before = browser.script(drawn)
    browser.script("document.querySelector('.zoom button').click()")
    browser.wait(f"(() => {{ {drawn} }})() > {before}", 2)


def test_a_click_on_the_map_chooses_the_image_under_it(opened):
    opened.mouse("#canvas", 0.5, 0.5)
    opened.script("document.querySelector('#canvas').focus()")
    opened.key("ArrowRight")
    opened.wait("document.querySelector('#detail .path')")
    first = opened.script(PATH)
    assert first.startswith("/data/a collection/patient ")
    assert opened.script("return document.querySelectorAll('#detail .tile').length") == 12
    assert opened.script("return document.querySelector('#said').textContent").startswith("<b>")
    opened.key("ArrowDown")
    opened.wait(f"(() => {{ {PATH} }})() !== {first!r}")


def test_a_neighbour_is_chosen_in_turn(opened):
    opened.script("document.querySelector('#odd .tile').click()")
    opened.wait("document.querySelector('#detail .tile')")
    wanted = opened.script("return document.querySelector('#detail .tile').title")
    opened.script("document.querySelector('#detail .tile').click()")
    assert opened.script(PATH) == wanted


def test_thumbnails_come_when_they_are_near(opened):
    opened.script("document.querySelector('#odd').scrollIntoView()")
    opened.wait("document.querySelector('#odd .tile canvas').width > 1")
    middle = opened.script("const c = document.querySelector('#odd .tile canvas'); return c.width")
    assert middle == 112


def test_the_legend_and_the_search_choose_what_is_listed(opened):
    count = "return document.querySelector('#all [role=status]').textContent"
    assert "of 300 images" in opened.script(count)
    opened.script("document.querySelector('#keys button').click()")
    assert "of 300 images" not in opened.script(count)
    opened.script(
        "const s = document.querySelector('#search'); s.value = '000007'; "
        "document.querySelector('#keys button').click(); s.dispatchEvent(new Event('input'))"
    )
    opened.wait("document.querySelectorAll('#all tbody tr').length === 1")
    assert opened.script(count).endswith("of 1 image")


@pytest.mark.parametrize(
    "colour", ["label", "cluster", "group", "neighbours' vote", "outlier score"]
)
def test_every_colouring_has_a_legend(opened, colour):
    opened.console()  # of earlier tests, whose files are made up
    opened.script(
        "const s = document.querySelector('#colour'); s.value = arguments[0]; "
        "s.dispatchEvent(new Event('change'))",
        colour,
    )
    legend = opened.script("return document.querySelector('#keys').textContent")
    assert legend
    assert opened.console() == []


@pytest.mark.parametrize("dark", [False, True])
def test_fits_a_phone_in_light_and_dark(browser, page, dark):
    browser.size(390, 844, dark=dark)
    browser.open(page)
    browser.wait(READY)
    assert browser.script("return document.documentElement.scrollWidth") <= 390


def test_every_control_has_a_name(opened):
    nameless = opened.script(
        "return [...document.querySelectorAll('button, select, input, canvas[tabindex]')].filter(e "
        "=> !(e.textContent.trim() || e.getAttribute('aria-label') || e.closest('label'))).length"
    )
    assert nameless == 0
