"""Against implementations that share no code with ours: plain NumPy loops, and published values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from upscale import store
from upscale.catalog import Catalog, shipped
from upscale.checkpoint import read_classifier
from upscale.errors import IncompatibleCheckpoint, InputError
from upscale.metrics import LPIPS, PROTOCOLS, FeatureDistance, ciede2000, ms_ssim, prepare, psnr, srgb_to_lab, ssim
from upscale.metrics.perceptual import BACKBONES

SIZES = [(11, 11), (16, 20), (17, 31)]


def pair(height: int, width: int, levels: int, channels: int = 3) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a random picture and a disturbed one, ``[C, H, W]`` integers up to ``levels``."""
    rng = np.random.default_rng(height * width)
    gt = rng.integers(0, levels + 1, (channels, height, width))
    noise = rng.normal(0, levels / 12, gt.shape)
    return np.clip(np.rint(gt + noise), 0, levels).astype(np.int64), gt


def tensor(picture: NDArray[Any], levels: int) -> Tensor:
    return torch.from_numpy(picture)[None].double() / levels


def ssim_loop(x: NDArray[Any], y: NDArray[Any], peak: float, part: str = "all") -> float:
    """Return SSIM of planes ``[H, W]``, or its contrast and structure only, window by window."""
    weight = np.array([[math.exp(-(i * i + j * j) / 4.5) for j in range(-5, 6)] for i in range(-5, 6)])
    weight /= weight.sum()
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            a, b = x[top : top + 11, left : left + 11], y[top : top + 11, left : left + 11]
            ma, mb = (weight * a).sum(), (weight * b).sum()
            va, vb = (weight * (a - ma) ** 2).sum(), (weight * (b - mb) ** 2).sum()
            cov = (weight * (a - ma) * (b - mb)).sum()
            structure = (2 * cov + c2) / (va + vb + c2)
            luminance = (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
            values.append(structure if part == "structure" else luminance * structure)
    return float(np.mean(values))


@pytest.mark.parametrize("levels", [255, 65535])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_psnr_and_ssim_equal_loops_over_integers(height: int, width: int, levels: int) -> None:
    sr, gt = pair(height, width, levels)
    expected_psnr = 10 * math.log10(levels**2 / np.mean((sr - gt).astype(np.float64) ** 2))
    expected_ssim = np.mean([ssim_loop(sr[c].astype(float), gt[c].astype(float), levels) for c in range(3)])
    assert float(psnr(tensor(sr, levels), tensor(gt, levels))) == pytest.approx(expected_psnr, abs=1e-6)
    assert float(ssim(tensor(sr, levels), tensor(gt, levels))) == pytest.approx(expected_ssim, abs=1e-6)


def test_ms_ssim_equals_loop_over_five_scales() -> None:
    sr, gt = pair(177, 181, 255, channels=1)
    x, y = sr[0] / 255, gt[0] / 255
    expected = 1.0
    weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    for scale, weight in enumerate(weights):
        expected *= ssim_loop(x, y, 1.0, "all" if scale == 4 else "structure") ** weight
        x, y = halve(x), halve(y)
    assert float(ms_ssim(tensor(sr, 255), tensor(gt, 255))) == pytest.approx(expected, abs=1e-6)


def halve(plane: NDArray[Any]) -> NDArray[Any]:
    plane = np.pad(plane, ((0, plane.shape[0] % 2), (0, plane.shape[1] % 2)), mode="edge")
    h, w = plane.shape
    return np.asarray(plane.reshape(h // 2, 2, w // 2, 2).mean((1, 3)))


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_metrics_are_symmetric_and_best_for_equal_pictures(metric: Callable[[Tensor, Tensor], Tensor]) -> None:
    sr, gt = (tensor(x, 255) for x in pair(16, 20, 255))
    assert float(metric(sr, gt)) == pytest.approx(float(metric(gt, sr)), abs=1e-12)
    assert float(metric(gt, gt)) == (math.inf if metric is psnr else pytest.approx(1))


def test_pictures_smaller_than_the_window_are_refused_with_their_size() -> None:
    small = torch.zeros(1, 1, 10, 30)
    with pytest.raises(InputError, match="30x10 compared pixels are too few for SSIM, which needs 11x11"):
        ssim(small, small)
    with pytest.raises(InputError, match="MS-SSIM, which needs 176x176"):
        ms_ssim(torch.zeros(1, 1, 175, 200), torch.zeros(1, 1, 175, 200))


@pytest.mark.parametrize("levels", [255, 65535])
def test_protocol_y_is_matlabs_luma_of_integers(levels: int) -> None:
    sr, _ = pair(12, 13, levels)
    r, g, b = sr / levels * 255
    expected = np.floor((16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255) / 255 * levels + 0.5)[3:-3, 3:-3] / levels
    found = prepare(tensor(sr, levels), 3, levels=levels)[0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("colour", "expected"), [((255, 255, 255), 235), ((0, 0, 0), 16), ((255, 0, 0), 81), ((0, 0, 255), 41)]
)
def test_luma_has_matlabs_recorded_values(colour: tuple[int, int, int], expected: int) -> None:
    picture = torch.tensor(colour).view(1, 3, 1, 1) / 255
    assert float(prepare(picture, 0)) * 255 == pytest.approx(expected)


def test_a_grey_picture_is_its_own_luma() -> None:
    grey = torch.full((1, 3, 2, 2), 128 / 255)
    assert float(prepare(grey, 0, grayscale=True).mean()) == pytest.approx(128 / 255)
    assert float(prepare(grey, 0).mean()) * 255 == pytest.approx(126)


def test_protocols_differ_as_published_for_one_picture() -> None:
    """The luma of MATLAB scores 1.3 dB above that of OpenCV, because its range is 219 of 255."""
    sr, gt = (tensor(x, 255) for x in pair(24, 24, 255))
    scores = {
        name: float(psnr(prepare(sr, protocol.border(2), protocol), prepare(gt, protocol.border(2), protocol)))
        for name, protocol in PROTOCOLS.items()
    }
    assert scores["y"] - scores["opencv-y"] == pytest.approx(20 * math.log10(255 / 219), abs=0.02)
    assert scores["y"] == pytest.approx(scores["edsr"], abs=0.02)
    assert {name: protocol.border(4) for name, protocol in PROTOCOLS.items()} == {
        "y": 4, "rgb": 4, "edsr": 4, "edsr-div2k": 10, "opencv-y": 4, "none": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("lab_1", "lab_2", "expected"),
    [  # Sharma, Wu and Dalal 2005, table 1: pairs 1, 7, 9, 13, 16, 17, 19, 25, 34
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
        ((50, -0.001, 2.49), (50, 0.0009, -2.49), 4.8045),
        ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((50, 2.5, 0), (56, -27, -3), 31.9030),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_ciede2000_has_the_published_values(lab_1: Any, lab_2: Any, expected: float) -> None:
    one, two = (torch.tensor(lab, dtype=torch.float64).view(1, 3, 1, 1) for lab in (lab_1, lab_2))
    assert float(ciede2000(one, two)) == pytest.approx(expected, abs=1e-4)
    assert float(ciede2000(two, one)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("rgb", "lab"), [((1, 1, 1), (100, 0, 0)), ((1, 0, 0), (53.24, 80.09, 67.20)), ((0, 0, 1), (32.30, 79.19, -107.86))]
)
def test_lab_has_the_known_values_of_srgb(rgb: Any, lab: Any) -> None:
    found = srgb_to_lab(torch.tensor(rgb, dtype=torch.float64).view(1, 3, 1, 1)).flatten().tolist()
    assert found == pytest.approx(lab, abs=0.02)


def weights_of(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return random weights with the published names: of the backbone and of the calibration."""
    torch.manual_seed(0)
    layers = BACKBONES[name].build()
    backbone = {f"features.{key}": value.detach().clone() for key, value in layers.state_dict().items()}
    backbone["classifier.1.weight"] = torch.zeros(1)
    linear = {
        f"lin{index}.model.1.weight": torch.rand(1, width, 1, 1) for index, width in enumerate(BACKBONES[name].channels)
    }
    return backbone, linear


def lpips_by_hand(name: str, w: dict[str, Tensor], linear: dict[str, Tensor], x: Tensor, y: Tensor) -> float:
    """Compute LPIPS as its authors describe it: pictures in [-1, 1], shift and scale, no shared code."""
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    total = 0.0
    stages = {"squeeze": squeeze_stages, "alex": alex_stages, "vgg": vgg_stages}[name]
    maps = [stages(w, ((2 * image - 1) - shift.view(1, 3, 1, 1)) / scale.view(1, 3, 1, 1)) for image in (x, y)]
    for index, (a, b) in enumerate(zip(*maps, strict=True)):
        a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
        total += float(((a - b) ** 2 * linear[f"lin{index}.model.1.weight"]).sum(1).mean())
    return total


def conv(w: dict[str, Tensor], name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    return F.relu(F.conv2d(x, w[f"features.{name}.weight"], w[f"features.{name}.bias"], stride, padding))


def squeeze_stages(w: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    def fire(index: int, x: Tensor) -> Tensor:
        x = conv(w, f"{index}.squeeze", x)
        return torch.cat([conv(w, f"{index}.expand1x1", x), conv(w, f"{index}.expand3x3", x, padding=1)], 1)

    def pool(x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    one = conv(w, "0", x, 2)
    two = fire(4, fire(3, pool(one)))
    three = fire(7, fire(6, pool(two)))
    four = fire(9, pool(three))
    five = fire(10, four)
    six = fire(11, five)
    return [one, two, three, four, five, six, fire(12, six)]


def alex_stages(w: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    one = conv(w, "0", x, 4, 2)
    two = conv(w, "3", F.max_pool2d(one, 3, 2), padding=2)
    three = conv(w, "6", F.max_pool2d(two, 3, 2), padding=1)
    four = conv(w, "8", three, padding=1)
    return [one, two, three, four, conv(w, "10", four, padding=1)]


def vgg_stages(w: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    stages = []
    for index, block in enumerate(((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))):
        x = x if index == 0 else F.max_pool2d(x, 2)
        for layer in block:
            x = conv(w, str(layer), x, padding=1)
        stages.append(x)
    return stages


@pytest.mark.parametrize("name", ["squeeze", "alex", "vgg"])
def test_lpips_equals_an_independent_implementation_with_the_same_weights(name: str) -> None:
    backbone, linear = weights_of(name)
    lpips = LPIPS(backbone, linear)
    x, y = torch.rand(1, 3, 65, 70), torch.rand(1, 3, 65, 70)
    expected = lpips_by_hand(name, backbone, linear, x, y)
    assert lpips.name == name
    assert expected > 0.01
    assert float(lpips(x, y)) == pytest.approx(expected, abs=1e-5)
    assert float(lpips(x, x)) == 0
    assert float(lpips(x[..., :32, :32], y[..., :32, :32])) > 0
    with pytest.raises(InputError, match="70x31 compared pixels are too few for LPIPS, which needs 32x32"):
        lpips(x[..., :31, :], y[..., :31, :])


def test_the_unweighted_distance_is_the_mean_over_layers() -> None:
    backbone, _ = weights_of("squeeze")
    x, y = torch.rand(1, 3, 40, 41), torch.rand(1, 3, 40, 41)
    stages = zip(squeeze_stages(backbone, x), squeeze_stages(backbone, y), strict=True)
    expected = [float((F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean()) for a, b in stages]
    assert float(FeatureDistance(backbone)(x, y)) == pytest.approx(np.mean(expected), abs=1e-6)
    with pytest.raises(InputError, match="too few for features"):
        FeatureDistance(backbone)(x[..., :12], y[..., :12])


def test_torchvisions_squeezenet_gets_the_normalisation_that_it_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, _ = weights_of("squeeze")
    path = tmp_path / "squeezenet.pth"
    torch.save(backbone, path)
    x, y = torch.rand(1, 3, 40, 41), torch.rand(1, 3, 40, 41)
    as_it_is = float(FeatureDistance(read_classifier(path))(x, y))
    assert as_it_is == float(FeatureDistance(backbone)(x, y))
    entry = replace(shipped().entries["squeezenet"], sha256=store.sha256(path), bytes=path.stat().st_size)
    monkeypatch.setattr("upscale.checkpoint.shipped", lambda: Catalog({"squeezenet": entry}))
    mean, deviation = (
        torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    expected = float(FeatureDistance(backbone)((x - mean) / deviation, (y - mean) / deviation))
    assert float(FeatureDistance(read_classifier(path))(x, y)) == pytest.approx(expected, rel=1e-4)
    assert expected != pytest.approx(as_it_is, rel=0.01)


def test_foreign_weights_are_refused() -> None:
    backbone, linear = weights_of("alex")
    with pytest.raises(IncompatibleCheckpoint, match="widths"):
        LPIPS(backbone, {"lin0.model.1.weight": torch.zeros(1, 7, 1, 1)})
    with pytest.raises(IncompatibleCheckpoint, match="feature extractor"):
        LPIPS({"features.0.weight": torch.zeros(3)}, linear)


def test_what_no_picture_can_hold_is_clipped_before_it_is_compared() -> None:
    assert float(prepare(torch.full((1, 3, 1, 1), 1.2), 0)) * 255 == pytest.approx(235)
    assert float(prepare(torch.full((1, 3, 1, 1), -0.2), 0)) * 255 == pytest.approx(16)


def test_ms_ssim_of_opposites_is_a_number() -> None:
    noise = torch.rand(1, 1, 176, 176, generator=torch.Generator().manual_seed(0))
    assert float(ms_ssim(noise, 1 - noise)) == 0
