"""``upscale train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from upscale.cli import console


def train(
    data: Annotated[Path, typer.Argument(help="Folder of pictures, searched with all its subfolders.")],
    recipe: Annotated[str, typer.Option(help="Name of a recipe, or a TOML file.")] = "compact",
    valid: Annotated[Path | None, typer.Option(help="Folder of pictures to measure on while training.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; by default runs/RECIPE.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a number of the recipe.")
    ] = None,
    preview: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a sheet of what the network would see, and stop.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
) -> None:
    """Train a network on a folder of pictures; `upscale photo.jpg -m FILE` runs what comes out."""
    from upscale.device import resolve_device
    from upscale.train.data import Batches, crop_size, open_pictures
    from upscale.train.loop import train as run_training
    from upscale.train.preview import batches_sheet
    from upscale.train.recipe import load_recipe
    from upscale.train.validation import load_pairs

    resolved = load_recipe(recipe, overrides or ())
    torch_device = resolve_device(device)
    folder = out or Path("runs") / Path(recipe).stem
    pairs = load_pairs(valid, resolved.scale) if valid else []
    with console.progress(quiet=False) as bars:
        task = bars.add_task("reading pictures", total=None, unit="pictures")
        pictures = open_pictures(
            data, crop_size(resolved), lambda done, total: bars.update(task, completed=done, total=total)
        )
    for skipped in pictures.skipped:
        console.notice(f"skipped {skipped}")
    if preview is not None:
        batches = Batches(pictures, resolved)
        batches_sheet(preview, [batches.batch(step) for step in range(max(1, 8 // resolved.data.batch_size))])
        console.out.print(str(preview), markup=False)
        return
    with console.progress(quiet=False) as bars:
        task = bars.add_task("training", total=resolved.steps, unit="steps")

        def show(event: Any) -> None:
            bars.update(task, completed=event["step"])
            if event["event"] != "start":
                console.err.print(
                    "  ".join(f"{key} {_short(value)}" for key, value in event.items() if key != "event"),
                    markup=False,
                )

        result = run_training(resolved, pictures, pairs, folder, torch_device, resume=resume, on_event=show)
    console.out.print(str(result.generator), markup=False)
    if not result.finished:
        console.notice(f"stopped early; go on with the same command and --resume --out {folder}")
        raise typer.Exit(130)


def _short(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
