"""GT -> LR: a plain bicubic reduction, or the second-order degradation of Real-ESRGAN (Wang et al. 2021, section 3).

Everything is batched on the device of the images, and every random number comes from the generator that is passed in, a
CPU generator: the same seed gives the same degradation on every device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from upscale.config import within
from upscale.imaging import resize
from upscale.train.jpeg import jpeg

MARGIN = 4
"""LR pixels around a crop that are degraded along and then cut off: LR pixels at its edge see their neighbours."""
KERNEL_SIZES = tuple(range(7, 22, 2))
KERNEL_SHARES = {"iso": 0.45, "aniso": 0.25, "generalised": 0.12, "generalised_aniso": 0.03, "plateau": 0.12,
                 "plateau_aniso": 0.03}  # fmt: skip

SHARPENING = (51, 8.0, 0.5, 10 / 255)
"""Of GT, as in Real-ESRGAN's published code: taps and deviation of the Gaussian in pixels, amount, threshold."""

Range = tuple[float, ...]
Random = torch.Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One round of blur, resize, noise and JPEG; the defaults are the published first round."""

    blur: float = 1.0
    """Probability of blurring at all."""
    sinc: float = 0.1
    """Probability that the blur is a sinc filter, which rings."""
    sigma: Range = (0.2, 3.0)
    """Deviation of the blur along each axis, in pixels."""
    beta_generalised: Range = (0.5, 4.0)
    beta_plateau: Range = (1.0, 2.0)
    """Exponents of the kernels that are not Gaussian (section 3.1 of the paper)."""
    resize: Range = (0.2, 0.7, 0.1)
    """Probabilities of enlarging, reducing and keeping the size."""
    factor: Range = (0.15, 1.5)
    """Of the resize, from the least to the most."""
    gaussian: float = 0.5
    """Probability that the noise is Gaussian, else Poisson."""
    noise: Range = (1.0, 30.0)
    """Deviation of Gaussian noise, in levels of 255."""
    poisson: Range = (0.05, 3.0)
    """What Poisson noise is multiplied by."""
    grey: float = 0.4
    """Probability that the three channels get the same noise."""
    jpeg: Range = (30.0, 95.0)
    """Quality, 1 to 100."""

    def __post_init__(self) -> None:
        for name in ("blur", "sinc", "gaussian", "grey"):
            within(name, getattr(self, name), 0, 1)
        ranges = {"sigma": 0.01, "beta_generalised": 0.01, "beta_plateau": 0.01, "factor": 0.01, "noise": 0.0,
                  "poisson": 0.0, "jpeg": 1.0}  # fmt: skip
        for name, least in ranges.items():
            limits = getattr(self, name)
            if len(limits) != 2 or not least <= limits[0] <= limits[1] <= (100 if name == "jpeg" else math.inf):
                raise ValueError(
                    f"{name} is {list(limits)}, must be two numbers of at least {least:g}, the smaller first"
                )
        if len(self.resize) != 3 or min(self.resize) < 0 or not math.isclose(sum(self.resize), 1, abs_tol=1e-6):
            raise ValueError(f"resize is {list(self.resize)}, must be three probabilities with a sum of 1")


def _second() -> Stage:
    return Stage(
        blur=0.8, sigma=(0.2, 1.5), resize=(0.3, 0.4, 0.3), factor=(0.3, 1.2), noise=(1.0, 25.0), poisson=(0.05, 2.5)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DegradationConfig:
    """How LR is made; the numbers matter for ``blind`` only."""

    kind: Literal["bicubic", "blind"] = "bicubic"
    clean: float = 0.0
    """Probability that a batch is reduced bicubic all the same, so that clean pictures stay what they are."""
    first: Stage = field(default_factory=Stage)
    second: Stage = field(default_factory=_second)
    final_sinc: float = 0.8
    """Probability of a last sinc filter, before or after the last JPEG compression."""
    texture: float = 1.0
    """Share of the weights of perceptual and adversarial terms in batches that are not reduced bicubic.

    What degradation took away a network can only invent; these terms reward that.
    """
    sharpen: bool = False
    """Whether LR is made of sharpened GT, which all losses but the adversarial one compare with (section 4.1)."""

    def __post_init__(self) -> None:
        for name in ("clean", "final_sinc", "texture"):
            within(f"degradation.{name}", getattr(self, name), 0, 1)


def degrade(gt: Tensor, scale: int, config: DegradationConfig | None = None, rng: Random | None = None) -> Tensor:
    """Reduce ``gt`` ``[B, 3, s*h, s*w]`` in [0, 1] to LR ``[B, 3, h, w]`` in 8-bit steps, as ``config`` says.

    Without ``config``, bicubic as MATLAB does it; ``rng`` is needed for ``blind`` only. Of ``config``, ``clean`` and
    ``texture`` are for whoever makes batches.
    """
    height, width = gt.shape[-2] // scale, gt.shape[-1] // scale
    if config is None or config.kind == "bicubic":
        lr = resize(gt, height, width)
    else:
        assert rng is not None
        lr = _blind(gt, height, width, config, rng)
    return (lr.clamp(0, 1) * 255).round() / 255


def sharpened(gt: Tensor) -> Tensor:
    """Return ``gt`` ``[B, 3, H, W]`` in [0, 1] after an unsharp mask around edges, the same shape and range."""
    taps, sigma, amount, threshold = SHARPENING
    axis = torch.arange(taps, device=gt.device) - taps // 2
    bell = torch.exp(-0.5 * (axis / sigma).square())
    bell = bell / bell.sum()
    detail = gt - _separable(gt, bell)
    edges = _separable((detail.abs() > threshold).to(gt), bell)
    return gt + edges * ((gt + amount * detail).clamp(0, 1) - gt)


def _separable(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve ``x`` ``[B, C, H, W]`` with ``kernel`` ``[k]`` along both axes, its edges reflected."""
    b, c, h, w = x.shape
    pad = len(kernel) // 2
    x = _padded(x, pad).reshape(b * c, 1, h + 2 * pad, w + 2 * pad)
    return F.conv2d(F.conv2d(x, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1)).view(b, c, h, w)


