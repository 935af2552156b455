"""Sheets to look at: what the network will see, and what it makes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from upscale.images import Image, write_image
from upscale.imaging import resize, to_array
from upscale.train.data import Batch

GAP = 4  # white pixels between pictures
EDGE = 256  # pixels of a crop at most


def batches_sheet(path: Path, batches: Sequence[Batch]) -> None:
    """Write LR, enlarged pixel by pixel, beside GT: a row for every crop of ``batches``."""
    rows = []
    for batch in batches:
        for lr, gt in zip(batch.lr, batch.gt, strict=True):
            rows.append([F.interpolate(lr[None], gt.shape[-2:])[0], gt])
    write_sheet(path, rows)


def results_sheet(path: Path, results: Sequence[tuple[Tensor, Tensor, Tensor]]) -> None:
    """Write bicubic | SR | GT of ``(lr, sr, gt)`` ``[1, 3, ...]``: the middle of each picture."""
    rows = []
    for lr, sr, gt in results:
        bicubic = resize(lr, gt.shape[-2], gt.shape[-1])
        rows.append([_middle(picture[0]) for picture in (bicubic, sr, gt)])
    write_sheet(path, rows)


def write_sheet(path: Path, rows: Sequence[Sequence[Tensor]]) -> None:
    """Write pictures ``[3, H, W]`` in [0, 1] as a PNG of ``rows``."""
    lines = [_join([picture.float().cpu() for picture in row], 2) for row in rows]
    width = max(line.shape[2] for line in lines)
    lines = [F.pad(line, (0, width - line.shape[2], 0, 0), value=1.0) for line in lines]
    write_image(path, Image(pixels=to_array(_join(lines, 1), np.dtype(np.uint8))))


def _join(pictures: Sequence[Tensor], axis: int) -> Tensor:
    after = (0, GAP, 0, 0) if axis == 2 else (0, 0, 0, GAP)
    return torch.cat([F.pad(picture, after, value=1.0) for picture in pictures], axis)


def _middle(picture: Tensor) -> Tensor:
    top, left = max(0, (picture.shape[1] - EDGE) // 2), max(0, (picture.shape[2] - EDGE) // 2)
    return picture[:, top : top + EDGE, left : left + EDGE]
