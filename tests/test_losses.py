"""Losses against their formulas, written once more in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from upscale.losses import DISTANCES, GAN_LOSSES, LOSSES, PerceptualLoss
from upscale.models.features import EXTRACTORS, SqueezeNetFeatures, VGG19Features

Array = NDArray[np.float64]

SR = torch.rand(2, 3, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
GT = torch.rand(2, 3, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def luma(image: Array) -> Array:
    weighted: Array = 65.481 * image[:, 0] + 128.553 * image[:, 1] + 24.966 * image[:, 2] + 16
    return weighted / 255


def ldl(sr: Array, gt: Array) -> float:
    """LDL pixel by pixel: local variance of the summed residual in 7x7 windows, times its global variance ^ 1/5."""
    total = 0.0
    for picture, truth in zip(sr, gt, strict=True):
        residual = np.abs(truth - picture).sum(0)
        padded = np.pad(residual, 3, mode="reflect")
        weight = np.array(
            [
                [padded[y : y + 7, x : x + 7].var(ddof=1) for x in range(residual.shape[1])]
                for y in range(residual.shape[0])
            ]
        )
        total += float((weight * residual.var(ddof=1) ** 0.2 * np.abs(truth - picture)).mean())
    return total / len(sr)


def colour(difference: Array) -> float:
    """Of all windows as wide as 16 pixels or the picture, every eighth."""
    windows = np.lib.stride_tricks.sliding_window_view(
        difference, tuple(min(16, edge) for edge in difference.shape[-2:]), (-2, -1)
    )
    return float(np.abs(windows[..., ::8, ::8, :, :].mean((-2, -1))).mean())


def means_of_fours(image: Array) -> Array:
    """Of 4 x 4 pixels each; what is left over at the far edges does not count."""
    height, width = (edge // 4 for edge in image.shape[-2:])
    whole = image[..., : 4 * height, : 4 * width]
    means: Array = whole.reshape(*image.shape[:-2], height, 4, width, 4).mean((-3, -1))
    return means


def grid(difference: Array) -> float:
    """What repeats every four pixels, pixel by pixel, in a picture smaller than a window."""
    height, width = (edge // 4 * 4 for edge in difference.shape[-2:])
    part = difference[..., :height, :width]
    phases = np.stack([part[..., y::4, x::4].mean((-2, -1)) for y in range(4) for x in range(4)], -1)
    return float(np.abs(phases - phases.mean(-1, keepdims=True)).mean())


def comb(sr: Array, gt: Array) -> float:
    """Of nine rows of eight pixels: one stretch of eight in each row, and in each column of the upper eight."""
    bell = 1 - np.cos(2 * np.pi * (np.arange(8) + 0.5) / 8)

    def amplitudes(stretches: Array) -> Array:
        values = stretches * bell / 4
        slow = np.sqrt(np.abs((values * 1j ** np.arange(8)).sum(-1)) ** 2 + 1e-8)
        fast = np.abs((values * (-1) ** np.arange(8)).sum(-1)) / 2
        both: Array = np.stack([slow, fast])
        return both

    across = amplitudes(luma(sr)) - amplitudes(luma(gt))
    down = amplitudes(luma(sr)[:, :8].swapaxes(1, 2)) - amplitudes(luma(gt)[:, :8].swapaxes(1, 2))
    return float((np.maximum(across, 0) ** 2).mean() + (np.maximum(down, 0) ** 2).mean())


def excess(sr: Array, gt: Array) -> float:
    """Of nine rows of eight pixels: one window."""
    bell = (1 - np.cos(2 * np.pi * (np.arange(8) + 0.5) / 8)) / 8
    waves = np.array([[max(abs(y), x) for x in range(5)] for y in (0, 1, 2, 3, 4, -3, -2, -1)])

    def amplitudes(image: Array) -> Array:
        window = image[:, :, :8] * bell * bell[:, None]
        kernel = np.exp(-2j * np.pi * np.outer(np.arange(8), np.arange(8)) / 8)
        both: Array = np.abs(kernel @ window @ kernel)[..., :5] + 0.5 / 255
        return both

    louder = np.maximum(np.log(amplitudes(sr) / amplitudes(gt)), 0)
    return float(louder[:, :, waves >= 1].sum(-1).mean())


def expected(name: str, sr: Array, gt: Array) -> float:
    difference = sr - gt
    spectrum = np.fft.rfft2(difference, norm="ortho")
    values = {
        "l1": np.abs(difference).mean(),
        "l1_luma": np.abs(luma(sr) - luma(gt)).mean(),
        "mse_chroma": ((difference[:, [0, 2]] - difference[:, [1]]) ** 2).mean(),
        "mse": (difference**2).mean(),
        "mse_luma": ((luma(sr) - luma(gt)) ** 2).mean(),
        "charbonnier": np.sqrt(difference**2 + 1e-6).mean(),
        "fft": (np.abs(spectrum.real).mean() + np.abs(spectrum.imag).mean()) / 2,
        "total_variation": np.abs(np.diff(sr, axis=2)).mean() + np.abs(np.diff(sr, axis=3)).mean(),
        "ldl": ldl(sr, gt),
        "colour": colour(difference),
        "reduced": np.abs(means_of_fours(luma(sr) - luma(gt))).mean(),
        "grid": grid(difference),
        "blocks": sum(grid(np.abs(np.diff(sr, axis=axis)) - np.abs(np.diff(gt, axis=axis))) for axis in (2, 3)),
        "comb": comb(sr, gt),
        "excess": excess(sr, gt),
    }
    return float(values[name])


@pytest.mark.parametrize("name", LOSSES)
def test_losses_equal_their_formulas(name: str) -> None:
    assert float(LOSSES[name](SR, GT)) == pytest.approx(expected(name, SR.numpy(), GT.numpy()), rel=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_point_the_right_way(name: str) -> None:
    sr = SR.clone().requires_grad_()
    LOSSES[name](sr, GT).backward()  # type: ignore[no-untyped-call]
    assert sr.grad is not None
    assert float(LOSSES[name](SR - 0.01 * sr.grad, GT)) < float(LOSSES[name](SR, GT))


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


REAL = np.array([[0.3], [-1.2], [2.0]])
FAKE = np.array([[-0.4], [0.9], [0.1]])


def by_hand(kind: str) -> tuple[float, float]:
    """The generator's and the discriminator's loss, from the definitions."""
    real, fake = sigmoid(REAL), sigmoid(FAKE)
    plain = float(-np.log(real).mean() - np.log(1 - fake).mean())
    if kind == "relativistic":
        real_to_fake, fake_to_real = sigmoid(REAL - FAKE.mean()), sigmoid(FAKE - REAL.mean())
        generator = -np.log(1 - real_to_fake).mean() - np.log(fake_to_real).mean()
        discriminator = -np.log(real_to_fake).mean() - np.log(1 - fake_to_real).mean()
        return float(generator), float(discriminator)
    return {
        "vanilla": (float(-np.log(fake).mean()), plain),
        "minimax": (float(np.log(1 - fake).mean()), plain),
        "lsgan": (
            float(0.5 * ((FAKE - 1) ** 2).mean()),
            float(0.5 * ((REAL - 1) ** 2).mean() + 0.5 * (FAKE**2).mean()),
        ),
        "hinge": (float(-FAKE.mean()), float(np.maximum(0, 1 - REAL).mean() + np.maximum(0, 1 + FAKE).mean())),
    }[kind]


@pytest.mark.parametrize("kind", GAN_LOSSES)
def test_adversarial_losses_equal_their_definitions(kind: str) -> None:
    row = GAN_LOSSES[kind]
    real, fake = torch.from_numpy(REAL), torch.from_numpy(FAKE)
    assert (float(row.generator(real, fake)), float(row.discriminator(real, fake))) == pytest.approx(by_hand(kind))


@pytest.mark.parametrize("kind", GAN_LOSSES)
def test_both_sides_pull_the_logits_of_sr_apart(kind: str) -> None:
    row = GAN_LOSSES[kind]
    real = torch.from_numpy(REAL)
    sides = []
    for loss in (row.generator, row.discriminator):
        fake = torch.from_numpy(FAKE).clone().requires_grad_()
        loss(real, fake).backward()  # type: ignore[no-untyped-call]
        assert fake.grad is not None
        sides.append(float(fake.grad.sum()))
    assert sides[0] < 0 < sides[1]


def test_vgg_features_are_before_activation_normalised_and_where_torchvision_has_them() -> None:
    torch.manual_seed(0)
    extractor = VGG19Features(["conv1_2", "conv3_4", "conv5_4"])
    assert extractor.wanted == {2: "conv1_2", 16: "conv3_4", 34: "conv5_4"}
    convolutions = {name for name in extractor.state_dict() if name.endswith("weight")}
    assert convolutions == {
        f"features.{i}.weight" for i in (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
    }
    assert extractor.features[34].weight.shape == (512, 512, 3, 3)
    image = torch.rand(1, 3, 32, 32)
    x = (image - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    weights = extractor.state_dict()
    x = F.relu(F.conv2d(x, weights["features.0.weight"], weights["features.0.bias"], padding=1))
    x = F.conv2d(x, weights["features.2.weight"], weights["features.2.bias"], padding=1)
    found = extractor(image)
    torch.testing.assert_close(found["conv1_2"], x)
    assert float(found["conv1_2"].detach().min()) < 0
    assert found["conv5_4"].shape == (1, 512, 2, 2)


@pytest.mark.parametrize("distance", DISTANCES)
def test_perceptual_loss_is_the_weighted_distance_of_features(distance: str) -> None:
    torch.manual_seed(0)
    extractor = SqueezeNetFeatures(["fire2", "fire5"]).double()
    sr, gt = torch.rand(2, 3, 40, 40).double(), torch.rand(2, 3, 40, 40).double()
    loss = PerceptualLoss(extractor, {"fire2": 0.5, "fire5": 2.0}, distance, 0.25)
    a, b = extractor(sr), extractor(gt)
    total = 0.0
    for name, weight in (("fire2", 0.5), ("fire5", 2.0)):
        difference = 0.25 * (a[name] - b[name])
        one, other = (features.norm(dim=1, keepdim=True) for features in (a[name], b[name]))
        expected = {
            "l1": difference.abs().mean(),
            "mse": difference.square().mean(),
            "unit": (a[name] / one - b[name] / other).norm(dim=1).square().mean(),
        }
        total += weight * float(expected[distance].detach())
    assert float(loss(sr, gt)) == pytest.approx(total)
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    sr.requires_grad_()
    loss(sr, gt).backward()
    assert sr.grad is not None
    assert float(sr.grad.abs().sum()) > 0


@pytest.mark.parametrize("name", EXTRACTORS)
def test_a_layer_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ValueError, match="expected some of"):
        EXTRACTORS[name](["conv9_9"])


def test_grid_sees_what_repeats_every_four_pixels_and_nothing_else() -> None:
    torch.manual_seed(0)
    gt = torch.rand(2, 3, 70, 101)
    pattern = torch.randn(4, 4)
    expected = float((pattern - pattern.mean()).abs().mean())
    tiled = pattern.repeat(18, 26)[:70, :101]
    assert float(LOSSES["grid"](gt + tiled, gt)) == pytest.approx(expected, rel=1e-4)
    assert float(LOSSES["grid"](gt + 0.3, gt)) < 1e-6
    assert float(LOSSES["grid"](gt + torch.randn_like(gt), gt)) < 0.15  # of a mean difference of 0.8


def test_colour_sees_a_tint_and_hardly_any_texture() -> None:
    torch.manual_seed(0)
    gt = torch.rand(2, 3, 70, 101)
    assert float(LOSSES["colour"](gt + 0.3, gt)) == pytest.approx(0.3, rel=1e-4)
    assert float(LOSSES["colour"](gt[..., :5, :9] - 0.3, gt[..., :5, :9])) == pytest.approx(0.3, rel=1e-4)
    assert float(LOSSES["colour"](gt + torch.randn_like(gt), gt)) < 0.06  # of a mean difference of 0.8
    one = torch.zeros(1, 1, 24, 16)
    one[..., 8, 0] = 512  # in both windows
    assert float(LOSSES["colour"](one, torch.zeros_like(one))) == pytest.approx(2)


def test_comb_sees_a_dotted_line_beside_an_edge_as_strong_as_it_is() -> None:
    gt = torch.full((1, 3, 64, 64), 0.5)
    gt[..., 32:] = 0.9
    dotted = gt.clone()
    dotted[..., 20, :28:4] += 0.3
    assert float(LOSSES["comb"](gt, gt)) == 0
    one = float(LOSSES["comb"](dotted, gt))
    assert one > 1e-5
    assert float(LOSSES["comb"](gt, dotted)) < one / 10  # what GT has more of is texture that is missing
    assert float(LOSSES["comb"](gt + 2 * (dotted - gt), gt)) == pytest.approx(4 * one, rel=0.01)


def test_excess_sees_a_weave_on_what_is_smooth_and_hardly_any_texture_on_texture() -> None:
    torch.manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(80), indexing="ij")
    weave = 1.5 / 255 * torch.cos(2 * torch.pi * (rows + columns) / 8)
    smooth = (0.3 + rows / 200 + columns / 400).expand(1, 3, 64, 80)
    texture = 0.5 + 0.1 * torch.randn(1, 3, 64, 80)
    loss = LOSSES["excess"]
    on_smooth = float(loss(smooth + weave, smooth))
    assert on_smooth > 1
    assert float(loss(texture + weave, texture)) < on_smooth / 4
    assert float(loss(smooth, smooth + weave)) < 1e-3  # what GT has more of is texture that is missing
    longer = 1.5 / 255 * torch.cos(2 * torch.pi * rows / 24)
    assert float(loss(smooth + longer, smooth)) < on_smooth / 10


def test_blocks_sees_squares_of_four_pixels_and_no_texture() -> None:
    torch.manual_seed(0)
    gt = torch.rand(2, 3, 72, 104)
    squares = torch.rand(2, 3, 18, 26).repeat_interleave(4, -1).repeat_interleave(4, -2)
    assert float(LOSSES["blocks"](squares, gt)) > 0.2  # steps of a third on every fourth place, none between
    assert float(LOSSES["grid"](squares, gt)) < 0.05
    assert float(LOSSES["blocks"](torch.rand(2, 3, 72, 104), gt)) < 0.08
