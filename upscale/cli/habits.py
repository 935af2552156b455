"""Options of the well-known tools that mean nothing here: what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from upscale.cli.arguments import SIZE_HINTS
from upscale.errors import UsageError
from upscale.options import Measure

_ELSEWHERE = {
    "--model_name": "the same is -m NAME",
    "--model_path": "the same is -m FILE",
    "--fp32": "the same is --precision fp32",
    "--tile_pad": "the same is --overlap N; without it the network says what it needs",
    "--pre_pad": "leave it out: edges are padded as the network needs",
    "--face_enhance": "leave it out: faces are enlarged like all else",
    "--alpha_upsampler": "leave it out: transparency is enlarged always",
    "--resume": "leave it out: with --output FOLDER, a second run does only what is missing",
    "-w": "the same is --width N",
    "-r": "the same is --fit WxH or --at-least WxH; folders are taken with all below them",
    "-c": "the same is --quality N",
    "-z": "leave it out: the network says its scale",
}
"""Options of the well-known tools that have another name here, or none."""


def explain_habits(arguments: Sequence[str], commands: Iterable[str]) -> None:
    """Raise UsageError, with what is meant, for options that only other tools have, and for misspelt ``commands``."""
    first = arguments[0] if arguments else ""
    near = difflib.get_close_matches(first, commands, n=1, cutoff=0.7) if first.isalpha() else []
    if near and not Path(first).exists():
        raise UsageError(f"{first}: no such file or folder", f"did you mean `upscale {near[0]}`?")
    if arguments and arguments[-1] == "-x":
        raise UsageError("-x: a factor is missing", SIZE_HINTS[Measure.SCALE])
    for option in (argument.partition("=")[0] for argument in arguments):
        if option in _ELSEWHERE:
            raise UsageError(f"{option}: is not an option here", _ELSEWHERE[option])
