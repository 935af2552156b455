"""MATLAB's imresize: recorded values, and laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from upscale.imaging import KERNELS, BandResizer, Kernel, resize

RAMP = torch.arange(16, dtype=torch.float64).view(4, 4)


def test_reduction_has_the_weights_of_matlab() -> None:
    """Imresize by 1/2 multiplies eight pixels by these; so recorded from impulses."""
    impulses = torch.eye(24, dtype=torch.float64)
    weights = resize(impulses, 24, 12)[:, 6] * 256
    expected = np.zeros(24)
    expected[9:17] = [-3, -9, 29, 111, 111, 29, -9, -3]
    np.testing.assert_allclose(weights.numpy(), expected, atol=1e-12)


def test_bicubic_has_recorded_values_at_a_size_that_is_no_multiple() -> None:
    """Recorded from the documentation of bicubic_pytorch 1.0.0, whose author checked it against MATLAB R2019b.

    Its 6.1505 breaks the symmetry of the ramp by 0.0004, so the record itself is no more exact than that.
    """
    recorded = [[0.7506, 2.1004, 3.4503], [6.1505, 7.5000, 8.8499], [11.5497, 12.8996, 14.2494]]
    np.testing.assert_allclose(resize(RAMP, 3, 3).numpy(), recorded, atol=5e-4)


@pytest.mark.parametrize(
    ("image", "recorded"),
    [
        (RAMP, [[3.125, 4.875], [10.125, 11.875]]),
        (
            torch.tensor([[1, 1.25, 1.75, 2], [1.5, 1.75, 2.25, 2.5], [2.5, 2.75, 3.25, 3.5], [3, 3.25, 3.75, 4.0]]),
            [[1.5625, 2.1875], [2.8125, 3.4375]],
        ),
    ],
)
def test_antialiasing_and_borders_are_matlabs(
    image: torch.Tensor, recorded: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values that MATLAB printed for imresize(..., 'bilinear'): the kernel is another, all else is the same code."""
    monkeypatch.setitem(KERNELS, "bilinear", Kernel(lambda x: np.maximum(0, 1 - np.abs(x)), 1.0))
    np.testing.assert_allclose(resize(image, 2, 2, "bilinear").numpy(), recorded, atol=1e-6)


@pytest.mark.parametrize("kernel", sorted(KERNELS))
@pytest.mark.parametrize(("height", "width"), [(5, 9), (13, 17), (40, 51)])
def test_constant_pictures_stay_constant(kernel: str, height: int, width: int) -> None:
    image = torch.full((1, 13, 17), 0.3, dtype=torch.float64)
    np.testing.assert_allclose(resize(image, height, width, kernel).numpy(), 0.3, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(7, 11), (66, 30), (200, 91)])
def test_bands_joined_equal_the_whole(height: int, width: int) -> None:
    image = torch.rand(3, 90, 45, dtype=torch.float64)
    resizer = BandResizer(90, 45, height, width)
    bands = [rows for top in range(0, 90, 13) for rows in resizer.push(image[:, top : top + 13])]
    np.testing.assert_allclose(torch.cat(bands, 1).numpy(), resize(image, height, width).numpy(), atol=1e-12)
