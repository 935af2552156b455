"""Standard input and output as pictures."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from upscale.cli import console
from upscale.errors import UsageError

if TYPE_CHECKING:
    from upscale.batch.plan import Naming


class Streams:
    """Standard input and output, where ``-`` names them, as files of a temporary folder."""

    def __init__(self, given: Sequence[str], output: Path | None, folder: Path, naming: Naming, *, json: bool) -> None:
        self.inputs = list(given)
        self.output = output
        if "-" in self.inputs:
            from upscale.images import suffix_of

            data = console.standard_input()
            source = folder / f"stdin{suffix_of(data)}"
            source.write_bytes(data)
            console.call(source, "standard input")
            self.inputs = [str(source) if text == "-" else text for text in self.inputs]
            self.output = output or Path("-")
        self.to_stdout = self.output == Path("-")
        if self.to_stdout:
            if json:
                raise UsageError("--json: standard output is taken by the picture", "name a file with --output")
            if sys.stdout.isatty():
                raise UsageError("--output -: standard output is a terminal", "name a file, or lead it into one with >")
            self.output = folder / f"stdout{naming.suffix_of(Path(self.inputs[0]))}"
            console.call(self.output, "standard output")

    def send(self, done: int) -> None:
        """Write the result to standard output if it belongs there."""
        if self.to_stdout and done and self.output is not None:
            with self.output.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.flush()
