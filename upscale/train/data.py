"""HR pictures -> aligned, augmented batches of (lr, gt)."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from numpy.random import default_rng
from platformdirs import user_cache_path
from torch import Tensor

from upscale import __version__
from upscale.ahead import ahead
from upscale.device import is_out_of_memory
from upscale.errors import InputError, UpscaleError
from upscale.files import check_folder, replacing, said_of
from upscale.images import FORMATS, WHITE, Pixels, pictures_in, read_image
from upscale.images.formats import is_installed
from upscale.imaging import to_array, to_tensor
from upscale.train.crops import Draw, InMemory, OnDevice, Shelf, to_device
from upscale.train.degradation import MARGIN, chance, degrade, sharpened
from upscale.train.drawings import draw as draw_crop
from upscale.train.recipe import Recipe

UNUSED = 30 * 24 * 3600
"""Seconds after which decoded pictures that no run read are removed."""
LOADERS = 8
"""Threads at most that make batches for a GPU: more would wait for Python's lock, and hold up the one that trains."""
HELD = 0.25
"""Share of a GPU's free memory that pictures may take."""
_CPU = torch.device("cpu")
_PLACES, _DRAWING, _DEGRADATION = 1, 2, 3  # what random numbers are for: each its own


class Batch(NamedTuple):
    """Aligned crops."""

    lr: Tensor  # [B, 3, h, w] float32 in [0, 1]
    gt: Tensor  # [B, 3, s*h, s*w]
    sharp: Tensor | None = None  # what losses compare with instead of gt, except the adversarial one
    texture: float = 1.0  # share of the weights of perceptual and adversarial terms


@dataclass(frozen=True, slots=True)
class Pictures:
    """Decoded pictures, each uint8 ``[H, W, 3]``, in one memory-mapped file."""

    names: Sequence[str]
    arrays: Sequence[Pixels]
    digest: str
    """Identifies the data: sha256 over names, sizes and dates of the files."""
    skipped: Sequence[str]
    """What could not be used, and why."""
    lrs: Sequence[Pixels] | None = None
    """The LR pictures of ``arrays``, where they are given and not made."""


def find_pictures(folder: Path, leaving: Collection[Path] = ()) -> list[Path]:
    """Return the pictures in ``folder`` and below, but for the subfolders ``leaving``, sorted.

    Raises:
        InputError: no such folder, or none in it.
    """
    check_folder(folder)
    paths = pictures_in(folder, leaving=leaving)
    if not paths:
        raise InputError(f"{folder}: no pictures in it")
    return paths


def open_pictures(
    folder: Path,
    smallest: int,
    on_picture: Callable[[int, int], None] | None = None,
    leaving: Collection[Path] = (),
    sizes: Sequence[float] = (),
) -> Pictures:
    """Decode the pictures of ``folder`` once into the cache; those under ``smallest`` pixels wide or high are skipped.

    ``on_picture(done, total)`` is called while decoding. What lies in the subfolders ``leaving`` is not for training.
    Each picture is there once more for each of ``sizes``, reduced to so much of its width and height.

    Raises:
        InputError: no picture can be used.
    """
    paths = find_pictures(folder, leaving)
    digest = hashlib.sha256()
    for path in paths:
        facts = path.stat(follow_symlinks=path.exists())
        line = f"{path.relative_to(folder)}\0{facts.st_size}\0{facts.st_mtime_ns}\n"
        digest.update(line.encode(errors="surrogateescape"))
    readers = digest.copy()  # on which depends, too, what is skipped: a permission may be given, a plug-in come
    readers.update(f"{__version__} {[is_installed(row) for row in FORMATS]}".encode())
    readers.update(bytes(os.access(path, os.R_OK) for path in paths))
    if sizes:
        readers.update(f"{list(sizes)}".encode())
    cache = user_cache_path("upscale") / "train" / f"{readers.hexdigest()[:24]}.rgb"
    index = cache.with_suffix(".json")
    if not (index.is_file() and cache.is_file()):
        cache.parent.mkdir(parents=True, exist_ok=True)
        _forget_unused(cache.parent)
        _decode(paths, folder, sizes, cache, index, on_picture)
    index.touch()  # it is in use
    table = json.loads(index.read_text(encoding="utf-8"))
    everything = np.memmap(cache, np.uint8, "r") if table["shapes"] else np.empty(0, np.uint8)
    names, arrays, skipped, end = [], [], list(table["skipped"]), 0
    for number, (name, (height, width)) in enumerate(zip(table["names"], table["shapes"], strict=True)):
        end += height * width * 3
        if min(height, width) < smallest:
            if name not in table["names"][max(0, number - len(sizes)) : number]:  # else it is a reduced one
                skipped.append(f"{name}: {width}x{height} is smaller than a crop of {smallest}")
        else:
            names.append(name)
            arrays.append(everything[end - height * width * 3 : end].reshape(height, width, 3))
    if not arrays:
        raise InputError(f"{folder}: none of its {len(paths)} pictures can be used", f"the first: {skipped[0]}")
    return Pictures(names, arrays, digest.hexdigest(), skipped)


