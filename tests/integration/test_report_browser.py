"""The page in a real browser: quiet, offline, drawn, and answering to mouse and keys."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convit_ssl.analysis.attention import image_attention
from convit_ssl.analysis.comparison import write_comparison
from convit_ssl.analysis.images import prepare_image
from convit_ssl.analysis.locality import grid_distances
from convit_ssl.analysis.report import write_report
from convit_ssl.analysis.runs import read_runs
from convit_ssl.analysis.summary import LabelledImage, Sample, summarise_run

_HERE = Path(__file__).parents[1] / "unit" / "analysis"
_runs = runpy.run_path(str(_HERE / "make_run.py"))
_chromium = runpy.run_path(str(_HERE / "chromium.py"))
_missing = _chromium["missing"]()

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(_missing is not None, reason=str(_missing)),
]
READY = "document.querySelector('.gallery') && document.querySelector('.gallery').cell"


def picture(width, height, seed=0):
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 255, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def sample():
    classes = ["apple", "</script><b>", "plum"]
    labelled = [LabelledImage(picture(32, 32, i), i % 3, f"{i} <i>.png") for i in range(24)]
    return Sample([("photo", picture(90, 60)), ("tall", picture(40, 90))], labelled, classes, "")


@pytest.fixture(scope="module")
def page(tmp_path_factory, sample):
    """A page of three runs: with gates, with a classifier, and without GPSA."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [
        _runs["make_run"](folder / "convit_dino", epochs=6),
        _runs["make_run"](folder / "supervised", epochs=6, seed=1, num_classes=3),
        _runs["make_run"](folder / "deit", "deit_nano", epochs=6, seed=2),
    ]
    summaries = [summarise_run(run, _runs["load"], sample) for run in read_runs(runs)]
    return write_report(summaries, folder / "out", figures=False)


@pytest.fixture(scope="module")
def browser():
    with _chromium["Browser"]() as session:
        yield session


@pytest.fixture
def opened(browser, page):
    browser.size(1280)
    browser.open(page)
    browser.script("sessionStorage.clear()")
    browser.open(page)
    browser.wait(READY)
    return browser


def caption(browser, part):
    """(peak in %, mean distance) as the page shows them below one map."""
    index = ["content", "positional", "mixed"].index(part)
    text = browser.script(
        "return document.querySelectorAll('.attention .scale')[arguments[0]].textContent", index
    )
    return tuple(float(number) for number in re.findall(r"[\d.]+", text))


def canvas(browser, index):
    """The pixels of one of the large canvases, as text that changes with them."""
    return browser.script(
        "return document.querySelectorAll('.attention canvas')[arguments[0]].toDataURL()", index
    )


def dense_caption(maps, layer, head, row, column):
    rows, columns = maps.image.grid
    query = row * columns + column
    found = {}
    for part, values in (
        ("content", maps.layers[layer].content),
        ("positional", maps.layers[layer].position),
        ("mixed", maps.layers[layer].mixed),
    ):
        line = values[head, query]
        distance = float((line * grid_distances((rows, columns))[query].numpy()).sum())
        found[part] = (100 * float(line.max()), distance)
    return found


def test_opens_offline_without_a_word_on_the_console(opened):
    assert opened.console() == []
    assert opened.script("return performance.getEntriesByType('resource').length") <= 20
    fetched = opened.script(
        "return performance.getEntriesByType('resource').map((e) => e.name)"
        ".filter((name) => !name.startsWith('data:'))"
    )
    assert fetched == []
    sections = opened.script("return [...document.querySelectorAll('section')].map((s) => s.id)")
    assert sections == [
        "verdict", "overview", "images", "training", "gates", "heads", "nonlocality", "attention",
        "features", "attribution", "provenance",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("part", "kind"), [("training", "image/svg+xml"), ("features", "image/png")]
)
def test_figures_can_be_saved(opened, part, kind):
    opened.wait("document.querySelector('#features .save')")
    opened.script(
        "URL.createObjectURL = (blob) => { window.saved = blob; return '#'; };"
        "document.querySelector(`#${arguments[0]} .save`).click()",
        part,
    )
    opened.wait("window.saved")
    assert opened.script("return window.saved.type") == kind
    assert opened.script("return window.saved.size") > 500


