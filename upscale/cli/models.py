"""``upscale models``: which networks there are, where they are, and how to get, check and pass on their files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from upscale.cli import console
from upscale.cli.arguments import Force, check_outputs, spare
from upscale.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from upscale.catalog import WeightsEntry


def prepare(model: str, *, offline: bool = False, quiet: bool = False) -> None:
    """Fetch what ``model`` needs, with a bar for the bytes, and say what the user should know before the first use."""
    from upscale.catalog import known

    fetch_missing(known().networks(model), offline=offline, quiet=quiet)


def fetch_missing(entries: Iterable[WeightsEntry], *, offline: bool = False, quiet: bool = False) -> None:
    """Fetch those of ``entries`` that are not here, as ``prepare`` does."""
    from upscale import store

    for entry in entries:
        if store.state(entry) != "to fetch":
            continue
        told = entry.sha256 is not None  # by a catalogue that is read before it is used
        entry = store.resolve(entry, offline=offline)
        if not entry.commercial and not quiet:
            console.notice(f"{entry.name}: licensed as {entry.license}, so not for commercial use")
        with console.progress(quiet=quiet) as bars:
            show = partial(_show, bars, bars.add_task(f"fetching {entry.name}", total=entry.bytes, unit="bytes"))
            path = store.locate(entry, offline=offline, on_bytes=show)
        if not told and path is not None and not quiet:
            console.notice(f"{entry.url[0]}: sha256 {store.sha256(path)}; from now on, any other file is refused")


def _show(bars: Progress, task: TaskID, done: int, total: int | None) -> None:
    bars.update(task, completed=done, total=total)


def list_(
    commercial: Annotated[
        bool, typer.Option("--commercial", help="Only those whose licence is known and allows commercial use.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each.")] = False,
) -> None:
    """Show all networks, and the families that choose among theirs by the factor: -m takes either.

    What has no scale is for training and measuring.
    """
    from upscale import store
    from upscale.catalog import known

    rows = [
        {
            "name": entry.name,
            "family": entry.family or "-",
            "scale": _scale(entry),
            "architecture": str((entry.network or {}).get("arch", "-")),
            "size": _size(entry.bytes),
            "licence": entry.license,
            "speed": entry.speed or "-",
            "state": store.state(entry),
            "for": entry.summary,
        }
        for entry in known().entries.values()
        if not commercial or (entry.commercial and entry.license != "unknown")
    ]
    if json:
        for row in rows:
            console.event(row)
        return
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    for row in ({key: key for key in widths}, *rows):
        line = "  ".join(row[key].ljust(width) for key, width in widths.items())
        console.line(line.rstrip())


def info(model: Annotated[str, typer.Argument(metavar="NAME|FILE")]) -> None:
    """Say all that is known of a network: where it is from, and how it is built, if it is here."""
    from upscale import store
    from upscale.catalog import known

    for entry in known().find(model):
        path = store.place(entry)
        here = path is not None and path.is_file()
        rows = [
            ("name", entry.name),
            ("for", entry.summary),
            ("licence", entry.license + ("" if entry.commercial else " (not for commercial use)")),
            ("state", store.state(entry)),
            *(("url", url) for url in entry.url),
            *([("file", str(path)), ("sha256", store.sha256(path))] if here and path is not None else []),
            *([("sha256", entry.sha256)] if entry.sha256 and not here else []),
        ]
        if entry.generator and (here or path is None):
            rows += _built(entry)
        for name, value in rows:
            console.line(f"{name:<12} {value}")


def _built(entry: WeightsEntry) -> list[tuple[str, str]]:
    from upscale.catalog import BlendPart
    from upscale.loading import load_blend
    from upscale.models import network_of

    generator = load_blend((BlendPart((entry,)),))[0]
    parameters = sum(parameter.numel() for parameter in generator.parameters())
    return [
        *((name, str(value)) for name, value in network_of(generator).items()),
        ("parameters", f"{parameters:,}"),
        ("sees", f"{generator.radius} pixels in each direction"),
    ]


def fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Networks; `all` for every one.")],
) -> None:
    """Fetch networks now, to have them offline."""
    from upscale.catalog import known

    bad = 0
    for entry in [e for name in names for e in (known().entries.values() if name == "all" else known().find(name))]:
        try:
            fetch_missing([entry])
            console.line(f"{entry.name}: here")
        except WeightsError as error:  # an address that is gone does not keep the others
            bad += 1
            console.error_line(error, entry.name)
    if bad:
        raise typer.Exit(1)


def add(
    source: Annotated[str, typer.Argument(metavar="FILE|URL", help="A checkpoint, or a bundle (.zip).")],
    name: Annotated[str | None, typer.Option(help="What to call it; default: as the file.")] = None,
    summary: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    license_: Annotated[str | None, typer.Option("--license", help="Its licence.")] = None,
) -> None:
    """Give a file or a URL a name of its own, or take in a bundle made elsewhere."""
    from upscale import store
    from upscale.catalog import known, own
    from upscale.checkpoint import load_generator
    from upscale.models import network_of

    if source.endswith(".zip"):
        if name or summary or license_:
            raise UsageError(f"{source}: a bundle brings names, summaries and licences", "leave the options out")
        for found in store.unbundle(Path(source), known().entries.values()):
            console.line(f"{found}: here")
        return
    (entry, *_) = known().find(source)
    if name is not None and not re.fullmatch(r"[\w.-]+", name):
        raise UsageError(f"--name {name!r}: letters, digits, dots and dashes only", "`+`, `:` and `,` make blends")
    called = name or re.sub(r"[^\w.-]+", "-", entry.name)
    if called in known().names and list(map(store.place, known().find(called))) != [store.place(entry)]:
        raise UsageError(f"{called}: is the name of another network", "choose one with --name")
    fetch_missing([entry])
    path = store.locate(entry)
    if path is None:
        raise UsageError(f"{source}: has no file", "give a checkpoint or a URL")
    (pinned, *_) = known().find(source)
    generator = load_generator(path, entry.network)
    digest = store.sha256(path)
    named = replace(
        pinned,
        name=called,
        family=None,
        summary=summary or pinned.summary,
        license=license_ or pinned.license,
        scale=None if generator.any_scale else generator.scale,
        sha256=digest,
        bytes=path.stat().st_size,
    )
    store.add(named)
    target = store.place(named)
    if pinned.url and target is not None and target != path:
        path.replace(target)
    if pinned.name != called and own().entries.get(pinned.name) == pinned:  # a file's stem may be another's name
        store.forget(pinned.name)
    console.line(f"{called}: {network_of(generator)['arch']}, x{generator.scale}, sha256 {digest}")


def remove(names: Annotated[list[str], typer.Argument(metavar="NAME...")]) -> None:
    """Delete fetched files, and names that `add` gave."""
    from upscale import store
    from upscale.catalog import known, own

    for name in names:
        for entry in known().find(name):
            freed = store.remove(entry)
            forgotten = own().entries.get(entry.name) == entry and store.forget(entry.name)
            done = [f"{_size(freed)} freed"] * bool(freed) + ["name forgotten"] * forgotten
            console.line(f"{entry.name}: {', '.join(done) or 'nothing to remove'}")


def verify(names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]")] = None) -> None:
    """Compute the hashes of all files that are here, and compare them with the catalogue."""
    from upscale import store

    bad = 0
    for entry in _named(names):
        if store.state(entry) in ("built in", "to fetch"):
            continue
        try:
            store.locate(entry)
            console.line(f"{entry.name}: as it should be")
        except WeightsError as error:
            bad += 1
            console.error_line(error, entry.name)
    if bad:
        raise typer.Exit(1)


def _named(names: list[str] | None) -> list[WeightsEntry]:
    """Return the networks that are called so; without names, all."""
    from upscale.catalog import known

    return [entry for name in names for entry in known().find(name)] if names else list(known().entries.values())


def export(
    model: Annotated[str, typer.Argument(metavar="NAME|FILE", help="Blends, a:0.7,b:0.3, too.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="FILE.safetensors or FILE.onnx.")],
    fp16: Annotated[bool, typer.Option("--fp16", help="Half of the size.")] = False,
    force: Force = False,
) -> None:
    """Write a network to a file for this or other programs, and check it by running it."""
    from upscale import store
    from upscale.catalog import known

    if output.suffix not in (".safetensors", ".onnx"):
        raise UsageError(f"{output}: not a file to export to", "name it .safetensors or .onnx")
    places = map(store.place, known().networks(model))
    spare([place for place in places if place is not None], output, force=force)
    stages = known().stages(model)
    prepare(model)

    from upscale.checkpoint import read_metadata
    from upscale.export import export_onnx, export_safetensors
    from upscale.loading import load_blend

    if len(stages) > 1:
        raise UsageError(f"{model}: more than one network", "export each by itself")
    generators = load_blend(stages[0])
    if len(generators) > 1:
        members = ", ".join(part.name for part in stages[0][0].entries)
        raise UsageError(f"{model}: a family of {len(generators)}", f"name one of {members}")
    if output.suffix == ".onnx":
        difference = export_onnx(generators[0], output, half=fp16)
    else:
        (first, *others) = (store.locate(entry) for part in stages[0] for entry in part.entries)
        about = {"blend": model} if others else {} if first is None else read_metadata(first)
        difference = export_safetensors(generators[0], output, about, half=fp16)
    console.line(f"{output}: {_size(output.stat().st_size)}, within {difference:.1e} of {model}")


def bundle(
    archive: Annotated[Path, typer.Argument(metavar="FILE.zip")],
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="Default: all that are here.")] = None,
    force: Force = False,
) -> None:
    """Pack networks that were fetched or added into one file, for `upscale models add FILE.zip` on another machine."""
    from upscale import store

    if archive.suffix != ".zip":
        raise UsageError(f"{archive}: not a bundle's name", "name it .zip; networks come after it")
    check_outputs(archive, force=force)
    entries = _named(names)
    if names:
        fetch_missing(entries)
    count = store.bundle(entries, archive)
    console.line(f"{archive}: {console.counted(count, 'network')}, {_size(archive.stat().st_size)}")


MODELS: dict[str, Callable[..., None]] = {
    "list": list_,
    "info": info,
    "fetch": fetch,
    "add": add,
    "remove": remove,
    "verify": verify,
    "export": export,
    "bundle": bundle,
}
"""What ``upscale models`` can do, by name."""


def _scale(entry: WeightsEntry) -> str:
    if entry.scale is not None:
        return f"x{entry.scale}"
    if not entry.generator:
        return "-"
    return "?" if entry.file or entry.url else "any"


def _size(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.1f} MB"
