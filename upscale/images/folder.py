"""The pictures in a folder."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from upscale.errors import InputError
from upscale.files import resolved
from upscale.images.formats import is_picture


def pictures_in(folder: Path, *, recursive: bool = True, leaving: Collection[Path] = ()) -> list[Path]:
    """Return the pictures in ``folder``, and in its subfolders if ``recursive``, sorted; hidden ones are left out.

    Links to folders are followed, unless they lead back to where they are. ``leaving`` are subfolders that are left
    out. One that cannot be read is among the pictures, so that it is told of like them; so is a link to a picture that
    is gone.

    Raises:
        InputError: ``folder`` itself cannot be read.
    """
    left = {resolved(place) for place in leaving} - {resolved(folder)}
    closed: list[Path] = []

    def note(error: OSError) -> None:
        closed.append(Path(error.filename))
        if closed[-1] == folder:
            raise InputError(f"{folder}: {error.strerror or error}")

    def entered(subfolder: Path) -> bool:
        place = resolved(subfolder)
        return place not in left and not _leads_back(subfolder, place, folder)

    found = []
    for place, subfolders, files in os.walk(folder, onerror=note, followlinks=True):
        here = Path(place)
        subfolders[:] = [name for name in subfolders if recursive and name[0] != "." and entered(here / name)]
        found += [here / name for name in files if name[0] != "." and is_picture(Path(name))]
    return sorted([*(path for path in found if path.is_file() or not path.exists()), *closed])


def _leads_back(subfolder: Path, place: Path, folder: Path) -> bool:
    """Tell whether ``subfolder`` of ``folder``, in truth at ``place``, has in it a folder that led there."""
    parents = subfolder.parents[: len(subfolder.relative_to(folder).parts)]
    return any(resolved(parent).is_relative_to(place) for parent in parents)
