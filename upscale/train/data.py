"""HR pictures -> aligned, augmented batches of (lr, gt)."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from platformdirs import user_cache_path
from torch import Tensor

from upscale import __version__
from upscale.ahead import ahead
from upscale.device import is_out_of_memory
from upscale.errors import InputError, UpscaleError
from upscale.files import check_folder, replacing
from upscale.images import FORMATS, Pixels, pictures_in, read_image
from upscale.images.formats import is_installed
from upscale.imaging import to_array, to_tensor
from upscale.train.degradation import MARGIN, chance, degrade, sharpened
from upscale.train.drawings import draw
from upscale.train.recipe import Recipe

UNUSED = 30 * 24 * 3600
"""Seconds after which decoded pictures that no run read are removed."""
LOADERS = 8
"""Threads at most that make batches for a GPU: more would wait for Python's lock, and hold up the one that trains."""
_CPU = torch.device("cpu")
_TURNS = (0, cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)


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
) -> Pictures:
    """Decode the pictures of ``folder`` once into the cache; those under ``smallest`` pixels wide or high are skipped.

    ``on_picture(done, total)`` is called while decoding. What lies in the subfolders ``leaving`` is not for training.

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
    cache = user_cache_path("upscale") / "train" / f"{readers.hexdigest()[:24]}.rgb"
    index = cache.with_suffix(".json")
    if not (index.is_file() and cache.is_file()):
        cache.parent.mkdir(parents=True, exist_ok=True)
        _forget_unused(cache.parent)
        _decode(paths, folder, cache, index, on_picture)
    index.touch()
    table = json.loads(index.read_text(encoding="utf-8"))
    everything = np.memmap(cache, np.uint8, "r") if table["shapes"] else np.empty(0, np.uint8)
    names, arrays, skipped, end = [], [], list(table["skipped"]), 0
    for name, (height, width) in zip(table["names"], table["shapes"], strict=True):
        end += height * width * 3
        if min(height, width) < smallest:
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
        if index.stat().st_mtime < time.time() - UNUSED:
            with suppress(OSError):  # another process was faster, or has them open
                index.unlink()
                index.with_suffix(".rgb").unlink()


def _decode(
    paths: Sequence[Path],
    folder: Path,
    cache: Path,
    index: Path,
    on_picture: Callable[[int, int], None] | None,
) -> None:
    names, shapes, skipped = [], [], []
    with replacing(cache) as temporary, temporary.open("wb") as file, ThreadPoolExecutor() as pool:
        for done, (path, result) in enumerate(ahead(pool, _load, paths, 2 * (os.cpu_count() or 1)), 1):
            if isinstance(result, str):
                skipped.append(result)
            else:
                file.write(result.tobytes())
                names.append(str(path.relative_to(folder)))
                shapes.append(result.shape[:2])
            if on_picture is not None:
                on_picture(done, len(paths))
    with replacing(index) as temporary:  # written last: an index that exists has a whole cache
        temporary.write_text(json.dumps({"names": names, "shapes": shapes, "skipped": skipped}), encoding="utf-8")


def _load(path: Path) -> Pixels | str:
    try:
        image = read_image(path)
    except UpscaleError as error:
        return error.message
    return to_array(to_tensor(image.pixels), np.dtype(np.uint8)) if image.pixels.dtype != np.uint8 else image.pixels


class _Crop(NamedTuple):
    """One example."""

    gt: Pixels
    lr: Pixels | None = None
    """Where it is not made of ``gt``."""


@dataclass(frozen=True, slots=True)
class _Crops:
    """What a batch is made of."""

    count: int
    edge: int
    """Of GT, in pixels."""
    shares: npt.NDArray[np.float64]
    """How often each picture is taken."""


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
        usual = self._of_size(data.batch_size, data.gt_size)
        assert usual is not None, "pictures without room for a crop are left out when they are read"
        self._usual = usual
        self._large = self._of_size(data.batch_size // 4, 2 * data.gt_size) or usual

    def _of_size(self, count: int, edge: int) -> _Crops | None:
        """Return so many crops with GT of ``edge`` pixels; None where no picture has room for one."""
        smallest = edge if self.lrs is not None else crop_size(edge, self.recipe.scale)
        sizes = np.array([array.shape[:2] for array in self.arrays])
        # In proportion to the edge, not the area: a panorama has more pixels than it has content.
        edges = np.where(sizes.min(1) >= smallest, np.sqrt(sizes.prod(1)), 0)
        return _Crops(count, edge, edges / edges.sum()) if edges.any() else None

    def starting_at(self, step: int, device: torch.device) -> Iterator[Batch]:
        """Yield the batch of ``step`` and those after it, on ``device``.

        For another device than the CPU, threads make the next ones while one is in use. On the CPU that would cost more
        than it saves: all cores work for the network, and wait for the one that makes the batch.
        """
        if device.type == "cpu":
            for number in itertools.count(step):
                yield self.batch(number)
        share = (os.cpu_count() or 1) // max(1, torch.cuda.device_count())  # of the cores, for each GPU's process
        yield from self.ahead(step, device, max(1, min(LOADERS, share - 1)))

    def ahead(self, step: int, device: torch.device, threads: int) -> Iterator[Batch]:
        """Yield the batch of ``step`` and those after it, as many of them made ahead as there are ``threads``."""
        with ThreadPoolExecutor(threads) as pool:
            coming = deque(pool.submit(self._ready, number, device) for number in range(step, step + threads))
            for number in itertools.count(step + threads):
                batch = coming.popleft()
                coming.append(pool.submit(self._ready, number, device))
                yield batch.result()

    def _ready(self, step: int, device: torch.device) -> Batch:
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
        size = self._large if step >= (1 - self.recipe.data.large) * self.recipe.steps else self._usual
        count = size.count
        crops = [self._crop(size, np.random.default_rng([*seed, self.rank * count + i])) for i in range(count)]
        gt = _stacked([crop.gt for crop in crops], device)
        places = [place for place, crop in enumerate(crops) if crop.lr is not None]
        given = _stacked([crop.lr for crop in crops if crop.lr is not None], device) if places else None
        sharp = sharpened(gt) if degradation.sharpen else None
        if self.lrs is not None:
            assert given is not None
            return Batch(given.contiguous(memory_format=torch.channels_last), gt, sharp)
        number = np.random.default_rng([*seed, self.rank, 1]).integers(2**63)
        random = torch.Generator().manual_seed(int(number))
        blind = degradation.kind == "blind" and not chance(random, degradation.clean)
        source, border = gt if sharp is None else sharp, MARGIN * scale
        lr = degrade(source, scale, degradation if blind else None, random)
        if given is not None and not blind:
            lr[places] = given
        return Batch(
            lr[..., MARGIN:-MARGIN, MARGIN:-MARGIN].contiguous(memory_format=torch.channels_last),
            gt[..., border:-border, border:-border].contiguous(),
            None if sharp is None else sharp[..., border:-border, border:-border].contiguous(),
            degradation.texture if blind else 1.0,
        )

    def _crop(self, crops: _Crops, rng: np.random.Generator) -> _Crop:
        data, scale, edge = self.recipe.data, self.recipe.scale, crops.edge
        size = crop_size(edge, scale) if self.lrs is None else edge // scale
        if data.drawn and rng.random() < data.drawn:
            gt, lr = draw(size // scale if self.lrs is None else size, scale, rng)
            return _Crop(gt, lr if self.lrs is not None or rng.random() < 0.5 else None)
        index = rng.choice(len(self.arrays), p=crops.shares)
        array = self.arrays[index] if self.lrs is None else self.lrs[index]
        candidates = []
        for _ in range(data.candidates):
            y = rng.integers(array.shape[0] - size + 1)
            x = rng.integers(array.shape[1] - size + 1)
            candidates.append((y, x, array[y : y + size, x : x + size]))
        y, x, crop = candidates[0] if len(candidates) == 1 else max(candidates, key=lambda found: _detail(found[2]))
        turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
        if self.lrs is None:
            return _Crop(_turned(crop, turns, mirror))
        gt = self.arrays[index][scale * y : scale * y + edge, scale * x : scale * x + edge]
        return _Crop(_turned(gt, turns, mirror), _turned(crop, turns, mirror))


def crop_size(edge: int, scale: int) -> int:
    """Return the edge of the crops that are cut from pictures to make LR of: GT of ``edge``, and the margin."""
    return edge + 2 * MARGIN * scale


def _stacked(crops: Sequence[Pixels], device: torch.device) -> Tensor:
    """Turn crops ``[H, W, 3]`` uint8 into ``[B, 3, H, W]`` float32 in [0, 1] on ``device``."""
    stacked = torch.from_numpy(np.stack(crops))
    if device.type == "cuda":  # else the copy would wait for what the GPU has to do
        stacked = stacked.pin_memory().to(device, non_blocking=True)
    return stacked.to(device).permute(0, 3, 1, 2).contiguous().float().div_(255)


def _turned(crop: Pixels, turns: int, mirror: bool) -> Pixels:
    """Turn ``crop`` by so many right angles to the left, then mirror it; three times as fast as by NumPy."""
    turned = cv2.rotate(crop, _TURNS[turns]) if turns else np.ascontiguousarray(crop)
    return cv2.flip(turned, 1) if mirror else turned


def _detail(crop: Pixels) -> float:
    """Return the mean step between neighbours on a grid of every second pixel of the green channel."""
    green = crop[::2, ::2, 1].astype(np.int16)
    return float(np.abs(np.diff(green, axis=0)).mean() + np.abs(np.diff(green, axis=1)).mean())
