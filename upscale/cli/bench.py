"""``upscale bench``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from upscale.cli import console
from upscale.cli.arguments import Force, check_texts, protocol_of, spare, tiling_of
from upscale.cli.distances import Features, Lpips, distances
from upscale.errors import UsageError
from upscale.files import write_text
from upscale.options import MAX_SCALE, Precision

if TYPE_CHECKING:
    from upscale.bench.quality import Quantity
    from upscale.bench.result import Result
    from upscale.bench.speed import Timing
    from upscale.bench.tables import Grid


def bench(
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DATA]...", help="Folders of HR pictures, or sets by name; default: a small set that comes along."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", metavar="NAME|FILE", help="Network, several times; default: all that come along."
        ),
    ] = None,
    scale: Annotated[
        list[str] | None,
        typer.Option("--scale", "-x", metavar="N...", help="Factors: -x 2 3 4; default: those of the networks."),
    ] = None,
    protocol: Annotated[
        str, typer.Option(metavar="NAME|list", help="How pictures are compared; list explains all.")
    ] = "y",
    lr: Annotated[
        Path | None, typer.Option(metavar="DIR", help="LR pictures; default: made by bicubic reduction.")
    ] = None,
    speed: Annotated[bool, typer.Option("--speed", help="Time the networks over sizes as well.")] = False,
    size: Annotated[
        list[int] | None, typer.Option(min=16, metavar="N", help="Edge of a timed input, several times.")
    ] = None,
    tile: Annotated[
        list[int] | None, typer.Option("--tile", "-t", metavar="N", help="Timed tile, several times; default: auto.")
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps; several times to time them.")
    ] = None,
    precision: Annotated[
        list[Precision] | None, typer.Option(help="Number format; several times to time them.")
    ] = None,
    features: Features = None,
    lpips: Lpips = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Compare with an earlier --json; exit 1 if worse.")
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write one page with all of it.")] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="Write a line for each picture.")] = None,
    force: Force = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON lines; the last has everything.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print each picture.")] = False,
) -> None:
    """Measure quality and speed of networks, and say how."""
    if protocol == "list":
        _explain_protocols()
        return
    from upscale import store
    from upscale.catalog import known, shipped

    catalog = known()
    names = model or store.in_state(shipped(), "built in", "bundled")
    native = {scale for name in names for scale in catalog.scales(name)}  # a slip is answered before torch is imported
    folders, scales = _split(data or [], scale or [])
    scales = scales or sorted(native) or [4]

    from upscale.bench import quality
    from upscale.bench.baseline import check
    from upscale.bench.result import Result, about, read_result, write_csv
    from upscale.bench.sets import open_sets
    from upscale.loading import load

    chosen = protocol_of(protocol)
    check_texts(report, csv)
    spare([] if baseline is None else [baseline], report, csv, force=force)
    sets = open_sets(folders, lr, scales)
    earlier = None if baseline is None else read_result(baseline)
    table = quality.quantities(*distances(features, lpips))
    devices, precisions = device or ["auto"], precision or [Precision.AUTO]
    upscalers = {_short(name): load(name, device=devices[0], precision=precisions[0]) for name in names}
    if len(upscalers) < len(names):
        raise UsageError(f"--model: two of {', '.join(names)} have one name", "rename one of the files")
    made = about(upscalers, names, sets, chosen, scales)
    if earlier is not None:
        check(made, earlier, str(baseline), speed=speed)
    rows, crops = [], []
    with console.progress(quiet=json) as bars:
        pictures = sum(len(dataset.pictures) for dataset in sets)
        task = bars.add_task("measuring", total=len(scales) * pictures, unit="pictures")
        for found, parts in quality.run(upscalers, sets, scales, chosen, table):
            rows += found
            crops += [parts] if parts else []
            bars.advance(task)
            if json:
                for row in found:
                    console.event({"event": "image", "protocol": protocol, **asdict(row)})
    timings = _time(names, max(scales), size, tile or [None], devices, precisions) if speed else []
    result = Result(made, quality.summarise(rows, chosen), rows, timings)
    if csv is not None:
        write_csv(csv, result, table)
    if report is not None:
        from upscale.bench.report import bench_page

        write_text(report, bench_page(result, table, crops))
    if json:
        console.event(result.as_json())
    else:
        _print(result, table, verbose=verbose)
    failed = [row for row in rows if row.error is not None]
    if failed:
        console.err.print(f"{len(failed)} of {len(rows)} measurements failed: no means for these", style="bold red")
        for row in failed:
            console.err.print(f"  {row.dataset} x{row.scale} {row.image} {row.model}: {row.error}", markup=False)
    worse = earlier is not None and _is_worse(result, earlier, str(baseline))
    if failed or worse:
        raise typer.Exit(1)


def _explain_protocols() -> None:
    from upscale.metrics import PROTOCOLS

    for row in PROTOCOLS.values():
        console.out.print(f"{row.name:<10}  {row.summary}", markup=False)
        console.out.print(f"{'':<10}  as in {row.source}", markup=False, style="dim")
    console.out.print(
        "HR pictures are cut to a multiple of the scale; LR pictures are made as MATLAB's imresize makes them\n"
        "(bicubic, antialiased), rounded to the bit depth; results are what is written to files. A picture of one\n"
        "channel is its own luma.",
        markup=False,
    )


def _split(data: Sequence[str], scale: Sequence[str]) -> tuple[list[str], list[int]]:
    """Tell folders from scales: of ``-x 2 3 4`` the parser takes 2 as the option's and leaves 3 and 4 to DATA."""
    stray = [word for word in data if scale and word.isdecimal() and not Path(word).exists()]
    words = [part for word in (*scale, *stray) for part in word.split(",")]
    try:
        scales = [int(word.lower().strip("x")) for word in words]
    except ValueError:
        raise UsageError(f"--scale: {', '.join(words)} are not all whole numbers", "for example -x 2 3 4") from None
    wrong = next((n for n in scales if not 1 <= n <= MAX_SCALE), None)
    if wrong is not None:
        raise UsageError(f"--scale: {wrong} is not between 1 and {MAX_SCALE}", "for example -x 2 3 4")
    return [word for word in data if word not in stray], list(dict.fromkeys(scales))