def _forget_unused(folder: Path) -> None:
    """Remove decoded pictures that no run has read for long."""
    for index in folder.glob("*.json"):
        with suppress(OSError):  # another process was faster, or has them open
            if index.stat().st_mtime < time.time() - UNUSED:
                index.unlink()
                index.with_suffix(".rgb").unlink()


def _decode(
    paths: Sequence[Path],
    folder: Path,
    sizes: Sequence[float],
    cache: Path,
    index: Path,
    on_picture: Callable[[int, int], None] | None,
) -> None:
    names, shapes, skipped = [], [], []
    with said_of(cache), replacing(cache) as temporary, temporary.open("wb") as file, ThreadPoolExecutor() as pool:
        loaded = ahead(pool, partial(_load, sizes), paths, 2 * (os.cpu_count() or 1))
        for done, (path, result) in enumerate(loaded, 1):
            if isinstance(result, str):
                skipped.append(result)
            else:
                for picture in result:
                    file.write(picture.tobytes())
                    names.append(str(path.relative_to(folder)))
                    shapes.append(picture.shape[:2])
            if on_picture is not None:
                on_picture(done, len(paths))
    with said_of(index), replacing(index) as temporary:  # written last: an index that exists has a whole cache
        temporary.write_text(json.dumps({"names": names, "shapes": shapes, "skipped": skipped}), encoding="utf-8")


def _load(sizes: Sequence[float], path: Path) -> list[Pixels] | str:
    """Return the picture of ``path`` and its reductions to ``sizes``, or why it cannot be used."""
    try:
        pixels = read_image(path).laid_on(WHITE).pixels
    except UpscaleError as error:
        return error.message
    if pixels.dtype != np.uint8:
        pixels = to_array(to_tensor(pixels), np.dtype(np.uint8))
    height, width = pixels.shape[:2]
    edges = [(max(1, round(size * width)), max(1, round(size * height))) for size in sizes]
    return [pixels, *(cv2.resize(pixels, edge, interpolation=cv2.INTER_AREA) for edge in edges)]


