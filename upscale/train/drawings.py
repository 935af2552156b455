"""Drawings made by the program: flat colours, lines and boxes, as in charts, maps and user interfaces.

Photographs hardly hold them, so that networks which saw nothing else make coloured rims where a flat colour meets the
frame, and rows of dots of lines that are one pixel wide. A drawing is drawn twice: as GT with smooth edges, and as LR
without antialiasing, one pixel for each ``scale`` of GT.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from upscale.images import Pixels

SHAPES = 8
"""At most so many in a drawing of 32 LR pixels; larger ones have more."""
PLAIN = 0.3
"""Part of the drawings that are one flat colour or one gradient."""
_SHIFT = 3  # OpenCV's fractional bits: eighths of a pixel

_Colour = tuple[int, int, int]
_Point = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Canvas:
    """Where a drawing is drawn; points and widths are in LR pixels."""

    pixels: Pixels
    scale: int
    """Of these pixels for one of LR; at 1, without antialiasing."""

    def at(self, point: _Point) -> _Point:
        """Return the centre of an LR pixel in fractions of the canvas's."""
        x, y = (round((self.scale * (2 * value + 1) - 1) / 2 * 2**_SHIFT) for value in point)
        return x, y

    @property
    def edges(self) -> int:
        """How OpenCV draws them."""
        return int(cv2.LINE_8 if self.scale == 1 else cv2.LINE_AA)

    def line(self, points: list[_Point], colour: _Colour, width: int) -> None:
        """Draw from one point to the next."""
        for start, end in itertools.pairwise(points):
            cv2.line(self.pixels, self.at(start), self.at(end), colour, width * self.scale, self.edges, _SHIFT)

    def box(self, corner: _Point, opposite: _Point, colour: _Colour) -> None:
        """Fill whole LR pixels."""
        (left, right), (top, bottom) = (sorted(pair) for pair in zip(corner, opposite, strict=True))
        s = self.scale
        self.pixels[max(0, top) * s : (bottom + 1) * s, max(0, left) * s : (right + 1) * s] = colour

    def polygon(self, points: list[_Point], colour: _Colour) -> None:
        """Fill what the points enclose, and their own pixels."""
        corners = np.array([self.at(point) for point in points], np.int32)
        cv2.fillPoly(self.pixels, [corners], colour, self.edges, _SHIFT)
        self.line([*points, points[0]], colour, 1)

    def ellipse(self, centre: _Point, axes: _Point, colour: _Colour, *, filled: bool) -> None:
        """Draw an ellipse through the ends of its axes."""
        half = 0.5 if filled else 0.0  # what is filled ends at the border of a pixel, not at its centre
        reach = tuple(round((value + half) * self.scale * 2**_SHIFT) for value in axes)
        width = cv2.FILLED if filled else self.scale
        cv2.ellipse(self.pixels, self.at(centre), reach, 0, 0, 360, colour, width, self.edges, _SHIFT)


def draw(edge: int, scale: int, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Return a random drawing as GT ``[s*edge, s*edge, 3]`` and as LR ``[edge, edge, 3]``, both uint8."""
    canvases = [_Canvas(np.empty((side, side, 3), np.uint8), side // edge) for side in (edge * scale, edge)]
    first, second, turned = _colour(rng), _colour(rng), rng.random() < 0.5
    if rng.random() < 0.75:
        second = first
    for canvas in canvases:
        ramp = (np.arange(edge * canvas.scale) + 0.5)[:, None] / (edge * canvas.scale)
        colours = np.rint(ramp * np.array(second) + (1 - ramp) * np.array(first)).astype(np.uint8)
        canvas.pixels[:] = colours[None] if turned else colours[:, None]
    if rng.random() < PLAIN:
        return canvases[0].pixels, canvases[1].pixels
    for _ in range(int(rng.integers(1, 1 + SHAPES * max(1, edge // 32)))):
        shape = _shape(edge, rng)
        for canvas in canvases:
            shape(canvas)
    return canvases[0].pixels, canvases[1].pixels


def _shape(edge: int, rng: np.random.Generator) -> Callable[[_Canvas], None]:
    """Return what draws a random shape."""

    def point() -> _Point:
        x, y = rng.integers(-2, edge + 2, 2)
        return int(x), int(y)

    colour, start, end = _colour(rng), point(), point()
    kind = rng.integers(6)
    if kind == 0:  # straight and level, as most lines of tables and frames are
        end = (start[0], end[1]) if rng.random() < 0.5 else (end[0], start[1])
    if kind <= 1:
        width = int(rng.choice([1, 1, 1, 3]))
        return lambda canvas: canvas.line([start, end], colour, width)
    if kind == 2:  # small strokes, as letters have
        strokes = [start]
        for _ in range(int(rng.integers(2, 8))):
            x, y = rng.integers(-5, 6, 2)
            strokes.append((strokes[-1][0] + int(x), strokes[-1][1] + int(y)))
        return lambda canvas: canvas.line(strokes, colour, 1)
    if kind == 3:
        return lambda canvas: canvas.box(start, end, colour)
    if kind == 4:
        third = point()
        return lambda canvas: canvas.polygon([start, end, third], colour)
    axes, filled = (int(rng.integers(1, edge // 2)), int(rng.integers(1, edge // 2))), bool(rng.integers(2))
    return lambda canvas: canvas.ellipse(start, axes, colour, filled=filled)


def _colour(rng: np.random.Generator) -> _Colour:
    """Return a corner of the RGB cube, a grey or any colour, one as likely as the other."""
    kind = rng.integers(3)
    if kind == 0:
        values = 255 * rng.integers(0, 2, 3)
    elif kind == 1:
        values = np.repeat(rng.choice([0, 255, int(rng.integers(256))]), 3)
    else:
        values = rng.integers(0, 256, 3)
    red, green, blue = (int(value) for value in values)
    return red, green, blue
