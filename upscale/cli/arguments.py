"""What the words of a command line mean, and the options that several commands have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from upscale.cli import console
from upscale.errors import InputError, OutputExists, UsageError
from upscale.files import exists
from upscale.options import Measure, Target, Tiling

if TYPE_CHECKING:
    from upscale.batch.plan import Naming
    from upscale.batch.team import Team
    from upscale.metrics import Protocol

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Offline = Annotated[bool, typer.Option("--offline", help="Fetch nothing.")]
Force = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print how each picture was done.")]


def parse_target(*sizes: str | None) -> Target | None:
    """Read the one of ``sizes``, in the order of ``Measure``, that is given; None if none is."""
    given = [(measure, text) for measure, text in zip(Measure, sizes, strict=False) if text is not None]
    if not given:
        return None
    if len(given) > 1:
        raise UsageError(f"{' and '.join(f'--{measure}' for measure, _ in given)}: each is a size", "give one of them")
    measure, text = given[0]
    try:
        return Target.parse(text, measure)
    except ValueError as error:
        raise UsageError(f"--{measure}: {error}", SIZE_HINTS.get(measure, f"for example --{measure} 1920")) from error


SIZE_HINTS = {
    Measure.SCALE: "give a factor, 1 to 32: -x 4 or -x 2.5; what other tools call -x is --tta here",
    Measure.MEGAPIXELS: "for example --megapixels 24",
    Measure.FIT: "for example --fit 1920x1080",
    Measure.AT_LEAST: "for example --at-least 1920x1080",
}


def protocol_of(name: str) -> Protocol:
    """Return the protocol called ``name``."""
    from upscale.metrics import PROTOCOLS

    if name not in PROTOCOLS:
        raise UsageError(
            f"--protocol: no {name!r}; there are {', '.join(PROTOCOLS)}", "upscale bench --protocol list explains"
        )
    return PROTOCOLS[name]


def tile_size(text: str) -> int | None:
    """Read the edge of a tile, None for auto."""
    try:
        return None if text in ("auto", "0") else int(text)
    except ValueError:
        raise UsageError(
            f"--tile: {text!r} is not a whole number", "give pixels, for example -t 256, or auto"
        ) from None


def tiling_of(size: int | None, overlap: int | None = None) -> Tiling:
    """Return how to cut pictures, by --tile and --overlap."""
    try:
        return Tiling(size=size, overlap=overlap)
    except ValueError as error:
        options, them = ("--tile", "it") if overlap is None else ("--tile, --overlap", "both")
        raise UsageError(f"{options}: {error}", f"leave {them} out: the program chooses well") from error


def naming_of(name: str | None, suffix: str | None, format_: str | None, model: str) -> Naming:
    """Return how results of ``model`` are called, by --name or --suffix, and --format."""
    from upscale.batch.plan import Naming

    if name is not None and suffix is not None:
        raise UsageError("--name and --suffix: each names the results", "give one of them")
    if suffix is not None:
        plain = suffix.replace("{", "{{").replace("}", "}}")
        name = f"{{stem}}_{plain}{{ext}}" if suffix else "{stem}{ext}"
    ext = None if format_ in (None, "auto") else "." + str(format_).lower().removeprefix(".")
    return Naming(template=name, suffix=ext, model=model)


def colour_of(text: str | None) -> tuple[int, int, int] | None:
    """Read --background."""
    if text is None:
        return None

    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError:
        raise UsageError(f"--background: {text!r} is not a colour", "for example white, black, #ff8800") from None
    return red, green, blue


def writers_of(jobs: str) -> int:
    """Read ``2``, or the last number of ``load:process:save`` as the tools of the ncnn family take it."""
    last = jobs.rpartition(":")[2]
    if not last.isdecimal() or int(last) < 1:
        raise UsageError(f"--jobs: {jobs!r} is not a number of results", "for example -j 4")
    return int(last)


def devices_for(device: str, gpu: str | None, team: Team) -> list[str]:
    """Return the devices that this process works on, by --device, or --gpu-id of the ncnn family, which lists them."""
    from upscale.device import devices_of

    if gpu is not None and gpu != "auto":
        numbers = gpu.split(",")
        if not all(number == "-1" or number.isdecimal() for number in numbers):
            raise UsageError(f"--gpu-id: {gpu!r} is not a number", "the same is --device cuda:0")
        device = ",".join("cpu" if number == "-1" else f"cuda:{number}" for number in numbers)
    if team.alone:
        return devices_of(device)
    names = devices_of("all" if device == "auto" else device)
    return [names[team.local_rank % len(names)]]


def listed_in(path: Path | None) -> list[str]:
    """Return the inputs that the file of --list names, or standard input."""
    if path is None:
        return []
    try:
        data = console.standard_input() if path == Path("-") else path.read_bytes()
    except OSError as error:
        raise InputError(f"--list {path}: {error.strerror or error}") from error
    text = data.decode("utf-8-sig", "surrogateescape")  # names need not be UTF-8
    return [line for line in text.splitlines() if line.strip()]


def check_texts(*outputs: Path | None) -> None:
    """Raise UsageError for a page or a table that would be called like a picture."""
    from upscale.images import is_picture

    for output in outputs:
        if output is not None and is_picture(output):
            raise UsageError(f"{output}: is the name of a picture", "name a .html or .csv file")


def spare(inputs: Sequence[Path], *outputs: Path | None, force: bool) -> None:
    """Refuse to write over what exists, and in any case over what is to be read."""
    for output in outputs:
        if output is not None and exists(output) and any(exists(path) and path.samefile(output) for path in inputs):
            raise OutputExists(f"{output}: is an input; it will not be replaced", "name another file")
    check_outputs(*outputs, force=force)


def check_outputs(*outputs: Path | None, force: bool) -> None:
    """Raise for the first of ``outputs`` that cannot be written, or is there already, before any work."""
    for output in outputs:
        if output is None:
            continue
        if output.exists() and not force:
            raise OutputExists(f"{output}: exists", "replace it with --force")
        if not output.parent.is_dir():
            raise UsageError(f"{output}: there is no folder {output.parent}", "make the folder first")
