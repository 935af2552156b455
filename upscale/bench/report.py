"""Pages that need nothing but themselves: the report of a run, and two pictures side by side."""

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
from upscale.bench.quality import Crops, Measure
from upscale.bench.result import Result
from upscale.bench.tables import Cell, Grid
from upscale.images import Pixels

MOST_CASES = 24
"""Pictures with crops on a page: a hundred would make it heavy."""
_TEMPLATE = Path(__file__).with_name("page.html")
_WIDTH, _HEIGHT = 460, 290  # of a chart, in its own units
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 120, 14, 34  # of its frame; names of points stand to the right


@dataclass(frozen=True, slots=True)
class Comparison:
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


def bench_page(result: Result, table: Mapping[str, Measure], crops: Sequence[Crops]) -> str:
    """Return the page of a run: tables, charts, and crops with a slider, the worst picture first."""
    about = result.about
    groups = list(dict.fromkeys((summary.dataset, summary.scale) for summary in result.summaries))
    parts = [
        "<h1>Quality and speed</h1>",
        _paragraph(f"Protocol {about['protocol']}: {about['protocol_summary']}. LR: {about['lr']}."),
        _details("How this was made", _definitions(about)),
        _details("What the columns mean", _definitions({row.title: row.meaning for row in table.values()})),
    ]
    for dataset, scale in groups:
        parts.append(f"<h2>{escape(dataset)} x{scale}, means, protocol {escape(about['protocol'])}</h2>")
        parts.append(_table(tables.means(result, table, dataset, scale), _better(table)))
        literature = tables.literature(result, dataset, scale)
        if literature is not None:
            parts.append(_details("What papers state", _table(literature, {})))
        parts.append(_details("Each picture, the worst first", _table(tables.images(result, table, dataset, scale))))
    parts += [_paragraph(remark) for remark in tables.remarks(result, table)]
    charts = [_tradeoff(result, dataset, scale) for dataset, scale in groups]
    parts += ["<h2>Quality against time</h2>", _paragraph("Up and to the left is better; the line joins the networks"
              " that no other beats in both."), f'<div class="charts">{"".join(charts)}</div>']  # fmt: skip
    if result.timings:
        parts += ["<h2>Speed</h2>", _table(tables.speed(result)), *map(_paragraph, tables.growth(result))]
        parts.append(f'<div class="charts">{_growth(result, "seconds")}{_growth(result, "memory")}</div>')
    comparisons = _comparisons(result, crops)
    shown = f"the {len(comparisons)} worst of {len(crops)}" if len(comparisons) < len(crops) else "the worst first"
    parts += ["<h2>Pictures</h2>", _paragraph(f"The part of each on which bicubic enlargement is worst; {shown}.")]
    return page("Quality and speed", [*parts, '<div class="cases" id="sliders"></div>'], comparisons)


def compare_page(title: str, figures: Grid, comparison: Comparison) -> str:
    """Return a page with a table and one slider as wide as the window."""
    body = [f"<h1>{escape(title)}</h1>", _table(figures), '<div class="cases wide" id="sliders"></div>']
    return page(title, body, [comparison])


def try_page(title: str, comparison: Comparison, commands: Grid) -> str:
    """Return a page with one slider, and below it how to do the same to the whole picture."""
    below = ["<h2>On the whole picture</h2>", _table(commands)]
    body = [f"<h1>{escape(title)}</h1>", '<div class="cases wide" id="sliders"></div>', *below]
    return page(title, body, [comparison])


def page(title: str, body: Sequence[str], comparisons: Sequence[Comparison]) -> str:
    """Return the whole page; ``body`` is HTML and has an element ``sliders``."""
    cases = [
        {
            "title": comparison.title,
            "left": comparison.left,
            "right": comparison.right,
            "strip": comparison.strip,
            "pictures": [
                {"name": name, "note": comparison.notes.get(name, ""), "source": _data_url(pixels)}
                for name, pixels in comparison.pictures.items()
            ],
        }
        for comparison in comparisons
    ]
    data = json.dumps(cases).replace("<", "\\u003c")  # a name that contains </script> must not end the element
    template = _TEMPLATE.read_text(encoding="utf-8")
    head, rest = template.split("@BODY@")
    middle, tail = rest.split("@CASES@")
    return head.replace("@TITLE@", escape(title)) + "\n".join(body) + middle + data + tail


