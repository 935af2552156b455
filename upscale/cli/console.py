"""What the commands print with: consoles, the error line, JSON events, progress bars."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from upscale.config import for_json
from upscale.errors import UpscaleError

if TYPE_CHECKING:
    from rich.progress import Progress

out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def standard_input() -> bytes:
    """Return all of standard input; where it is closed, nothing."""
    return b"" if sys.stdin is None else sys.stdin.buffer.read()


_called: dict[str, str] = {}


def call(path: Path, name: str) -> None:
    """Let all texts say ``name`` for ``path``, which means nothing to the user."""
    _called[str(path)] = name


def said(text: str) -> str:
    """Return ``text`` with what paths are called."""
    for path, name in _called.items():
        text = text.replace(path, name)
    return text


def counted(number: int, what: str) -> str:
    """Return ``number`` and ``what``, with an s where they are several."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def error_line(error: UpscaleError, place: str = "") -> None:
    """Print an error and its hint; ``place`` stands before a message that does not name it itself."""
    message = said(error.message if place in error.message else f"{place}: {error.message}")
    err.print(Text.assemble(("error: ", "bold red"), message))  # Text: no markup in what comes from outside
    if error.hint:
        err.print(Text.assemble(("hint: ", "bold cyan"), said(error.hint)))


def notice(text: str) -> None:
    """Print a remark."""
    err.print(Text.assemble(("note: ", "bold yellow"), said(text)))


def line(text: str) -> None:
    """Print a line as it is, in one piece, as several threads may print; rich's own ``print`` expands tabs of names."""
    print(said(text) + "\n", end="", file=out.file, flush=True)


def event(fields: Mapping[str, Any]) -> None:
    """Print one JSON object on a line of its own."""
    fields = {key: said(value) if isinstance(value, str) else for_json(value) for key, value in fields.items()}
    text = json.dumps(fields, ensure_ascii=False)
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        text = json.dumps(fields)  # a name that is not UTF-8: escaped, or the line would not be, either
    line(text)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], labels: int = 1) -> None:
    """Print a table, its first ``labels`` columns to the left, the others to the right.

    Rows longer than the terminal wrap as text does; rich's own table would cut their figures short.
    """
    lines = [columns, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    out.print()
    out.print(title, markup=False, style="bold")
    for index, texts in enumerate(lines):
        cells = (
            text.ljust(width) if column < labels else text.rjust(width)
            for column, (text, width) in enumerate(zip(texts, widths, strict=True))
        )
        if index == 0:
            out.print("  ".join(cells).rstrip(), markup=False, style="dim")
        else:
            line("  ".join(cells).rstrip())


def progress(*, quiet: bool) -> Progress:
    """Return progress bars on standard error; none where it is not a terminal."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} {task.fields[unit]}"),
        TimeRemainingColumn(),
        console=err,
        disable=quiet or not err.is_terminal,
        transient=True,
    )