def _padded(x: Tensor, pad: int) -> Tensor:
    """Return ``x`` ``[B, C, H, W]`` with ``pad`` pixels more at each edge, which is reflected if there are enough."""
    return F.pad(x, (pad, pad, pad, pad), mode="reflect" if min(x.shape[-2:]) > pad else "replicate")


def _blind(gt: Tensor, height: int, width: int, config: DegradationConfig, rng: Random) -> Tensor:
    x = _blur_resize_noise(gt, gt.shape[-2], gt.shape[-1], config.first, rng)
    x = jpeg(x.clamp(0, 1), _uniform(rng, config.first.jpeg, len(x)))
    x = _blur_resize_noise(x, height, width, config.second, rng)
    # The last resize to LR, the last sinc filter and the last compression, in one of two orders (section 3.3).
    quality = _uniform(rng, config.second.jpeg, len(x))
    kernels = _sinc_kernels(rng, len(x), config.final_sinc)
    if chance(rng, 0.5):
        return jpeg(_filter(_resize(x, height, width, rng), kernels).clamp(0, 1), quality)
    return _filter(_resize(jpeg(x.clamp(0, 1), quality), height, width, rng), kernels)


def _blur_resize_noise(x: Tensor, height: int, width: int, stage: Stage, rng: Random) -> Tensor:
    """Blur ``x``, resize it to a random factor of ``height`` by ``width``, add noise."""
    if chance(rng, stage.blur):
        x = _filter(x, _blur_kernels(rng, len(x), stage))
    up, down, _ = stage.resize
    draw = float(_uniform(rng, (0.0, 1.0), 1))
    low, high = (1.0, stage.factor[1]) if draw < up else (stage.factor[0], 1.0)
    factor = float(_uniform(rng, (low, high), 1)) if draw < up + down else 1.0
    x = _resize(x, max(1, round(height * factor)), max(1, round(width * factor)), rng)
    if chance(rng, stage.gaussian):
        return (x + _gaussian_noise(x, stage, rng)).clamp(0, 1)
    return (x + _poisson_noise(x.clamp(0, 1), stage, rng)).clamp(0, 1)


def _resize(x: Tensor, height: int, width: int, rng: Random) -> Tensor:
    """Resize by area, bilinearly or bicubically, without antialiasing as the published pipeline does."""
    mode = ("area", "bilinear", "bicubic")[int(_uniform(rng, (0.0, 3.0), 1))]
    return F.interpolate(x, (height, width), mode=mode)


def _gaussian_noise(x: Tensor, stage: Stage, rng: Random) -> Tensor:
    sigma = _uniform(rng, stage.noise, len(x)).view(-1, 1, 1, 1) / 255
    noise = torch.randn(x.shape, generator=rng)
    return (torch.where(_grey(rng, x, stage), noise[:, :1], noise) * sigma).to(x)


