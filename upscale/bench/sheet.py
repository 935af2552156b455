"""One part of a picture as several networks enlarge it: which part, and all of them on one labelled sheet."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch.nn.functional as F
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from upscale.bench.sets import as_batch
from upscale.images import Pixels

GAP, LABEL, TEXT = 8, 24, 14  # pixels between pictures, of the line below each, and of its letters
WIDEST = 2400  # pixels of a sheet


def detailed(pixels: Pixels, height: int, width: int) -> tuple[int, int]:
    """Return top and left of the part of ``pixels`` ``[H, W, 3]``, ``height`` by ``width``, that has most detail."""
    image = as_batch(pixels).mean(1, keepdim=True)
    steps = F.pad(image.diff(dim=-1).abs(), (0, 1)) + F.pad(image.diff(dim=-2).abs(), (0, 0, 0, 1))
    stride = 8
    # Not the sum of squares: one hard edge is less telling than texture all over.
    amount = F.avg_pool2d(steps.sqrt(), (height, width), stride)[0, 0]
    row, column = divmod(int(amount.argmax()), amount.shape[1])
    return stride * row, stride * column


def sheet(pictures: Mapping[str, Pixels], notes: Mapping[str, str]) -> Pixels:
    """Return ``pictures``, ``[H, W, 3]`` uint8 of one size by name, side by side, each above its name and its note."""
    height, width = next(iter(pictures.values())).shape[:2]
    columns = min(len(pictures), max(1, (WIDEST - GAP) // (width + GAP)))
    rows = -(-len(pictures) // columns)
    size = (GAP + columns * (width + GAP), GAP + rows * (height + LABEL + GAP))
    drawn = PILImage.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(TEXT)
    for index, (name, pixels) in enumerate(pictures.items()):
        row, column = divmod(index, columns)
        left, top = GAP + column * (width + GAP), GAP + row * (height + LABEL + GAP)
        drawn.paste(PILImage.fromarray(pixels), (left, top))
        label = f"{name}  {notes.get(name, '')}".rstrip()
        while pen.textlength(label, font) > width and len(label) > 1:
            label = label[:-2] + "…"
        pen.text((left, top + height + 2), label, "black", font)
    return np.asarray(drawn)