def _short(name: str) -> str:
    """Return what a network is called in tables: its name, or that of its file without folder and suffix."""
    from upscale.catalog import CHECKPOINT_SUFFIXES, URLS

    path = Path(name)
    single = path.is_file() or name.startswith(URLS)  # no blend or sequence that ends in a file
    return path.stem if single and path.suffix in CHECKPOINT_SUFFIXES else name


def _time(
    names: Sequence[str],
    scale: int,
    sizes: Sequence[int] | None,
    tiles: Sequence[int | None],
    devices: Sequence[str],
    precisions: Sequence[Precision],
) -> list[Timing]:
    from upscale.bench import speed
    from upscale.loading import load

    timings = []
    edges = sizes or speed.SIZES
    variants = [(n, d, p, t) for n in names for d in devices for p in precisions for t in tiles]
    with console.progress(quiet=False) as bars:
        task = bars.add_task("timing", total=len(variants) * len(edges), unit="sizes")
        for name, device, precision, tile in variants:
            upscaler = load(name, device=device, precision=precision, tiling=tiling_of(tile))
            timings += speed.measure(_short(name), upscaler, scale, edges, on_size=lambda: bars.advance(task))
    return timings


def _print(result: Result, table: Mapping[str, Quantity], *, verbose: bool) -> None:
    from upscale.bench import tables

    header = result.about
    console.out.print(f"protocol {header['protocol']}: {header['protocol_summary']}", markup=False)
    console.out.print(
        f"LR: {header['lr']}; {header['device']}, {header['precision']}, torch {header['torch']}", markup=False
    )
    groups = dict.fromkeys((summary.dataset, summary.scale) for summary in result.summaries)
    for dataset, scale in groups:
        if verbose:
            _table(f"{dataset} x{scale}, each picture", tables.images(result, table, dataset, scale))
        _table(f"{dataset} x{scale}, means, protocol {header['protocol']}", tables.means(result, table, dataset, scale))
    for remark in tables.remarks(result, table):
        console.out.print(remark, markup=False)
    if result.timings:
        _table("speed", tables.speed(result))
        for line in tables.growth(result):
            console.out.print(line, markup=False)


def _table(title: str, content: Grid) -> None:
    console.table(title, content.columns, [[cell.text for cell in row] for row in content.rows], content.labels)


def _is_worse(result: Result, earlier: Mapping[str, object], name: str) -> bool:
    from upscale.bench.baseline import compare

    differences = compare(result, earlier, name)
    for difference in differences:
        verdict, style = ("worse", "bold red") if difference.regressed else ("kept ", None)
        console.err.print(f"{verdict}  {difference.what}: {difference.text}", style=style, markup=False)
    return any(difference.regressed for difference in differences)