def _poisson_noise(x: Tensor, stage: Stage, rng: Random) -> Tensor:
    """Shot noise: counts as many as the picture has different levels, as the published pipeline does."""
    strength = _uniform(rng, stage.poisson, len(x)).view(-1, 1, 1, 1)
    rounded = ((x * 255).round() / 255).cpu()
    luma = (rounded * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    grey = _grey(rng, x, stage)
    source = torch.where(grey, luma, rounded)
    levels = torch.tensor([2 ** math.ceil(math.log2(len(torch.unique((one * 255).round())))) for one in source])
    levels = levels.view(-1, 1, 1, 1).float()
    noise = torch.poisson(source * levels, generator=rng) / levels - source
    return (torch.where(grey, noise[:, :1], noise) * strength).to(x)


def _grey(rng: Random, x: Tensor, stage: Stage) -> Tensor:
    return (_uniform(rng, (0.0, 1.0), len(x)) < stage.grey).view(-1, 1, 1, 1)


def _filter(x: Tensor, kernels: Tensor) -> Tensor:
    """Convolve each image of ``x`` ``[B, 3, H, W]`` with its own kernel of ``kernels`` ``[B, k, k]``."""
    b, c, h, w = x.shape
    pad = kernels.shape[-1] // 2
    padded = _padded(x, pad).reshape(1, b * c, h + 2 * pad, w + 2 * pad)
    weights = kernels.to(x).repeat_interleave(c, 0)[:, None]
    return F.conv2d(padded, weights, groups=b * c).view(b, c, h, w)


def _blur_kernels(rng: Random, count: int, stage: Stage) -> Tensor:
    """Draw ``count`` kernels of random kinds and sizes, ``[count, 21, 21]``, each with a sum of 1."""
    return torch.stack([_blur_kernel(rng, stage) for _ in range(count)])


def _blur_kernel(rng: Random, stage: Stage) -> Tensor:
    size = _size(rng)
    if chance(rng, stage.sinc):
        return _centred(_sinc(_sinc_cutoff(rng, size), size))
    kinds, shares = list(KERNEL_SHARES), torch.tensor(list(KERNEL_SHARES.values()))
    kind = kinds[int(torch.multinomial(shares, 1, generator=rng))]
    sigma_x, sigma_y = _uniform(rng, stage.sigma, 2).tolist()
    angle = float(_uniform(rng, (-math.pi, math.pi), 1))
    if kind in ("iso", "generalised", "plateau"):
        sigma_y, angle = sigma_x, 0.0
    beta = 1.0
    if kind.startswith("generalised"):
        beta = _either_side_of_one(rng, stage.beta_generalised)
    elif kind.startswith("plateau"):
        beta = _either_side_of_one(rng, stage.beta_plateau)
    return _centred(_bell(size, sigma_x, sigma_y, angle, beta, plateau=kind.startswith("plateau")))


def _bell(size: int, sigma_x: float, sigma_y: float, angle: float, beta: float, *, plateau: bool) -> Tensor:
    """Return a (generalised) Gaussian or plateau kernel ``[size, size]`` (section 3.1 and its references)."""
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    u = (x * math.cos(angle) + y * math.sin(angle)) / sigma_x
    v = (-x * math.sin(angle) + y * math.cos(angle)) / sigma_y
    distance = u.square() + v.square()
    kernel = 1 / (distance**beta + 1) if plateau else torch.exp(-0.5 * distance**beta)
    return kernel / kernel.sum()


def _sinc_kernels(rng: Random, count: int, probability: float) -> Tensor:
    """Draw ``count`` sinc filters, or the identity where chance says so, ``[count, 21, 21]``."""
    kernels = []
    for _ in range(count):
        if chance(rng, probability):
            kernels.append(_centred(_sinc(float(_uniform(rng, (math.pi / 3, math.pi), 1)), _size(rng))))
        else:
            kernels.append(_centred(torch.ones(1, 1, dtype=torch.float64)))
    return torch.stack(kernels)


def _sinc(cutoff: float, size: int) -> Tensor:
    """Return the circular low-pass filter ``[size, size]`` of ``cutoff`` radians (equation 6)."""
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    radius = (axis.square()[:, None] + axis.square()).sqrt()
    kernel: Tensor = cutoff * torch.special.bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * math.pi)
    return kernel / kernel.sum()


def _sinc_cutoff(rng: Random, size: int) -> float:
    """Small filters need a higher cutoff, or they would be all ringing."""
    return float(_uniform(rng, (math.pi / 3 if size < 13 else math.pi / 5, math.pi), 1))


def _centred(kernel: Tensor) -> Tensor:
    pad = (max(KERNEL_SIZES) - kernel.shape[0]) // 2
    return F.pad(kernel, (pad, pad, pad, pad)).float()


def _size(rng: Random) -> int:
    return KERNEL_SIZES[int(_uniform(rng, (0.0, float(len(KERNEL_SIZES))), 1))]


def _either_side_of_one(rng: Random, limits: Range) -> float:
    """Draw below 1 or above 1 with equal chance: otherwise most kernels would be heavy-shouldered."""
    low, high = limits
    return float(_uniform(rng, (low, 1.0) if chance(rng, 0.5) else (1.0, high), 1))


def _uniform(rng: Random, limits: Range, count: int) -> Tensor:
    low, high = limits
    return low + (high - low) * torch.rand(count, generator=rng)


def chance(rng: Random, probability: float) -> bool:
    """Draw whether something happens."""
    return float(torch.rand((), generator=rng)) < probability