def test_every_picture_has_an_alternative_text(opened):
    nameless = opened.script(
        "return [...document.querySelectorAll('svg, canvas, img, button, select')].filter((e) =>"
        " !e.closest('[aria-hidden]') && !e.getAttribute('aria-label') && !e.getAttribute('alt')"
        " && !e.textContent.trim()).map((e) => e.outerHTML.slice(0, 90))"
    )
    assert nameless == []


def test_names_are_shown_as_text(opened):
    text = opened.script("return document.body.innerText")
    assert "</script><b>" in text
    assert opened.script("return document.querySelectorAll('section b i, section i b').length") == 0


def test_a_click_changes_the_maps_to_the_dense_ones(opened, page, sample):
    model = _runs["load"](page.parents[1] / "convit_dino" / "checkpoints" / "last.torch")
    maps = image_attention(model, prepare_image(sample.pictures[0][1], model))
    before = [canvas(opened, i) for i in range(4)]
    opened.mouse(".attention canvas", 0.21, 0.8)
    assert [canvas(opened, i) for i in range(4)] != before
    expected = dense_caption(maps, 0, 0, 6, 2)
    for part in ("content", "positional", "mixed"):
        assert caption(opened, part) == pytest.approx(expected[part], rel=0.01, abs=0.06)
    # Layer 2, head 3 by a click into the table of small maps.
    place = opened.script(
        "const g = document.querySelector('.gallery'), c = g.cell, b = g.getBoundingClientRect();"
        "return [(c.left + 3.4 * c.stepX) / b.width, (c.top + 2.4 * c.stepY) / b.height]"
    )
    opened.mouse(".gallery", *place)
    expected = dense_caption(maps, 2, 3, 6, 2)
    for part in ("content", "positional", "mixed"):
        assert caption(opened, part) == pytest.approx(expected[part], rel=0.01, abs=0.06)
    assert opened.console() == []


def test_keys_move_the_query_the_layer_and_the_cross_hair(opened, page, sample):
    model = _runs["load"](page.parents[1] / "convit_dino" / "checkpoints" / "last.torch")
    maps = image_attention(model, prepare_image(sample.pictures[0][1], model))
    opened.script("document.querySelector('.attention canvas').focus()")
    for key in ("ArrowUp", "ArrowLeft", "ArrowLeft"):
        opened.key(key)
    expected = dense_caption(maps, 0, 0, 3, 4)
    assert caption(opened, "mixed") == pytest.approx(expected["mixed"], rel=0.01, abs=0.06)
    opened.script("document.querySelector('.gallery').focus()")
    opened.key("ArrowDown")
    expected = dense_caption(maps, 1, 0, 3, 4)
    assert caption(opened, "mixed") == pytest.approx(expected["mixed"], rel=0.01, abs=0.06)
    opened.script("document.querySelector('#training svg[tabindex]').focus()")
    opened.key("ArrowRight")
    assert "convit_dino" in opened.script("return document.getElementById('tip').innerText")


def test_choosing_a_run_changes_all_parts(opened):
    press = (
        "[...document.querySelectorAll('#gates .runs button')]"
        ".find((b) => b.textContent === arguments[0]).click()"
    )
    opened.script(press, "deit")
    opened.wait("document.querySelector('.attention.plain')")
    assert "no gates" in opened.script("return document.querySelector('#gates').innerText")
    assert opened.script("return document.querySelectorAll('#attention .cells canvas').length") == 8
    opened.script(press, "supervised")
    opened.wait("document.querySelectorAll('#attribution canvas').length === 2")
    assert opened.console() == []


def test_choosing_runs_quickly_shows_the_last_one_alone(opened):
    opened.script(
        "const buttons = [...document.querySelectorAll('#features .runs button')];"
        "buttons[1].click(); buttons[2].click(); buttons[0].click()"
    )
    opened.wait("document.querySelector('#features .neighbours')")
    opened.wait("document.querySelectorAll('#features figure').length >= 2")
    assert (
        opened.script("return document.querySelectorAll('#features canvas[tabindex]').length") == 1
    )


def test_numbers_in_coloured_cells_can_be_read(opened):
    cells = opened.script(
        "return [...document.querySelectorAll('svg g')].map((g) =>"
        " [g.querySelector('rect'), g.querySelector('text')]).filter(([a, b]) => a && b)"
        ".map((pair) => pair.map((e) => getComputedStyle(e).fill))"
    )
    assert len(cells) >= 16
    for ground, text in cells:
        one, other = (
            "#" + "".join(f"{int(v):02x}" for v in re.findall(r"\d+", colour)[:3])
            for colour in (ground, text)
        )
        assert contrast(one, other) >= 4.5, (ground, text)


