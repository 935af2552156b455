"""Where weights lie on disk, and whether they are what the catalogue says."""

from __future__ import annotations

import hashlib
from pathlib import Path

from upscale.catalog import WeightsEntry
from upscale.errors import ChecksumMismatch, UnknownWeights


def locate(entry: WeightsEntry) -> Path | None:
    """Return the checkpoint of ``entry``, verified; None for a network without weights.

    Raises:
        UnknownWeights: the file is not there.
        ChecksumMismatch: the file is not the one that the catalogue describes.
    """
    path = entry.path
    if path is None:
        return None
    if not path.is_file():
        raise UnknownWeights(f"{path}: the weights of {entry.name} are missing", "install the package again")
    if entry.sha256 is not None and (actual := sha256(path)) != entry.sha256:
        raise ChecksumMismatch(
            f"{path}: sha256 is {actual}, {entry.name} should have {entry.sha256}",
            "install the package again",
        )
    return path


def sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
