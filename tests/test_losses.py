from __future__ import annotations

import numpy as np
import pytest
import torch

from upscale.losses import LOSSES

SR = torch.rand(2, 3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
GT = torch.rand(2, 3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def luma(image: np.ndarray) -> np.ndarray:
    return (65.481 * image[:, 0] + 128.553 * image[:, 1] + 24.966 * image[:, 2] + 16) / 255


EXPECTED = {
    "l1": np.abs(SR.numpy() - GT.numpy()).mean(),
    "l1_luma": np.abs(luma(SR.numpy()) - luma(GT.numpy())).mean(),
    "mse": ((SR.numpy() - GT.numpy()) ** 2).mean(),
    "charbonnier": np.sqrt((SR.numpy() - GT.numpy()) ** 2 + 1e-6).mean(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_equal_their_formulas(name: str) -> None:
    assert float(LOSSES[name](SR, GT)) == pytest.approx(float(EXPECTED[name]), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_point_the_right_way(name: str) -> None:
    sr = SR.clone().requires_grad_()
    LOSSES[name](sr, GT).backward()  # type: ignore[no-untyped-call]
    assert sr.grad is not None
    assert float(LOSSES[name](SR - 0.01 * sr.grad, GT)) < float(LOSSES[name](SR, GT))