class Batches:
    """Random crops as batches; each is a function of the seed and the step alone, so a resumed run sees the same.

    Of several processes, the one of ``rank`` draws the crops that follow those of the ranks before it.
    """

    def __init__(self, pictures: Pictures, recipe: Recipe, rank: int = 0) -> None:
        self.arrays = pictures.arrays
        self.lrs = pictures.lrs
        self.recipe = recipe
        self.rank = rank
        data = recipe.data
        usual = self._draw(data.batch_size, data.gt_size)
        assert usual is not None, "pictures without room for a crop are left out when they are read"
        self._usual = usual
        self._large = self._draw(data.batch_size // 4, 2 * data.gt_size) or usual
        self._shelves: dict[torch.device, Shelf] = {_CPU: InMemory(self.arrays, self.lrs, recipe.scale)}

    def _draw(self, count: int, edge: int) -> Draw | None:
        """Return how so many crops with GT of ``edge`` pixels are drawn; None where no picture has room for one."""
        scale = self.recipe.scale
        arrays, cut = (self.arrays, crop_size(edge, scale)) if self.lrs is None else (self.lrs, edge // scale)
        sizes = np.array([array.shape[:2] for array in arrays])
        # In proportion to the edge, not the area: a panorama has more pixels than it has content.
        edges = np.where(sizes.min(1) >= cut, np.sqrt(sizes.prod(1)), 0)
        return Draw(count, edge, cut, self.recipe.data.candidates, sizes, edges) if edges.any() else None

    def keep_on(self, device: torch.device) -> None:
        """Keep the pictures in the memory of ``device``, to cut crops there: much faster than cutting them here."""
        self._shelves[device] = OnDevice(self.arrays, self.lrs, self.recipe.scale, device)

    def starting_at(self, step: int, device: torch.device) -> Iterator[Batch]:
        """Yield the batch of ``step`` and those after it, on ``device``.

        For another device than the CPU, threads make the next ones while one is in use. On the CPU that would cost more
        than it saves: all cores work for the network, and wait for the one that makes the batch.
        """
        if device.type == "cpu":
            for number in itertools.count(step):
                yield self.batch(number)
        size = sum(array.nbytes for array in (*self.arrays, *(self.lrs or ())))
        if device.type == "cuda" and device not in self._shelves and size < HELD * torch.cuda.mem_get_info(device)[0]:
            self.keep_on(device)
        share = (os.cpu_count() or 1) // max(1, torch.cuda.device_count())  # of the cores, for each GPU's process
        yield from self.ahead(step, device, max(1, min(LOADERS, share - 1)))

    def ahead(self, step: int, device: torch.device, threads: int) -> Iterator[Batch]:
        """Yield the batch of ``step`` and those after it, as many of them made ahead as there are ``threads``."""
        with ThreadPoolExecutor(threads) as pool:
            for _, batch in ahead(pool, partial(self._ready, device), itertools.count(step), threads):
                yield batch

    def _ready(self, device: torch.device, step: int) -> Batch:
        """Return the batch of ``step`` on ``device``, complete."""
        if device.type != "cuda":
            return self._fitting(step, device)
        # In the stream of the training, each copy to the GPU would wait for all that is queued there.
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            batch = self._fitting(step, device)
        stream.synchronize()
        for tensor in batch:
            if isinstance(tensor, Tensor):
                tensor.record_stream(torch.cuda.default_stream(device))
        return batch

    def _fitting(self, step: int, device: torch.device) -> Batch:
        """Return the batch of ``step`` on ``device``; what has no room there beside training is made on the CPU."""
        try:
            return self.batch(step, device)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        lr, gt, sharp, texture = self.batch(step)
        return Batch(lr.to(device), gt.to(device), None if sharp is None else sharp.to(device), texture)

    def batch(self, step: int, device: torch.device = _CPU) -> Batch:
        """Return the batch of ``step`` on ``device``, where LR is made."""
        scale, degradation = self.recipe.scale, self.recipe.degradation
        seed = [self.recipe.seed, step]
        share = self.recipe.data.large
        large = share > 0 and step >= (1 - share) * self.recipe.steps
        gt, given, with_lr = self._crops(self._large if large else self._usual, seed, device)
        sharp = sharpened(gt) if degradation.sharpen else None
        if self.lrs is not None and given is not None:
            return Batch(given.contiguous(memory_format=torch.channels_last), gt, sharp)
        number = default_rng([_DEGRADATION, *seed, self.rank]).integers(2**63)
        random = torch.Generator().manual_seed(int(number))
        blind = degradation.kind == "blind" and not chance(random, degradation.clean)
        source, border = gt if sharp is None else sharp, MARGIN * scale
        lr = degrade(source, scale, degradation if blind else None, random)
        if given is not None and with_lr is not None and not blind:
            lr[with_lr] = given
        return Batch(
            lr[..., MARGIN:-MARGIN, MARGIN:-MARGIN].contiguous(memory_format=torch.channels_last),
            gt[..., border:-border, border:-border].contiguous(),
            None if sharp is None else sharp[..., border:-border, border:-border].contiguous(),
            degradation.texture if blind else 1.0,
        )

    def _crops(self, draw: Draw, seed: list[int], device: torch.device) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the GT of a batch; the LR that is not to be made of it, if any; and of which crops, if not of all."""
        first = self.rank * draw.count
        random = default_rng([_PLACES, *seed]).random((first + draw.count, 1 + draw.numbers))[first:]
        gt, lr = self._shelves.get(device, self._shelves[_CPU]).cut(draw.places(random[:, 1:]), draw)
        with_lr = None
        drawn = np.flatnonzero(random[:, 0] < self.recipe.data.drawn)
        if len(drawn):
            edge = draw.cut if lr is not None else draw.cut // self.recipe.scale
            sources = [default_rng([_DRAWING, *seed, first + int(place)]) for place in drawn]
            pairs = [draw_crop(edge, self.recipe.scale, source) for source in sources]
            drawings, reduced = (np.stack([pair[of] for pair in pairs]) for of in (0, 1))
            gt[_on(gt.device, drawn)] = _on(gt.device, drawings)
            if lr is not None:
                lr[_on(lr.device, drawn)] = _on(lr.device, reduced)
            else:
                kept = np.array([source.random() < 0.5 for source in sources])
                with_lr, lr = _on(device, drawn[kept]), _on(device, reduced[kept])
        return (
            _images(to_device(gt, device)),
            None if lr is None else _images(to_device(lr, device)),
            with_lr,
        )


def crop_size(edge: int, scale: int) -> int:
    """Return the edge of the crops that are cut from pictures to make LR of: GT of ``edge``, and the margin."""
    return edge + 2 * MARGIN * scale


def _on(device: torch.device, array: npt.NDArray[Any]) -> Tensor:
    return to_device(torch.from_numpy(array), device)


def _images(crops: Tensor) -> Tensor:
    """Turn uint8 ``[B, H, W, 3]`` into ``[B, 3, H, W]`` float32 in [0, 1]."""
    return crops.permute(0, 3, 1, 2).contiguous().float().div_(255)
