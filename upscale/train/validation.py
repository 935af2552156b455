"""How good the network is while it is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from upscale.errors import InputError
from upscale.images import read_image
from upscale.imaging import to_tensor
from upscale.metrics import METRICS, prepare
from upscale.models import Generator
from upscale.train.data import find_pictures
from upscale.train.degradation import degrade
from upscale.train.preview import results_sheet

SHOWN = 6  # validation pictures on a preview sheet

Distance = Callable[[Tensor, Tensor], Tensor]
"""``(sr, gt)`` ``[B, 3, H, W]`` RGB in [0, 1] -> ``[B]``."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A validation picture and its reduction."""

    name: str
    lr: Tensor  # [1, 3, h, w]
    gt: Tensor  # [1, 3, s*h, s*w]


def load_pairs(folder: Path, scale: int) -> tuple[list[Pair], list[str]]:
    """Read the pictures of ``folder``, cut to a multiple of ``scale``, and reduce them bicubic.

    Returns them and what could not be used, and why.

    Raises:
        InputError: no picture can be used.
    """
    pairs, skipped = [], []
    for path in find_pictures(folder):
        try:
            gt = to_tensor(read_image(path).pixels)[None].double()
        except InputError as error:
            skipped.append(error.message)
            continue
        gt = gt[..., : gt.shape[-2] // scale * scale, : gt.shape[-1] // scale * scale]
        if min(gt.shape[-2:]) < 16 * scale:
            skipped.append(f"{path}: too small to validate x{scale} on")
            continue
        pairs.append(Pair(path.name, degrade(gt, scale).float(), gt))
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
) -> dict[str, float]:
    """Return the mean of every metric over ``pairs``: luma, ``scale`` pixels off each edge.

    Beside these, ``distances`` of the whole pictures, and ``drift``: by how many levels of 255 the mean of SR is off
    that of GT, in the channel where it is most. ``sheet`` is where to show the first few: bicubic | SR | GT.
    """
    if not pairs:
        return {}
    distances = distances or {}
    totals = dict.fromkeys([*METRICS, *distances, "drift"], 0.0)
    shown: list[tuple[Tensor, Tensor, Tensor]] = []
    for pair in pairs:
        sr = generator(pair.lr.to(device)).cpu()
        if len(shown) < SHOWN:
            shown.append((pair.lr, sr, pair.gt))
        compared, truth = prepare(sr, generator.scale), prepare(pair.gt, generator.scale)
        for name, metric in METRICS.items():
            totals[name] += float(metric.function(compared, truth)) / len(pairs)
        shown_as, gt = sr.clamp(0, 1).float(), pair.gt.float()
        for name, distance in distances.items():
            totals[name] += float(distance(shown_as, gt)) / len(pairs)
        shift = 255 * (shown_as.double() - pair.gt).mean((0, 2, 3))
        totals["drift"] += float(shift.abs().max()) / len(pairs)
    if sheet is not None:
        sheet.parent.mkdir(exist_ok=True)
        results_sheet(sheet, shown)
    return totals
