from __future__ import annotations

import io
import math

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from tests.conftest import picture
from upscale.imaging import resize, to_tensor
from upscale.train.degradation import DegradationConfig, Stage, _bell, _blur_kernels, _filter, _sinc, degrade, sharpened
from upscale.train.jpeg import jpeg

BLIND = DegradationConfig(kind="blind")


def gt(count: int = 2, edge: int = 64) -> torch.Tensor:
    return torch.stack([to_tensor(picture(edge, edge, seed)) for seed in range(count)])


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_bicubic_is_the_plain_reduction_in_8_bit_steps() -> None:
    lr = degrade(gt(), 4)
    expected = (resize(gt(), 16, 16).clamp(0, 1) * 255).round() / 255
    assert torch.equal(lr, expected)
    assert torch.equal(degrade(gt(), 4, DegradationConfig(), rng()), expected)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_blind_lr_has_the_size_of_gt_over_scale_and_is_8_bit(scale: int) -> None:
    for seed in range(6):
        lr = degrade(gt(), scale, BLIND, rng(seed))
        assert lr.shape == (2, 3, 64 // scale, 64 // scale)
        assert float(lr.min()) >= 0
        assert float(lr.max()) <= 1
        torch.testing.assert_close(lr * 255, (lr * 255).round(), atol=1e-4, rtol=0)


def test_every_random_number_comes_from_the_generator() -> None:
    torch.manual_seed(0)
    first = degrade(gt(), 2, BLIND, rng(3))
    torch.manual_seed(1)
    assert torch.equal(degrade(gt(), 2, BLIND, rng(3)), first)
    assert not torch.equal(degrade(gt(), 2, BLIND, rng(4)), first)


def test_blind_is_worse_than_bicubic_but_the_same_picture() -> None:
    clean = degrade(gt(4), 2)
    errors = [float((degrade(gt(4), 2, BLIND, rng(seed)) - clean).abs().mean()) for seed in range(6)]
    shuffled = float((clean - clean.roll(7, 2)).abs().mean())
    assert 0.005 < np.mean(errors) < shuffled


def test_kernels_are_normalised_and_of_many_kinds() -> None:
    kernels = _blur_kernels(rng(), 60, Stage())
    assert kernels.shape == (60, 21, 21)
    torch.testing.assert_close(kernels.sum((1, 2)), torch.ones(60), atol=1e-5, rtol=0)
    assert any(float(kernel.min()) < -1e-4 for kernel in kernels)  # sinc filters ring
    assert any(not torch.allclose(kernel, kernel.T, atol=1e-3) for kernel in kernels)  # some are turned


def test_an_isotropic_bell_is_a_gaussian() -> None:
    axis = np.arange(-4, 5)
    expected = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 1.3**2))
    np.testing.assert_allclose(_bell(9, 1.3, 1.3, 0.0, 1.0, plateau=False).numpy(), expected / expected.sum())


def test_a_turned_bell_is_longest_along_its_angle() -> None:
    kernel = _bell(21, 3.0, 0.5, math.pi / 4, 1.0, plateau=False)
    assert float(kernel[14, 14]) > 10 * float(kernel[14, 6])


def test_sinc_keeps_what_is_below_its_cutoff_and_stops_what_is_above() -> None:
    x = torch.arange(64.0)
    for frequency, passes in ((0.3, True), (2.6, False)):
        wave = (0.5 + 0.4 * torch.cos(frequency * x)).expand(1, 3, 64, 64)
        filtered = _filter(wave, _sinc(math.pi / 2, 21).float()[None])[..., 16:48, 16:48]
        swing = float(filtered.max() - filtered.min())
        assert (swing > 0.6) if passes else (swing < 0.15)


@pytest.mark.parametrize("quality", [10, 30, 60, 90])
def test_jpeg_does_what_libjpeg_does(quality: int) -> None:
    pixels = picture(70, 90)
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=2)
    with PILImage.open(buffer) as opened:
        expected = np.asarray(opened).astype(float)
    ours = jpeg(to_tensor(pixels)[None], torch.tensor([float(quality)]))[0].permute(1, 2, 0).numpy() * 255
    error = np.abs(expected - pixels).mean()
    assert np.abs(ours - expected).mean() < 0.18 * error  # libjpeg rounds the reduced chroma and every stage
    assert np.abs(ours - pixels).mean() == pytest.approx(error, rel=0.05)


def test_each_picture_of_a_batch_has_its_own_quality() -> None:
    both = jpeg(gt(1).repeat(2, 1, 1, 1), torch.tensor([20.0, 95.0]))
    for i, quality in enumerate((20.0, 95.0)):
        torch.testing.assert_close(both[i], jpeg(gt(1), torch.tensor([quality]))[0])


def test_sharpening_is_an_unsharp_mask_where_there_are_edges() -> None:
    images = gt(2, 96)
    for image, found in zip(images, sharpened(images), strict=True):
        pixels = image.permute(1, 2, 0).numpy()
        detail = pixels - cv2.GaussianBlur(pixels, (51, 51), 0)
        edges = cv2.GaussianBlur((np.abs(detail) > 10 / 255).astype(np.float32), (51, 51), 0)
        expected = edges * np.clip(pixels + 0.5 * detail, 0, 1) + (1 - edges) * pixels
        np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), expected, atol=1e-5)
    even = torch.full((1, 3, 20, 20), 0.3)
    torch.testing.assert_close(sharpened(even), even)
