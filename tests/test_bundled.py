"""What figures on luma do not tell of the networks that come with the package."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from torch import Tensor

from upscale.images import Image
from upscale.imaging import resize, to_array, to_tensor
from upscale.loading import load
from upscale.options import Precision

NETWORKS = ["compact-x2", "compact-x4", "compact-x2-photo", "compact-x4-photo"]


def discs(edge: int) -> Tensor:
    """Return coloured discs ``[1, 3, edge, edge]``, all about as light as their ground."""
    y, x = torch.meshgrid(torch.arange(edge), torch.arange(edge), indexing="ij")
    image = torch.full((3, edge, edge), 0.5)
    colours = torch.tensor([[0.9, 0.35, 0.3], [0.2, 0.6, 0.8], [0.5, 0.55, 0.1], [0.7, 0.35, 0.8]])
    for i, colour in enumerate(colours):
        top, left = edge * (1 + 2 * (i // 2)) / 4, edge * (1 + 2 * (i % 2)) / 4
        inside = (edge / 6 - torch.hypot(y - top, x - left) + 0.5).clamp(0, 1)
        image = torch.lerp(image, colour[:, None, None].expand_as(image), inside)
    return image[None]


@pytest.mark.parametrize("scale", [2, 4])
def test_colours_are_enlarged_as_well_as_lightness(scale: int) -> None:
    gt = discs(96)
    lr = resize(gt, 96 // scale, 96 // scale)

    def colour_error(sr: Tensor) -> float:
        difference = sr - gt
        return float((difference[:, ::2] - difference[:, 1:2]).square().mean())

    with torch.inference_mode():
        sr = load("compact").generators[scale].float()(lr)
    assert colour_error(sr) < 1.1 * colour_error(resize(lr, 96, 96))


@pytest.mark.parametrize("model", NETWORKS)
def test_flat_colours_are_flat_up_to_the_frame(model: str) -> None:
    upscaler = load(model, precision=Precision.FP32)
    for colour in [(0, 0, 255), (255, 0, 0), (255, 255, 0), (224, 172, 140), (255, 255, 255), (0, 0, 0)]:
        pixels = np.full((40, 40, 3), colour, np.uint8)
        result = upscaler.upscale(Image(pixels=pixels)).image.pixels
        assert np.abs(result.astype(int) - colour).max() <= 1


@pytest.mark.parametrize("model", NETWORKS)
def test_lines_without_antialiasing_have_no_echo(model: str) -> None:
    pixels = np.full((48, 64, 3), 255, np.uint8)
    pixels[6, 4:60] = pixels[30, 20:60] = pixels[42, 20:60] = 0
    pixels[10:44, 8] = pixels[30:43, 20] = pixels[30:43, 59] = 0
    upscaler = load(model, precision=Precision.FP32)
    result = upscaler.upscale(Image(pixels=pixels)).image.pixels
    near = cv2.dilate(255 - pixels, np.ones((5, 5), np.uint8))  # two pixels around each line
    scale = len(result) // len(pixels)
    beside = result[np.repeat(np.repeat(near, scale, 0), scale, 1) == 0]
    assert 255 - int(beside.min()) <= 8
    assert result[scale * 6 : scale * 7, scale * 8 : scale * 56].max() < 110


@pytest.mark.parametrize("model", ["compact-x2-photo", "compact-x4-photo"])
def test_photo_networks_restore_what_jpeg_took_and_keep_the_tint(model: str) -> None:
    gt = 0.2 + 0.6 * (discs(288)[:, :1] > 0.55).float().expand(-1, 3, -1, -1)  # JPEG rings around such edges
    scale = int(model[9])
    small = to_array(resize(gt, 288 // scale, 288 // scale)[0], np.dtype(np.uint8))
    file = io.BytesIO()
    PILImage.fromarray(small).save(file, "JPEG", quality=60)
    lr = to_tensor(np.asarray(PILImage.open(file)))[None]

    def enlarged(name: str) -> Tensor:
        with torch.inference_mode():
            sr: Tensor = load(name).generators[scale].float()(lr)
            return sr

    def error(sr: Tensor) -> float:
        return float((sr - gt).square().mean())

    photo, faithful = enlarged(model), enlarged("compact")
    half = enlarged(f"{model}:0.5,compact-x{scale}:0.5")
    assert error(photo) < 0.8 * error(faithful)
    assert error(photo) < error(half) < error(faithful)
    assert float((photo - lr.mean((-2, -1), keepdim=True)).mean((-2, -1)).abs().max()) < 1 / 255
