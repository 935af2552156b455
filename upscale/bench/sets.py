"""Sets of pictures to measure on."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from upscale.errors import InputError
from upscale.files import check_folder
from upscale.images import WHITE, Image, Pixels, is_picture, pictures_in, read_image
from upscale.imaging import resize

CARRIED = Path(__file__).parent / "pictures"
"""The small set that comes with the package."""
ROOT_VARIABLE = "UPSCALE_DATASETS"
"""Environment variable: the folder in which a set given by name is looked for."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """HR pictures, and where their LR pictures are if they are not to be made."""

    name: str
    pictures: tuple[Path, ...]
    lr: Path | None = None

    def digest(self, scales: Sequence[int]) -> str:
        """Return the sha256 over names and contents of the HR pictures, and of the LR pictures of ``scales``."""
        total = hashlib.sha256()
        given = [self.lr_of(picture, scale) for scale in scales for picture in self.pictures]
        for path in (*self.pictures, *(path for path in given if path is not None)):
            name = path.name.encode(errors="surrogateescape")
            total.update(name + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        return total.hexdigest()

    def lr_of(self, picture: Path, scale: int) -> Path | None:
        """Return the LR picture of ``picture``; None where it is to be made, or missing."""
        if self.lr is None:
            return None
        names = (picture.stem, f"{picture.stem}x{scale}", f"{picture.stem}_x{scale}")
        for folder in (self.lr / f"X{scale}", self.lr / f"x{scale}", self.lr):
            for path in sorted(folder.glob("*")):
                if path.stem in names and is_picture(path):
                    return path
        return None


def open_sets(data: Sequence[str], lr: Path | None, scales: Sequence[int]) -> list[DataSet]:
    """Find the sets called ``data``, folders or names; without any, the one that the package carries.

    Raises:
        InputError: no such set, no pictures in it, or pictures without their LR picture in ``lr``.
    """
    if lr is not None and len(data) != 1:
        raise InputError("--lr goes with one folder of HR pictures", "name that folder: upscale bench HR --lr LR")
    if lr is not None:
        check_folder(lr)
    sets = [_open(_folder(name), lr) for name in data] if data else [_open(CARRIED, None, "carried")]
    count = Counter(dataset.name for dataset in sets)
    sets = [
        dataset if count[dataset.name] == 1 else replace(dataset, name=given)
        for dataset, given in zip(sets, data or [CARRIED.name], strict=True)
    ]
    if twice := next((name for name, times in Counter(dataset.name for dataset in sets).items() if times > 1), None):
        raise InputError(f"{twice}: is named twice", "each set once")
    for dataset in sets:
        for scale in scales:
            absent = [path.name for path in dataset.pictures if lr and dataset.lr_of(path, scale) is None]
            if absent:
                raise InputError(
                    f"{lr}: no x{scale} picture for {len(absent)} of {len(dataset.pictures)}: {', '.join(absent[:3])}",
                    f"they are called like the HR pictures, with x{scale} after the name or in a folder X{scale}",
                )
    return sets


def _folder(name: str) -> Path:
    path = Path(name)
    if path.exists():
        check_folder(path)
        return path
    root = os.environ.get(ROOT_VARIABLE)
    if root and path.parent == Path():
        for folder in sorted(Path(root).glob("*")):
            if folder.is_dir() and folder.name.lower() == name.lower():
                return folder
    raise InputError(
        f"{name}: no such folder",
        f"give a folder of HR pictures, or set {ROOT_VARIABLE} to the folder that holds sets such as Set5",
    )


def _open(folder: Path, lr: Path | None, name: str | None = None) -> DataSet:
    pictures = tuple(path for path in pictures_in(folder, recursive=False) if path.is_file())
    if not pictures:
        raise InputError(f"{folder}: no pictures in it")
    stems = [path.stem for path in pictures]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise InputError(f"{folder}: two pictures are called {twice}", "each needs a name of its own")
    return DataSet(name or folder.resolve().name, pictures, lr)


@dataclass(frozen=True, slots=True)
class Case:
    """A picture at one scale: what the network gets and what it should give."""

    name: str
    lr: Image
    gt: Pixels
    """``[s*h, s*w, 3]``, the HR picture cut to a multiple of the scale."""
    grayscale: bool
    """Whether both are of one channel."""


def open_case(dataset: DataSet, picture: Path, scale: int) -> Case:
    """Read ``picture``, cut it to a multiple of ``scale``, and reduce it or read its LR picture.

    What is transparent is seen on white.

    Raises:
        InputError: not readable, smaller than the scale, or of another size than its LR picture says.
    """
    hr = read_image(picture).laid_on(WHITE)
    h, w = (length // scale for length in hr.pixels.shape[:2])
    if min(h, w) == 0:
        raise InputError(f"{picture.name}: {hr.pixels.shape[1]}x{hr.pixels.shape[0]} is too small for x{scale}")
    gt = hr.pixels[: h * scale, : w * scale]
    path = dataset.lr_of(picture, scale)
    if path is None:
        return Case(picture.stem, Image(pixels=reduce(gt, scale), grayscale=hr.grayscale), gt, hr.grayscale)
    lr = read_image(path).laid_on(WHITE)
    if lr.pixels.shape[:2] != (h, w):
        found, expected = f"{lr.pixels.shape[1]}x{lr.pixels.shape[0]}", f"{w}x{h}"
        raise InputError(f"{path.name}: {found}, but x{scale} of {picture.name} should be {expected}")
    return Case(picture.stem, Image(pixels=lr.pixels, grayscale=lr.grayscale), gt, hr.grayscale and lr.grayscale)


def reduce(gt: Pixels, scale: int) -> Pixels:
    """Reduce ``gt`` ``[s*h, s*w, 3]`` to ``[h, w, 3]`` of its dtype as MATLAB's imresize of doubles, then rounded.

    Computed on whole levels, so that halves are exactly halves, which MATLAB rounds up.
    """
    levels = int(np.iinfo(gt.dtype).max)
    image = torch.from_numpy(gt.transpose(2, 0, 1).astype(np.float64))
    lr = resize(image, gt.shape[0] // scale, gt.shape[1] // scale)
    reduced: Pixels = (lr + 0.5).floor().clamp(0, levels).numpy().transpose(1, 2, 0).astype(gt.dtype)
    return np.ascontiguousarray(reduced)


def as_batch(pixels: Pixels) -> Tensor:
    """Turn ``pixels`` ``[H, W, C]`` into float64 ``[1, C, H, W]`` in [0, 1]."""
    return torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float64)) / int(np.iinfo(pixels.dtype).max)
