"""Pages that need nothing but themselves: their frame, their style, and the parts that several of them have."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

_STYLE = Path(__file__).with_name("page.css")
WIDTH, HEIGHT = 460, 290  # of a chart, in its own units
LEFT, RIGHT, TOP, BOTTOM = 46, 120, 14, 34  # of its frame; names stand to the right
COLOURS = 6
"""How many colours of series the style has."""


def document(title: str, body: Sequence[str], style: str = "") -> str:
    """Return the whole page; ``body`` is HTML, ``style`` is added to what all pages have. It may load nothing."""
    rules = _STYLE.read_text(encoding="utf-8") + style
    content = "\n".join(body)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{rules}</style>
</head>
<body>
{content}
</body>
</html>
"""


def paragraph(text: str) -> str:
    """Return a paragraph of plain text."""
    return f'<p class="soft">{escape(text)}</p>'


def details(title: str, body: str) -> str:
    """Return ``body`` (HTML) folded away under ``title``."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def definitions(facts: Mapping[str, object]) -> str:
    """Return a list of names and what they are."""
    rows = []
    for key, value in facts.items():
        text = value if isinstance(value, str) else json.dumps(value)
        rows.append(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>")
    return f"<dl>{''.join(rows)}</dl>"


def polyline(places: Sequence[tuple[float, float]], colour: str, *, dashed: bool = False) -> str:
    """Return a line through ``places``, nothing for a single one."""
    if len(places) < 2:
        return ""
    steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dash = ' stroke-dasharray="4 4"' if dashed else ""
    return f'<polyline points="{steps}" fill="none" stroke="{colour}" stroke-width="1.5"{dash}/>'


def chart(title: str, x_axis: Axis, y_axis: Axis, marks: Sequence[str]) -> str:
    """Return a chart: a frame with the ticks of both axes, and ``marks`` (SVG) placed by ``place``."""
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for tick in x_axis.ticks:
        x, _ = place(x_axis, y_axis, tick, y_axis.low)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 14}" text-anchor="middle">{tick:g}</text>')
    for tick in y_axis.ticks:
        _, y = place(x_axis, y_axis, x_axis.low, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    return f"<figure><figcaption>{escape(title)}</figcaption>{''.join(parts)}{''.join(marks)}</svg></figure>"


def place(x_axis: Axis, y_axis: Axis, x: float, y: float) -> tuple[float, float]:
    """Return where the values ``x`` and ``y`` lie in a chart, in its units."""
    return (
        LEFT + x_axis.at(x) * (WIDTH - LEFT - RIGHT),
        HEIGHT - BOTTOM - y_axis.at(y) * (HEIGHT - TOP - BOTTOM),
    )


@dataclass(frozen=True, slots=True)
class Axis:
    """What of a chart's axis is shown."""

    low: float
    high: float
    log: bool
    ticks: Sequence[float]

    def at(self, value: float) -> float:
        """Return where ``value`` lies, 0 to 1."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def axis(values: Sequence[float], *, log: bool, margin: float = 0.15, least: float = 0.1) -> Axis:
    """Return an axis around ``values`` with ticks at 1, 2 and 5 times powers of ten.

    On a linear one, ``margin`` is left at both ends, a part of the range, but ``least`` in any case.
    """
    low, high = min(values), max(values)
    if log:
        low, high = low / 1.4, high * 1.4
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [m * 10.0**d for d in decades for m in (1, 2, 5)]
    else:
        around = max((high - low) * margin, least)
        low, high = low - around, high + around
        step = 10.0 ** math.floor(math.log10((high - low) / 2))
        step *= next(m for m in (5, 2, 1) if (high - low) / (m * step) >= 2)
        ticks = [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    shown = [tick for tick in ticks if low <= tick <= high]
    while len(shown) > 8:
        shown = shown[::3] if log else shown[::2]
    return Axis(low, high, log, shown)
