"""The page, driven in a real browser as a user would."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.bench.browser import CHROMIUM, DRIVER, Browser, browser
from upscale.bench.quality import quantities, run, summarise
from upscale.bench.report import Slider, _Point, bench_page, compare_page, front
from upscale.bench.result import Result, about
from upscale.bench.sets import open_sets
from upscale.bench.speed import Timing
from upscale.bench.tables import Cell, Grid, number
from upscale.images import Image, write_image
from upscale.loading import load
from upscale.metrics import PROTOCOLS
from upscale.page import axis

HOSTILE = "<b>x</script>"
needs_browser = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="Chromium and chromedriver are not installed")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the page of a run on three pictures of growing difficulty."""
    folder = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(0)
    for index, name in enumerate(("even", "middle", "rough")):
        write_image(folder / f"{name}.png", Image(pixels=rng.integers(100, 110 + 60 * index, (40, 64, 3), np.uint8)))
    upscalers = {"bicubic": load("bicubic"), HOSTILE: load("lanczos")}
    sets, protocol, table = open_sets([str(folder)], None, [2]), PROTOCOLS["y"], quantities()
    rows, crops = [], []
    for found, parts in run(upscalers, sets, [2], protocol, table):
        rows += found
        crops += [parts] if parts else []
    timings = [
        Timing(
            model=HOSTILE, device="cpu", precision="fp32", tile=64, scale=2, size=n, megapixels=n / 1e3,
            seconds=n / 1e4, spread=0.01, work=1.0, tflops=None, share=None, memory=n * 10**7, extra=n * 10**6,
        )
        for n in (16, 24, 32)
    ]  # fmt: skip
    made = about(upscalers, ["bicubic", "lanczos"], sets, protocol, [2])
    path = folder / "report.html"
    path.write_text(bench_page(Result(made, summarise(rows, protocol), rows, timings), table, crops), encoding="utf-8")
    return path


@pytest.fixture
def tab(page: Path) -> Iterator[Browser]:
    """Give a browser that shows the page; afterwards, it must have been silent and alone."""
    with browser() as opened:
        opened.emulate(dark=False, width=1200)
        opened.open(page)
        yield opened
        assert opened.log("browser") == []
        assert set(opened.requests()) == {page.as_uri()}


def test_the_front_keeps_what_no_other_beats_in_both() -> None:
    points = [_Point("slow", 4, 30), _Point("fast", 1, 28), _Point("worse", 2, 27), _Point("best", 2, 31)]
    assert [point.name for point in front(points)] == ["fast", "best"]


def test_names_are_text_not_markup(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert "&lt;b&gt;x&lt;/script&gt;" in text


def test_nothing_on_the_page_points_elsewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "http://" not in text
    assert "https://" not in text


def test_an_infinite_figure_is_a_number_to_javascript() -> None:
    grid = Grid(["picture", "PSNR"], 1, [[Cell("a"), number(math.inf, 2)], [Cell("b"), number(30.5, 2)]])
    page = compare_page("title", grid, Slider("s", {}, "a", "b", {}, strip=False))
    assert re.findall('data-value="(.*?)"', page) == ["Infinity", "30.5"]


@needs_browser
def test_tables_sort_both_ways(tab: Browser) -> None:
    column = "return [...document.querySelectorAll('table')[1].tBodies[0].rows].map((row) => row.cells[2].textContent)"
    tab.click("details:has(table) summary")
    tab.run("document.querySelectorAll('details').forEach((d) => d.open = true)")
    before = [float(text) for text in tab.run(column)]
    assert len(before) == 6
    assert before == sorted(before)  # the worst first
    heading = ".scroll:has(td.word + td.word) th:nth-child(3) button"
    tab.click(heading)
    assert [float(text) for text in tab.run(column)] == sorted(before, reverse=True)
    tab.click(heading)
    assert [float(text) for text in tab.run(column)] == sorted(before)
    assert tab.run("return document.querySelector('[aria-sort]').getAttribute('aria-sort')") == "ascending"


@needs_browser
@pytest.mark.parametrize("kind", ["mouse", "touch"])
def test_the_slider_follows_mouse_and_finger(tab: Browser, kind: str) -> None:
    share = "return getComputedStyle(document.querySelector('.slider')).getPropertyValue('--at').trim()"
    assert tab.run(share) == "50%"
    tab.drag(".slider", 0.5, 0.8, kind)
    assert float(tab.run(share).removesuffix("%")) == pytest.approx(80, abs=4)
    shown = tab.run("return getComputedStyle(document.querySelector('.over')).clipPath")
    assert float(shown.split()[1].removesuffix("%").removeprefix("calc(")) == pytest.approx(20, abs=4)


@needs_browser
def test_the_slider_follows_the_keyboard(tab: Browser) -> None:
    share = "return document.querySelector('.slider input').value"
    tab.run("document.querySelector('.slider input').focus()")
    tab.keys(".slider input", "\ue014\ue014\ue014")  # arrow right
    assert tab.run(share) == "53"
    tab.keys(".slider input", "\ue011")  # home
    assert tab.run(share) == "0"


@needs_browser
def test_every_network_and_the_original_can_be_chosen_and_the_worst_stands_first(tab: Browser) -> None:
    titles = tab.run("return [...document.querySelectorAll('.case > figcaption')].map((title) => title.textContent)")
    assert [title.split(", ")[1] for title in titles] == ["rough", "middle", "even"]
    names = tab.run("return [...document.querySelector('.picks select').options].map((option) => option.value)")
    assert names == ["bicubic", HOSTILE, "HR"]
    before = tab.run("return document.querySelector('.slider .under').src")
    script = "const s = document.querySelectorAll('.picks select')[1]; s.value = 'HR';"
    tab.run(script + "s.dispatchEvent(new Event('change'))")
    assert tab.run("return document.querySelector('.slider .under').src") != before
    assert tab.run("return [...document.querySelectorAll('.slider .name')].map((n) => n.textContent)")[1] == "HR"
    assert tab.run("return [...document.images].every((image) => image.complete && image.naturalWidth > 0)")


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1200, 360])
def test_the_page_fits_the_window_and_follows_the_theme(tab: Browser, page: Path, dark: bool, width: int) -> None:
    tab.emulate(dark=dark, width=width)
    tab.open(page)
    assert tab.run("return document.documentElement.scrollWidth") <= width
    red, *_ = tab.run("return getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)")
    assert (red < 60) == dark
    assert tab.run("return document.querySelectorAll('svg circle').length") >= 2 + 2 * 3


def test_an_axis_of_values_near_nothing_has_ticks_in_sight() -> None:
    tiny = axis([3e-16, 6e-14], log=True)
    assert tiny.ticks
    assert all(0 <= tiny.at(tick) <= 1 for tick in tiny.ticks)