def _comparisons(result: Result, crops: Sequence[Crops]) -> list[Comparison]:
    scores = {(row.dataset, row.scale, row.image, row.model): row.values["psnr"] for row in result.rows}

    def score(crop: Crops, name: str) -> float | None:
        return scores.get((crop.dataset, crop.scale, crop.image, name))

    def best(crop: Crops) -> float:
        return max((value for name in crop.pictures if (value := score(crop, name)) is not None), default=-math.inf)

    comparisons = []
    for crop in sorted(crops, key=best)[:MOST_CASES]:
        models = [name for name in crop.pictures if name not in ("bicubic", "HR")]
        models.sort(key=lambda name: score(crop, name) or 0.0, reverse=True)
        notes = {name: f"{value:.2f} dB" for name in crop.pictures if (value := score(crop, name)) is not None}
        title = f"{crop.dataset} x{crop.scale}, {crop.image}, from {crop.left},{crop.top}"
        comparisons.append(Comparison(title, crop.pictures, "bicubic", models[0] if models else "HR", notes))
    return comparisons


def _data_url(pixels: Pixels) -> str:
    file = io.BytesIO()
    PILImage.fromarray(pixels).save(file, "PNG", compress_level=9)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _paragraph(text: str) -> str:
    return f'<p class="soft">{escape(text)}</p>'


def _details(title: str, body: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def _definitions(facts: Mapping[str, object]) -> str:
    rows = []
    for key, value in facts.items():
        text = value if isinstance(value, str) else json.dumps(value)
        rows.append(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>")
    return f"<dl>{''.join(rows)}</dl>"


def _better(table: Mapping[str, Measure]) -> dict[str, bool]:
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
    value = "" if cell.value is None else f' data-value="{cell.value}"'
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
    x_axis, y_axis = _axis([p.x for p in points], log=True), _axis([p.y for p in points], log=log_y)

    def place(point: _Point) -> tuple[float, float]:
        return (
            _LEFT + x_axis.at(point.x) * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - y_axis.at(point.y) * (_HEIGHT - _TOP - _BOTTOM),
        )

    marks = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">']
    for tick in x_axis.ticks:
        x, _ = place(_Point("", tick, points[0].y))
        marks.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        marks.append(f'<text class="tick" x="{x:.1f}" y="{_HEIGHT - 14}" text-anchor="middle">{tick:g}</text>')
    for tick in y_axis.ticks:
        _, y = place(_Point("", points[0].x, tick))
        marks.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        marks.append(f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    marks.append(_path([place(point) for point in line], "var(--soft)", dashed=True))
    taken: list[float] = []
    for index, found in enumerate(series.values()):
        colour = f"var(--s{index % 6})"
        marks.append(_path([place(point) for point in found] if joined else [], colour))
        for point in found:
            x, y = place(point)
            marks.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"><title>')
            marks.append(f"{escape(point.name)} {point.x:.4g}, {point.y:.4g}</title></circle>")
            if point.name:
                row = y + 4
                while any(abs(row - other) < 14 for other in taken):
                    row -= 2  # names of neighbours must not lie on each other
                taken.append(row)
                marks.append(f'<text x="{x + 9:.1f}" y="{row:.1f}">{escape(_clipped(point.name))}</text>')
    return f"<figure><figcaption>{escape(title)}</figcaption>{''.join(marks)}</svg></figure>"


def _path(places: Sequence[tuple[float, float]], colour: str, *, dashed: bool = False) -> str:
    if len(places) < 2:
        return ""
    steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dash = ' stroke-dasharray="4 4"' if dashed else ""
    return f'<polyline points="{steps}" fill="none" stroke="{colour}" stroke-width="1.5"{dash}/>'


def _clipped(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "…"


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float
    log: bool
    ticks: Sequence[float]

    def at(self, value: float) -> float:
        """Return where ``value`` lies, 0 to 1."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def _axis(values: Sequence[float], *, log: bool) -> _Axis:
    """Return an axis with a margin around ``values`` and ticks at 1, 2 and 5 times powers of ten."""
    low, high = min(values), max(values)
    if log:
        low, high = low / 1.4, high * 1.4
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [m * 10.0**d for d in decades for m in (1, 2, 5)]
    else:
        margin = max((high - low) * 0.15, 0.1)
        low, high = low - margin, high + margin
        step = 10.0 ** math.floor(math.log10((high - low) / 2))
        step *= next(m for m in (5, 2, 1) if (high - low) / (m * step) >= 2)
        ticks = [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    shown = [round(tick, 10) for tick in ticks if low <= tick <= high]
    while len(shown) > 8:
        shown = shown[::3] if log else shown[::2]
    return _Axis(low, high, log, shown)
