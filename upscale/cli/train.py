"""``upscale train``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from upscale.cli import console
from upscale.cli.arguments import Device, check_outputs
from upscale.cli.distances import Features, Lpips, distances
from upscale.cli.models import fetch_missing
from upscale.errors import UsageError

DEFAULT = "compact"
"""The recipe."""


def train(
    data: Annotated[Path, typer.Argument(help="Folder of pictures, searched with all its subfolders.")],
    recipe: Annotated[
        str | None,
        typer.Option(help="Name of a recipe, or a TOML file; default: compact, with --resume the run's own."),
    ] = None,
    lr: Annotated[
        Path | None, typer.Option(metavar="DIR", help="LR pictures of the same names, or x4 after them; default: made.")
    ] = None,
    valid: Annotated[Path | None, typer.Option(help="Folder of pictures to measure on while training.")] = None,
    valid_lr: Annotated[
        Path | None, typer.Option(metavar="DIR", help="LR of --valid, named as that of --lr; default: bicubic.")
    ] = None,
    features: Features = None,
    lpips: Lpips = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; by default runs/RECIPE.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    patience: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Stop after N validations without a better PSNR.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a number of the recipe.")
    ] = None,
    preview: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a sheet of what the network would see, and stop.")
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Log for TensorBoard, too: OUT/tensorboard.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --preview.")] = False,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Compile the network first, which takes a minute: faster steps on a GPU.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Train a network on a folder of pictures; `upscale photo.jpg -m FILE` runs what comes out."""
    from upscale.catalog import known
    from upscale.cli.live import LiveView
    from upscale.compiling import require_compiler
    from upscale.device import resolve_device
    from upscale.torchrun import Place, own_place
    from upscale.train import board
    from upscale.train.data import Batches, crop_size, open_pictures
    from upscale.train.loop import train as run_training
    from upscale.train.pairs import open_pairs
    from upscale.train.preview import batches_sheet
    from upscale.train.ranks import own_device
    from upscale.train.recipe import load_recipe
    from upscale.train.validation import load_pairs

    changes = [*(overrides or ()), *([f"patience={patience}"] if patience else [])]
    sources = [place.resolve() for place in (data, lr, valid, valid_lr) if place is not None]
    if preview is not None and any(preview.parent.resolve().is_relative_to(place) for place in sources):
        raise UsageError(f"--preview {preview}: lies in a folder of pictures to train on", "write it elsewhere")
    check_outputs(preview, force=force)
    folder = out or Path("runs") / Path(recipe or DEFAULT).stem
    if recipe is None:
        recipe = str(folder / "recipe.toml") if resume and (folder / "recipe.toml").is_file() else DEFAULT
    resolved = load_recipe(recipe, changes)
    if valid_lr is not None and valid is None:
        raise UsageError("--valid-lr: goes with --valid", "name the pictures that it is LR of: --valid DIR")
    if valid is not None and valid.resolve() in (data.resolve(), *data.resolve().parents):
        raise UsageError(
            f"--valid {valid}: holds the pictures to train on", "measure on others, which no step has seen"
        )
    if resolved.patience is not None and valid is None:
        raise UsageError("--patience: without pictures to measure on, no run gets better", "name some: --valid DIR")
    torch_device = own_device(resolve_device(device))
    named = dict(zip(("features", "lpips"), distances(features, lpips), strict=True))
    measured = {name: distance for name, distance in named.items() if distance is not None}
    with console.progress(quiet=False) as bars:
        task = bars.add_task("reading pictures", total=None, unit="pictures")

        def read(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        edge = crop_size(resolved.data.gt_size, resolved.scale)
        # They may lie in the folder of pictures.
        leaving = [place for place in (folder, valid, valid_lr) if place is not None]
        if lr is not None:
            if resolved.degradation.kind != "bicubic":
                console.notice(f"--lr: {recipe} would degrade pictures itself; LR is taken as it is given")
            if resolved.data.sizes:
                console.notice("--lr: pairs stay as large as they are, whatever data.sizes says")
            pictures = open_pairs(data, lr, resolved, read, leaving)
        else:
            pictures = open_pictures(data, edge, read, leaving, resolved.data.sizes)
    for text in pictures.skipped:
        console.notice(f"skipped {text}")
    if preview is not None:
        batches = Batches(pictures, resolved)
        batches_sheet(preview, [batches.batch(step) for step in range(max(1, 8 // resolved.data.batch_size))])
        console.line(str(preview))
        return
    if compile_:
        require_compiler(torch_device)
    if resolved.classifier is not None:
        fetch_missing(known().find(resolved.classifier))
    if lr is not None and valid is not None and valid_lr is None:
        console.notice("--valid: measured on bicubic LR, which is not that of --lr; --valid-lr names other LR")
    pairs, skipped = load_pairs(valid, resolved.scale, valid_lr) if valid else ([], [])
    for text in skipped:
        console.notice(f"skipped {text}")
    write = board.tensorboard(folder / "tensorboard") if tensorboard else None
    with LiveView(str(folder), resolved.steps) as view:

        def on_event(event: Mapping[str, Any]) -> None:
            view.show(event)
            if write is not None:
                write(event)

        result = run_training(
            resolved,
            pictures,
            pairs,
            folder,
            torch_device,
            resume=resume,
            on_event=on_event,
            distances=measured,
            compiled=compile_,
            command=shlex.join(["upscale", *sys.argv[1:]]),
        )
    if (own_place() or Place()).rank == 0:
        console.line(str(result.generator))
        console.err.print(f"{folder / 'report.html'} shows the run", markup=False)
    if not result.finished:
        console.notice(f"interrupted; go on with: {_resuming(sys.argv[1:])}")
        raise typer.Exit(130)


def _resuming(arguments: list[str]) -> str:
    """Return the command that goes on with the run that ``arguments`` began."""
    return shlex.join(["upscale", *arguments, *([] if "--resume" in arguments else ["--resume"])])
