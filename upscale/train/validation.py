"""How good the network is while it is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from upscale.device import told_of_memory
from upscale.engine import Upscaler
from upscale.errors import InputError, NonFiniteOutput, OutOfMemory
from upscale.images import WHITE, Image, read_image
from upscale.imaging import to_array, to_tensor
from upscale.metrics import METRICS, prepare
from upscale.models import Generator
from upscale.options import Precision, Tiling
from upscale.train.data import find_pictures
from upscale.train.degradation import degrade
from upscale.train.pairs import check_sizes, match
from upscale.train.preview import results_sheet

SHOWN = 6  # validation pictures on a preview sheet
DEEP = np.dtype(np.uint16)  # in which LR of eight bits is whole, and results are rounded once
PERFECT = 100.0  # dB, where SR is GT to the last level: infinity would leave no mean of several

Distance = Callable[[Tensor, Tensor], Tensor]
"""``(sr, gt)`` ``[B, 3, H, W]`` RGB in [0, 1] -> ``[B]``."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A validation picture and its reduction."""

    name: str
    lr: Tensor  # [1, 3, h, w]
    gt: Tensor  # [1, 3, s*h, s*w]
    grayscale: bool = False


def load_pairs(folder: Path, scale: int, lr_folder: Path | None = None) -> tuple[list[Pair], list[str]]:
    """Read the pictures of ``folder``, cut to a multiple of ``scale``, and their LR: of ``lr_folder``, or bicubic.

    Returns them and what could not be used, and why. What is transparent is seen on white.

    Raises:
        InputError: no picture can be used, or LR pictures are missing or of another size.
    """
    pairs, skipped = [], []
    partners = {} if lr_folder is None else match(folder, lr_folder, scale)
    for path in find_pictures(folder, () if lr_folder is None else [lr_folder]):
        try:
            image = read_image(path).laid_on(WHITE)
            given = None if lr_folder is None else lr_folder / partners[str(path.relative_to(folder))]
            reduced = None if given is None else read_image(given).laid_on(WHITE)
        except InputError as error:
            skipped.append(error.message)
            continue
        if given is not None and reduced is not None:
            check_sizes(given, image.pixels.shape[:2], reduced.pixels.shape[:2], scale)
        gt = to_tensor(image.pixels)[None].double()
        gt = gt[..., : gt.shape[-2] // scale * scale, : gt.shape[-1] // scale * scale]
        if min(gt.shape[-2:]) < 16 * scale:
            skipped.append(f"{path}: too small to validate x{scale} on")
            continue
        lr = degrade(gt, scale) if reduced is None else to_tensor(reduced.pixels)[None]
        pairs.append(Pair(path.name, lr.float(), gt.float(), image.grayscale))
    if not pairs:
        raise InputError(f"{folder}: none of its pictures can be used", f"the first: {skipped[0]}")
    return pairs, skipped


@torch.inference_mode()
def validate(
    generator: Generator,
    pairs: Sequence[Pair],
    device: torch.device,
    sheet: Path | None = None,
    distances: Mapping[str, Distance] | None = None,
) -> tuple[dict[str, float], list[str]]:
    """Return the mean of every metric over ``pairs``: luma, ``scale`` pixels off each edge; and what was left out.

    Beside these, ``distances`` of the whole pictures, and ``drift``: by how many levels of 255 the mean of SR is off
    that of GT, in the channel where it is most. ``sheet`` is where to show the first few: bicubic | SR | GT. SR is what
    the engine makes, in float32. A picture for which memory does not suffice, that is too small, or of which SR is not
    finite, is left out: it is no reason to lose a run.
    """
    upscaler = Upscaler([generator], device, Precision.FP32, Tiling())
    measured: list[dict[str, float]] = []
    missed: list[str] = []
    shown: list[tuple[Tensor, Tensor, Tensor]] = []
    for pair in pairs:
        try:
            with told_of_memory("its metrics", ""):
                enlarged = upscaler.upscale(Image(pixels=to_array(pair.lr[0], DEEP), grayscale=pair.grayscale)).image
                sr = to_tensor(enlarged.pixels)[None]
                measured.append(_figures(sr, pair, generator.scale, distances or {}))
        except (OutOfMemory, NonFiniteOutput, InputError) as error:  # the last: too small for a distance
            missed.append(f"{pair.name}: {error.message}")
            continue
        if len(shown) < SHOWN:
            shown.append((pair.lr, sr, pair.gt))
    if sheet is not None and shown:
        sheet.parent.mkdir(exist_ok=True)
        results_sheet(sheet, shown)
    names = measured[0] if measured else ()
    return {name: sum(figures[name] for figures in measured) / len(measured) for name in names}, missed


def _figures(sr: Tensor, pair: Pair, scale: int, distances: Mapping[str, Distance]) -> dict[str, float]:
    compared, truth = (prepare(image, scale, grayscale=pair.grayscale) for image in (sr, pair.gt))
    found = {name: float(metric.function(compared, truth)) for name, metric in METRICS.items()}
    found["psnr"] = min(found["psnr"], PERFECT)
    found |= {name: float(distance(sr, pair.gt)) for name, distance in distances.items()}
    drift = 255 * (sr.double() - pair.gt).mean((0, 2, 3)).abs().max()
    return {**found, "drift": float(drift)}
