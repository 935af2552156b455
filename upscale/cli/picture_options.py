"""The options of how a picture is enlarged and written, which several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from upscale.options import Measure, Precision

_SIZE, _FILES = "Size", "Files"  # headings of the help


def _size(measure: Measure, metavar: str, help_: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(f"--{measure}", metavar=metavar, help=help_, rich_help_panel=_SIZE)
    return option


Scale = Annotated[
    str | None,
    typer.Option(
        "--scale",
        "-x",
        "-s",
        "--outscale",
        metavar="N",
        help="Factor, 1 to 32, fractions too; default: the model's.",
        rich_help_panel=_SIZE,
    ),
]
Width = Annotated[str | None, _size(Measure.WIDTH, "N", "Width in pixels.")]
Height = Annotated[str | None, _size(Measure.HEIGHT, "N", "Height in pixels.")]
Long = Annotated[str | None, _size(Measure.LONG, "N", "Longer side in pixels.")]
Short = Annotated[str | None, _size(Measure.SHORT, "N", "Shorter side in pixels.")]
Megapixels = Annotated[str | None, _size(Measure.MEGAPIXELS, "N", "Area; fractions too.")]
Fit = Annotated[str | None, _size(Measure.FIT, "WxH", "As large as fits into this box.")]
AtLeast = Annotated[str | None, _size(Measure.AT_LEAST, "WxH", "As small as covers this box.")]
SkipLarge = Annotated[
    bool,
    typer.Option(
        "--skip-large",
        help="Leave out pictures that have the size already; otherwise they are copied.",
        rich_help_panel=_SIZE,
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        "-n",
        metavar="NAME|FILE|URL",
        help="compact for clean pictures, compact-photo for traces of JPEG and noise, or one of `upscale models list`;"
        " also a+b, or a:0.7,b:0.3.",
    ),
]
Strength = Annotated[
    float | None,
    typer.Option(
        "--strength",
        "--denoise",
        "--denoise_strength",
        "-dn",
        min=0,
        max=1,
        help="From 0, as compact, to 1, as compact-photo; likewise of other networks that have a sibling.",
    ),
]
Tta = Annotated[bool, typer.Option("--tta", help="Mean over eight orientations: slightly better, 8x slower.")]
Faithful = Annotated[bool, typer.Option("--faithful", help="Adjust results until reducing them gives the source back.")]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the network where that is faster; the first time takes minutes.")
]
Tile = Annotated[
    str, typer.Option("--tile", "-t", metavar="N|auto", help="Edge of a tile in input pixels, 64 or more.")
]
Overlap = Annotated[
    int | None, typer.Option(metavar="N", help="Pixels that tiles share; default: what the network needs.")
]
Devices = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps; all, or several: cuda:0,cuda:1.")
]
NumberFormat = Annotated[Precision, typer.Option("--precision", help="Number format of the network.")]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        "--ext",
        metavar="EXT",
        help="Write this format; default: the input's.",
        rich_help_panel=_FILES,
    ),
]
Quality = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=100,
        metavar="N",
        help="1 to 100, of lossy results; default: 95, AVIF and HEIC 90. WebP and JPEG XL lose nothing that the "
        "source has, unless this is given.",
        rich_help_panel=_FILES,
    ),
]
Background = Annotated[
    str | None,
    typer.Option(
        metavar="COLOUR",
        help="Behind transparent pixels where the format has none: white, #ff8800.",
        rich_help_panel=_FILES,
    ),
]
Strip = Annotated[
    bool, typer.Option("--strip", help="Keep no metadata but the colour profile.", rich_help_panel=_FILES)
]
Provenance = Annotated[
    bool,
    typer.Option(
        "--provenance/--no-provenance", help="Note in the results' XMP how they were made.", rich_help_panel=_FILES
    ),
]
Name = Annotated[
    str | None,
    typer.Option(
        metavar="TEMPLATE",
        help="Name of results: {stem} {scale} {ext} {model} {width} {height}.",
        rich_help_panel=_FILES,
    ),
]
Suffix = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help='The same as --name "{stem}_TEXT{ext}".', rich_help_panel=_FILES),
]
