"""``upscale try``."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from upscale.cli import console
from upscale.cli.arguments import Device, Force, Offline, parse_target, spare
from upscale.cli.models import prepare
from upscale.errors import UsageError
from upscale.files import write_text

CONTEXT = 32  # pixels around the part that networks see as well
_SUFFIXES = (".png", ".html")


def try_(
    picture: Annotated[Path, typer.Argument(help="A picture.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            "-n",
            metavar="NAME|FILE|URL",
            help="Network, several times; default: bicubic, and all that are here.",
        ),
    ] = None,
    scale: Annotated[str, typer.Option("--scale", "-x", "-s", metavar="N", help="Factor.")] = "4",
    at: Annotated[
        str | None, typer.Option(metavar="X,Y", help="Middle of the part; default: where there is most detail.")
    ] = None,
    size: Annotated[int, typer.Option(min=16, metavar="N", help="Edge of the part, in pixels of the picture.")] = 128,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="NAME|DIR", help="Of both results; default: PICTURE_try."),
    ] = None,
    offline: Offline = False,
    device: Device = "auto",
    force: Force = False,
) -> None:
    """Enlarge one part of a picture with several networks, and put the results beside each other."""
    from upscale import store
    from upscale.catalog import DEFAULT_MODEL, known
    from upscale.images import read_image

    target = parse_target(scale)
    assert target is not None
    names = list(dict.fromkeys(model or ["bicubic", *store.in_state(known(), "bundled", "here")]))
    for name in names:  # a slip is answered before torch is imported
        known().stages(name)
    results = _results(picture, output)
    spare([picture], *results, force=force)
    whole = read_image(picture)
    height, width = (min(size, edge) for edge in whole.pixels.shape[:2])
    middle = None if at is None else _point(at, *whole.pixels.shape[:2])

    from upscale.bench.pairs import enlarged
    from upscale.bench.report import Slider, try_page
    from upscale.bench.sheet import detailed, sheet
    from upscale.bench.tables import Cell, Grid, number
    from upscale.images import Image, write_image
    from upscale.loading import load

    if middle is None:
        top, left = detailed(whole.pixels, height, width)
    else:
        top = min(max(0, middle[0] - height // 2), whole.pixels.shape[0] - height)
        left = min(max(0, middle[1] - width // 2), whole.pixels.shape[1] - width)
    first_row, first_column = max(0, top - CONTEXT), max(0, left - CONTEXT)
    seen = whole.pixels[first_row : top + height + CONTEXT, first_column : left + width + CONTEXT]
    part = replace(whole, pixels=seen, alpha=None, following=())

    rows, columns = target.size(height, width)
    y, x = (round(float(target.value) * inside) for inside in (top - first_row, left - first_column))
    pictures, notes, commands = {}, {}, []
    for name in names:
        prepare(name, offline=offline)
        done = load(name, device=device, offline=offline).upscale(part, target)
        pictures[name] = enlarged(done.image.pixels[y : y + rows, x : x + columns], rows, columns)
        notes[name] = f"{done.seconds:.2f} s"
        command = f"upscale {shlex.quote(str(picture))} -x {scale} -m {shlex.quote(name)}"
        commands.append([Cell(name), number(done.seconds, 2), Cell(command)])
        console.line(command)
    title = f"{picture.name} x{scale}: {width}x{height} pixels from {left},{top}"
    usual = names.index(DEFAULT_MODEL) if DEFAULT_MODEL in names else len(names) - 1
    slider = Slider(title, pictures, names[0], names[usual], notes)
    write_image(results[0], Image(pixels=sheet(pictures, notes)))
    write_text(results[1], try_page(title, slider, Grid(["network", "seconds", "command"], 1, commands)))
    for path in results:
        console.line(str(path))


def _results(picture: Path, output: Path | None) -> list[Path]:
    """Return where the sheet and the page go, by --output."""
    if output is None or output.is_dir():
        base = (output or picture.parent) / f"{picture.stem}_try"
    else:
        base = output.with_suffix("") if output.suffix.lower() in _SUFFIXES else output
    return [base.with_name(base.name + suffix) for suffix in _SUFFIXES]


def _point(text: str, height: int, width: int) -> tuple[int, int]:
    """Read ``"x,y"`` and return row and column."""
    x, _, y = text.partition(",")
    if not (x.strip().isdecimal() and y.strip().isdecimal()):
        raise UsageError(f"--at: {text!r} is not a place", "for example --at 300,200")
    if int(x) >= width or int(y) >= height:
        raise UsageError(f"--at: {text} is outside of {width}x{height}", "give pixels of the picture")
    return int(y), int(x)