def test_hovering_the_feature_map_shows_a_thumbnail(opened):
    opened.wait("document.querySelector('#features .neighbours')")
    opened.mouse("#features canvas[role=application]", 0.5, 0.5)
    assert opened.script("return document.querySelectorAll('#tip canvas').length") == 1
    heading = opened.script("return document.querySelector('#features h3').textContent")
    assert re.match(r"Neighbours of \d+ <i>\.png", heading)


@pytest.mark.parametrize("dark", [False, True])
def test_fits_a_phone_in_light_and_dark(browser, page, dark):
    browser.size(390, 844, dark=dark)
    browser.open(page)
    browser.wait(READY)
    assert browser.script("return document.documentElement.scrollWidth") <= 390
    ground = browser.script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 150) == dark
    small = browser.script(
        "return [...document.querySelectorAll('p, td, dd, figcaption, button')].filter((e) =>"
        " parseFloat(getComputedStyle(e).fontSize) < 12).length"
    )
    assert small == 0
    assert browser.console() == []


def test_text_stands_out_from_its_ground(browser, page):
    """WCAG contrast of at least 4.5 for the text colours of both themes."""
    for dark in (False, True):
        browser.size(1280, dark=dark)
        browser.open(page)
        colours = browser.script(
            "const s = getComputedStyle(document.documentElement);"
            "return Object.fromEntries(['ground','card','ink','soft','accent','warn','warn-ground']"
            ".map((n) => [n, s.getPropertyValue('--' + n).trim()]))"
        )
        pairs = [(a, b) for a in ("ink", "soft", "accent") for b in ("ground", "card")]
        for text, ground in [*pairs, ("warn", "warn-ground")]:
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground, dark)


def contrast(one, other):
    def luminance(colour):
        values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_long_names_of_networks_stay_in_their_card(browser, page):
    browser.size(390)
    browser.open(page)
    browser.wait(READY)
    over = browser.script(
        "const section = document.querySelector('section');"
        "const item = document.createElement('li');"
        "item.textContent = '(--reference timm:vit_small_patch14_dinov2.lvd142m'.repeat(3);"
        "section.append(item); return item.scrollWidth - item.clientWidth"
    )
    assert over <= 0


def test_empty_runs_open_as_well(browser, tmp_path):
    run = _runs["make_run"](tmp_path / "bare", epochs=1, checkpoints=0, write_gates=False)
    summaries = [summarise_run(read_runs([run])[0], _runs["load"], None)]
    browser.open(write_report(summaries, tmp_path / "out", figures=False))
    browser.wait("document.querySelectorAll('section').length >= 8")
    assert browser.console() == []
    assert "No checkpoint" in browser.script("return document.body.innerText")


def test_comparison_page(browser, tmp_path):
    rows = [
        {"accuracy": 0.5 + share / 3 + seed / 100, "seed": seed, "model": model,
         "fraction": share, "parameters": 1.2e6, "images_per_s": 700}
        for model in ("convit_nano", "deit_nano") for share in (0.1, 0.3, 1.0) for seed in (0, 1)
    ]  # fmt: skip
    rows.append({"accuracy": 0.4, "ablation": "no gating", "model": "convit_nano"})
    (tmp_path / "results.json").write_text(json.dumps(rows))
    browser.size(1280)
    browser.open(write_comparison([tmp_path / "results.json"], tmp_path))
    browser.wait("document.querySelectorAll('section').length === 4")
    assert browser.console() == []
    assert browser.script("return document.querySelectorAll('svg.chart circle').length") > 30
    assert "59.7" in browser.script("return document.body.innerText")
    browser.size(390, 844)
    browser.open(tmp_path / "comparison.html")
    browser.wait("document.querySelectorAll('section').length === 4")
    cut = browser.script(
        "return [...document.querySelectorAll('svg text')].filter((e) =>"
        " e.getBoundingClientRect().left < 0).map((e) => e.textContent)"
    )
    assert cut == []
    browser.size(1280)
    (tmp_path / "results.json").write_text('[{"accuracy": 0.5}]')
    browser.open(write_comparison([tmp_path / "results.json"], tmp_path))
    browser.wait("document.querySelectorAll('section').length === 4")
    assert browser.console() == []
