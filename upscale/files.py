"""Write beside, then rename: a name that exists is a file that is whole."""

from __future__ import annotations

import errno
import os
import secrets
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from upscale.errors import DiskFull, InputError


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


def check_folder(folder: Path) -> None:
    """Raise InputError unless ``folder`` is one."""
    if not folder.is_dir():
        raise InputError(f"{folder}: {'is a file, not a' if folder.exists() else 'no such'} folder")


@contextmanager
def said_of(path: Path) -> Iterator[None]:
    """Turn what the system says of writing ``path`` into words for the user."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"{path}: no room left on the disk", "make room, then give the same command again"
            ) from error
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, under its name only when it is whole.

    Raises:
        DiskFull: no room for it.
        InputError: it cannot be written.
    """
    with said_of(path), replacing(path) as temporary:
        # Names of files need not be UTF-8.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def exists(path: Path) -> bool:
    """Tell whether ``path`` leads to something; of a name that is too long, Path.exists raises."""
    return os.path.exists(path)  # noqa: PTH110


def resolved(path: Path) -> Path:
    """Return where ``path`` leads, as far as it does: of a link to itself, Path.resolve raises before Python 3.13."""
    return Path(os.path.realpath(path))


def ends_with_newline(path: Path) -> bool:
    """Tell whether a text file ends with a whole line, or is empty."""
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def part_prefix(path: Path) -> str:
    """Return what the names of the temporary files of ``path``, and of no other file, begin with."""
    return f".{path.stem[:32]}-{zlib.crc32(path.name.encode(errors='surrogateescape')):08x}-"
