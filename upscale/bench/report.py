"""The report of a run, and two pictures side by side, each as one page."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image as PILImage

from upscale.bench import tables
from upscale.bench.quality import Crops, Quantity
from upscale.bench.result import Result
from upscale.bench.tables import Cell, Grid
from upscale.images import Pixels
from upscale.page import COLOURS, axis, chart, definitions, details, document, paragraph, place, polyline

MOST_CASES = 24
"""Pictures with crops on a page: a hundred would make it heavy."""
_STYLE = Path(__file__).with_name("sliders.css")
_SCRIPT = Path(__file__).with_name("sliders.js")


@dataclass(frozen=True, slots=True)
class Slider:
    """A slider: pictures of one size, two of them shown first."""

    title: str
    pictures: Mapping[str, Pixels]
    """Name -> ``[H, W, 3]`` uint8."""
    left: str
    right: str
    notes: Mapping[str, str]
    """Name -> what stands beside it."""
    strip: bool = True
    """Whether all pictures are shown small as well."""


def bench_page(result: Result, table: Mapping[str, Quantity], crops: Sequence[Crops]) -> str:
    """Return the page of a run: tables, charts, and crops with a slider, the worst picture first."""
    about = result.about
    groups = list(dict.fromkeys((summary.dataset, summary.scale) for summary in result.summaries))
    parts = [
        "<h1>Quality and speed</h1>",
        paragraph(f"Protocol {about['protocol']}: {about['protocol_summary']}. LR: {about['lr']}."),
        details("How this was made", definitions(about)),
        details("What the columns mean", definitions({row.title: row.meaning for row in table.values()})),
    ]
    for dataset, scale in groups:
        parts.append(f"<h2>{escape(dataset)} x{scale}, means, protocol {escape(about['protocol'])}</h2>")
        parts.append(_table(tables.means(result, table, dataset, scale), _better(table)))
        literature = tables.literature(result, dataset, scale)
        if literature is not None:
            parts.append(details("What papers state", _table(literature, {})))
        parts.append(details("Each picture, the worst first", _table(tables.images(result, table, dataset, scale))))
    parts += [paragraph(remark) for remark in tables.remarks(result, table)]
    charts = [_tradeoff(result, dataset, scale) for dataset, scale in groups]
    parts += ["<h2>Quality against time</h2>", paragraph("Up and to the left is better; the line joins the networks"
              " that no other beats in both."), f'<div class="charts">{"".join(charts)}</div>']  # fmt: skip
    if result.timings:
        parts += ["<h2>Speed</h2>", _table(tables.speed(result)), *map(paragraph, tables.growth(result))]
        parts.append(f'<div class="charts">{_growth(result, "seconds")}{_growth(result, "memory")}</div>')
    sliders = _sliders(result, crops)
    shown = f"the {len(sliders)} worst of {len(crops)}" if len(sliders) < len(crops) else "the worst first"
    parts += ["<h2>Pictures</h2>", paragraph(f"The part of each on which bicubic enlargement is worst; {shown}.")]
    return page("Quality and speed", [*parts, '<div class="cases" id="sliders"></div>'], sliders)


def compare_page(title: str, figures: Grid, slider: Slider) -> str:
    """Return a page with a table and one slider as wide as the window."""
    body = [f"<h1>{escape(title)}</h1>", _table(figures), '<div class="cases wide" id="sliders"></div>']
    return page(title, body, [slider])


def try_page(title: str, slider: Slider, commands: Grid) -> str:
    """Return a page with one slider, and below it how to do the same to the whole picture."""
    below = ["<h2>On the whole picture</h2>", _table(commands)]
    body = [f"<h1>{escape(title)}</h1>", '<div class="cases wide" id="sliders"></div>', *below]
    return page(title, body, [slider])


def page(title: str, body: Sequence[str], sliders: Sequence[Slider]) -> str:
    """Return the whole page; ``body`` is HTML and has an element ``sliders``."""
    cases = [
        {
            "title": slider.title,
            "left": slider.left,
            "right": slider.right,
            "strip": slider.strip,
            "pictures": [
                {"name": name, "note": slider.notes.get(name, ""), "source": _data_url(pixels)}
                for name, pixels in slider.pictures.items()
            ],
        }
        for slider in sliders
    ]
    data = json.dumps(cases).replace("<", "\\u003c")  # a name that contains </script> must not end the element
    scripts = [
        f'<script type="application/json" id="cases">{data}</script>',
        f"<script>\n{_SCRIPT.read_text(encoding='utf-8')}</script>",
    ]
    return document(title, [*body, *scripts], _STYLE.read_text(encoding="utf-8"))


def _sliders(result: Result, crops: Sequence[Crops]) -> list[Slider]:
    scores = {(row.dataset, row.scale, row.image, row.model): row.values["psnr"] for row in result.rows}

    def score(crop: Crops, name: str) -> float | None:
        return scores.get((crop.dataset, crop.scale, crop.image, name))

    def best(crop: Crops) -> float:
        return max((value for name in crop.pictures if (value := score(crop, name)) is not None), default=-math.inf)

    sliders = []
    for crop in sorted(crops, key=best)[:MOST_CASES]:
        models = [name for name in crop.pictures if name not in ("bicubic", "HR")]
        models.sort(key=lambda name: score(crop, name) or 0.0, reverse=True)
        notes = {name: f"{value:.2f} dB" for name in crop.pictures if (value := score(crop, name)) is not None}
        title = f"{crop.dataset} x{crop.scale}, {crop.image}, from {crop.left},{crop.top}"
        sliders.append(Slider(title, crop.pictures, "bicubic", models[0] if models else "HR", notes))
    return sliders


def _data_url(pixels: Pixels) -> str:
    file = io.BytesIO()
    PILImage.fromarray(pixels).save(file, "PNG", compress_level=9)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _better(table: Mapping[str, Quantity]) -> dict[str, bool]:
    return {row.title: row.higher_is_better for row in table.values()}


def _table(grid: Grid, better: Mapping[str, bool] | None = None) -> str:
    """Return a sortable table; the best figure of the columns named in ``better`` stands out."""
    best: dict[int, float] = {}
    for index, name in enumerate(grid.columns):
        values = [row[index].value for row in grid.rows]
        known = [value for value in values if value is not None]
        if better and name in better and len(known) > 1:
            best[index] = max(known) if better[name] else min(known)
    head = "".join(
        f'<th scope="col"{_word(index, grid)}><button type="button">{escape(name)}</button></th>'
        for index, name in enumerate(grid.columns)
    )
    body = "".join(
        "<tr>" + "".join(_cell(cell, index, grid, best) for index, cell in enumerate(row)) + "</tr>"
        for row in grid.rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _word(index: int, grid: Grid) -> str:
    words = index < grid.labels or grid.columns[index] in ("remark", "command")
    return ' class="word"' if words else ""


def _cell(cell: Cell, index: int, grid: Grid, best: Mapping[int, float]) -> str:
    style = _word(index, grid)
    if cell.value is not None and cell.value == best.get(index):
        style = ' class="best"'
    # JavaScript's name of it, or the table would not sort.
    value = "" if cell.value is None else f' data-value="{cell.value}"'.replace("inf", "Infinity")
    return f"<td{style}{value}>{escape(cell.text)}</td>"


@dataclass(frozen=True, slots=True)
class _Point:
    name: str
    x: float
    y: float


def _tradeoff(result: Result, dataset: str, scale: int) -> str:
    points = [
        _Point(summary.model, summary.seconds_per_megapixel, summary.means["psnr"])
        for summary in result.summaries
        if (summary.dataset, summary.scale) == (dataset, scale)
        and summary.seconds_per_megapixel
        and summary.means["psnr"] is not None
        and math.isfinite(summary.means["psnr"])
    ]
    title = f"{dataset} x{scale}: PSNR in dB against seconds for a megapixel"
    return _chart(title, {point.name: [point] for point in points}, front(points), log_y=False)


def front(points: Sequence[_Point]) -> list[_Point]:
    """Return the points that no other beats in both, from left to right: less x, more y."""
    kept: list[_Point] = []
    for point in sorted(points, key=lambda p: (p.x, -p.y)):
        if not kept or point.y > kept[-1].y:
            kept.append(point)
    return kept


def _growth(result: Result, what: str) -> str:
    series: dict[str, list[_Point]] = {}
    for name, timings in tables.grouped(result.timings).items():
        values = [(t.megapixels, t.seconds if what == "seconds" else (t.extra or 0) / 1e6) for t in timings]
        series[name] = [_Point(name if index == len(values) - 1 else "", x, y) for index, (x, y) in enumerate(values)]
    known = {name: points for name, points in series.items() if all(point.y > 0 for point in points)}
    unit = "seconds" if what == "seconds" else "extra memory in MB"
    return _chart(f"{unit} against megapixels of the result", known, [], log_y=True, joined=True)


def _chart(
    title: str, series: Mapping[str, Sequence[_Point]], line: Sequence[_Point], *, log_y: bool, joined: bool = False
) -> str:
    """Return a chart of named series: a logarithmic x axis, points with names, and ``line`` through some of them."""
    points = [point for found in series.values() for point in found]
    if not points:
        return ""
    x_axis, y_axis = axis([p.x for p in points], log=True), axis([p.y for p in points], log=log_y)

    def at(point: _Point) -> tuple[float, float]:
        return place(x_axis, y_axis, point.x, point.y)

    marks = [polyline([at(point) for point in line], "var(--soft)", dashed=True)]
    taken: list[float] = []
    for index, found in enumerate(series.values()):
        colour = f"var(--s{index % COLOURS})"
        marks.append(polyline([at(point) for point in found] if joined else [], colour))
        for point in found:
            x, y = at(point)
            marks.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"><title>')
            marks.append(f"{escape(point.name)} {point.x:.4g}, {point.y:.4g}</title></circle>")
            if point.name:
                row = y + 4
                while any(abs(row - other) < 14 for other in taken):
                    row -= 2  # names of neighbours must not lie on each other
                taken.append(row)
                marks.append(f'<text x="{x + 9:.1f}" y="{row:.1f}">{escape(_clipped(point.name))}</text>')
    return chart(title, x_axis, y_axis, marks)


def _clipped(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "…"
