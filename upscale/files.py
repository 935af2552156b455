"""Write beside, then rename: a name that exists is a file that is whole."""

from __future__ import annotations

import os
import secrets
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; rename it to ``path`` when the block ends well.

    If the block raises, the temporary file is removed and ``path`` is as it was. The temporary name is hidden and keeps
    the suffix, by which encoders choose the format.
    """
    temporary = path.with_name(f"{part_prefix(path)}{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # or a power cut leaves a whole name with an empty file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def part_prefix(path: Path) -> str:
    """Return what the names of the temporary files of ``path``, and of no other file, begin with."""
    return f".{path.stem[:32]}-{zlib.crc32(path.name.encode(errors='surrogateescape')):08x}-"
