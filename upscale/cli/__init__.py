"""The command line: which program an argument list means, and the one place where errors become exit codes.

0 all done, 1 an error or at least one failed image, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import typer

from upscale.cli.bench import bench
from upscale.cli.compare import check, compare
from upscale.cli.console import error_line, event
from upscale.cli.doctor import doctor
from upscale.cli.habits import explain_habits
from upscale.cli.models import MODELS
from upscale.cli.run import run
from upscale.cli.train import train
from upscale.cli.trial import try_
from upscale.cli.watch import watch
from upscale.errors import UpscaleError, UsageError

COMMANDS: dict[str, Callable[..., None]] = {
    "watch": watch,
    "train": train,
    "bench": bench,
    "try": try_,
    "compare": compare,
    "check": check,
    "doctor": doctor,
}
"""A first argument of these names is a command; everything else is what ``upscale INPUTS...`` takes."""
GROUPS: dict[str, Mapping[str, Callable[..., None]]] = {"models": MODELS}
"""A first argument of these names is followed by that of a command in the group."""

_Misused: Any = typer.BadParameter.__base__  # what the parser raises: older versions of typer take it from click


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program on ``arguments``, by default those of the process, and exit."""
    warnings.filterwarnings("ignore", module="PIL")  # of damaged metadata, which is none of the user's concern
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # what it says of damaged files, the program says in a line
    if isinstance(sys.stdout, io.TextIOWrapper):
        # In a file or pipe, names of all letters on every system; what is not UTF-8 goes out as it came.
        sys.stdout.reconfigure(encoding=None if sys.stdout.isatty() else "utf-8", errors="surrogateescape")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = COMMANDS.get(arguments[0]) if arguments else None
    app = typer.Typer(
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    if arguments and arguments[0] in GROUPS:
        name = f"upscale {arguments[0]}"
        for verb, member in GROUPS[arguments.pop(0)].items():
            app.command(verb)(member)
        arguments = arguments or ["--help"]
    elif command is None:
        app.command(no_args_is_help=True, epilog=_commands())(run)
        name = "upscale"
    else:
        app.command()(command)
        name = f"upscale {arguments.pop(0)}"
    try:
        if name == "upscale":
            explain_habits(arguments, [*COMMANDS, *GROUPS])
        sys.exit(app(arguments, prog_name=name, standalone_mode=False) or 0)
    except _Misused as misused:
        misused.show()
        error: UpscaleError = UsageError(misused.format_message(), f"`{name} --help` shows what there is")
    except UpscaleError as told:
        error_line(error := told)
    except OSError as refused:
        error_line(error := UpscaleError(f"{refused.filename or 'standard output'}: {refused.strerror or refused}"))
    if "--json" in arguments:
        with suppress(OSError):  # of standard output itself
            event({"event": "error", "error": error.message, "hint": error.hint})
    sys.exit(2 if isinstance(error, UsageError) else 1)


def _commands() -> str:
    lines = [f"upscale {name}: {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    lines += (f"upscale {name} {'|'.join(group)}" for name, group in GROUPS.items())
    return "\n\n".join(("Other commands, each with its own --help:", *lines))
