"""Pixel, perceptual and adversarial losses.

Pixel losses are functions ``(sr, gt) -> scalar`` of ``[B, 3, H, W]`` RGB, nominally in [0, 1]; adversarial losses are
pairs of functions ``(real_logits, fake_logits) -> scalar``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upscale.imaging import rgb_to_y

FAINT = 0.5 / 255  # the amplitude of waves that can be seen on what is smooth


def l1(sr: Tensor, gt: Tensor) -> Tensor:
    """Mean absolute difference."""
    return F.l1_loss(sr, gt)


def l1_luma(sr: Tensor, gt: Tensor) -> Tensor:
    """Mean absolute difference of luma, in which most of what the eye sees as detail lies."""
    return F.l1_loss(rgb_to_y(sr), rgb_to_y(gt))


def mse(sr: Tensor, gt: Tensor) -> Tensor:
    """Mean squared difference, the content loss of SRGAN (Ledig et al. 2017, equation 4)."""
    return F.mse_loss(sr, gt)


def mse_luma(sr: Tensor, gt: Tensor) -> Tensor:
    """Mean squared difference of luma: what PSNR measures."""
    return F.mse_loss(rgb_to_y(sr), rgb_to_y(gt))


def mse_chroma(sr: Tensor, gt: Tensor) -> Tensor:
    """Mean squared difference of red less green and of blue less green.

    In ``l1`` the three channels of a pixel mostly err to the same side, that of its luma, and there the sign of the
    difference says nothing of its colour: a network can learn all of luma and leave colours in the squares of LR.
    Squared, because what differs in colour is edges; elsewhere signs are those of noise.
    """
    return F.mse_loss(sr[:, ::2] - sr[:, 1:2], gt[:, ::2] - gt[:, 1:2])


def charbonnier(sr: Tensor, gt: Tensor) -> Tensor:
    """Mean of ``sqrt(difference^2 + 1e-6)`` (Lai et al. 2017, equation 1, with epsilon 1e-3)."""
    return torch.sqrt((sr - gt).square() + 1e-6).mean()


def fft(sr: Tensor, gt: Tensor) -> Tensor:
    """Mean absolute difference of the orthonormal 2-D spectra, real and imaginary (Cho et al. 2021, equation 8)."""
    return (torch.view_as_real(torch.fft.rfft2(sr - gt, norm="ortho"))).abs().mean()


def total_variation(sr: Tensor, gt: Tensor) -> Tensor:
    """Mean absolute step between neighbours of ``sr`` (Rudin et al. 1992, in its anisotropic form)."""
    return (sr[..., 1:, :] - sr[..., :-1, :]).abs().mean() + (sr[..., 1:] - sr[..., :-1]).abs().mean()


def ldl(sr: Tensor, gt: Tensor) -> Tensor:
    """L1 weighted by where artefacts are likely (Liang et al. 2022, LDL, equations 2 to 4).

    The weight is the local variance of the residual in a 7x7 window times a power of its global variance. The paper
    also spares pixels where the averaged network is worse; that needs a second output and is left out.
    """
    residual = (gt - sr).abs().sum(1, keepdim=True)
    padded = F.pad(residual, (3, 3, 3, 3), mode="reflect")
    mean = F.avg_pool2d(padded, 7, 1)
    local = (F.avg_pool2d(padded.square(), 7, 1) - mean.square()).clamp_min(0) * 49 / 48  # unbiased
    overall = residual.var((1, 2, 3), keepdim=True) ** 0.2
    return F.l1_loss((local * overall).detach() * sr, (local * overall).detach() * gt)


def colour(sr: Tensor, gt: Tensor) -> Tensor:
    """Mean absolute difference of the means of windows of 16 x 16, half overlapping: what is left of it is no texture.

    A blurred difference keeps colours true while other losses change texture, as in Ignatov et al. 2017 ("DSLR-quality
    photos", section 3.1.1), where a Gaussian blurs it.
    """
    window = [min(16, side) for side in sr.shape[-2:]]
    return F.avg_pool2d(sr - gt, window, stride=8).abs().mean()


def reduced(sr: Tensor, gt: Tensor) -> Tensor:
    """Mean absolute difference of luma reduced to a quarter, by the mean of 4 x 4 pixels.

    LR tells these means. Losses that ask for texture are met at less cost by a network that amplifies the finest of LR,
    rests of JPEG included, than by one that adds what is finer; on smooth skin that shows as a weave.
    """
    window = [min(4, side) for side in sr.shape[-2:]]
    return F.avg_pool2d((rgb_to_y(sr) - rgb_to_y(gt))[:, None], window).abs().mean()


def grid(sr: Tensor, gt: Tensor) -> Tensor:
    """Mean absolute part of the difference that repeats every four pixels.

    A network that shuffles its channels into pixels can pass off such a pattern as the texture that a perceptual loss
    asks for, and nothing else notices: it is far below one level of most pictures' own detail.
    """
    return _repeating(sr - gt)


def blocks(sr: Tensor, gt: Tensor) -> Tensor:
    """Mean absolute part that repeats every four pixels of how much larger the steps between neighbours are in ``sr``.

    Where LR is noisy, its pixels can show as squares: steps are large between, small inside these (as in measures of
    JPEG's blocks, Wang et al. 2000). Their signs differ, so that ``grid`` sees none of it.
    """
    down, right = (sr.diff(dim=axis).abs() - gt.diff(dim=axis).abs() for axis in (-2, -1))
    return _repeating(down) + _repeating(right)


def comb(sr: Tensor, gt: Tensor) -> Tensor:
    """Mean square of how much stronger luma alternates every four or two pixels, along stretches of sixteen, in ``sr``.

    A network asked for texture can draw a line as a row of dots, one for each pixel of LR. Such rows are short and far
    apart, so that ``grid`` and ``blocks``, which look at windows, hardly see them.
    """
    length = min(16, *sr.shape[-2:])
    place = torch.arange(length, dtype=sr.dtype, device=sr.device)
    bell = (1 - torch.cos(2 * torch.pi * (place + 0.5) / length)) * 2 / length
    quarter = torch.pi / 2 * place
    waves = torch.stack((quarter.cos(), quarter.sin(), (2 * quarter).cos() / 2)) * bell
    found, given = rgb_to_y(sr), rgb_to_y(gt)
    excess = [
        _amplitudes(found.transpose(-1, axis), waves) - _amplitudes(given.transpose(-1, axis), waves)
        for axis in (-1, -2)
    ]
    return torch.stack([part.clamp_min(0).square().mean() for part in excess]).sum()


def excess(sr: Tensor, gt: Tensor) -> Tensor:
    """Sum of the logarithms of how much stronger the waves of at most eight pixels are in ``sr``.

    A mean over channels and windows of 16 x 16, half overlapping. Where the original has such waves, texture of any
    phase costs next to nothing; where it is smooth, as skin and sky are, a weave or grain of half a level does. Of luma
    alone, the weave becomes one of colours.
    """
    ratio = (_fine(sr) + FAINT) / (_fine(gt) + FAINT)
    return ratio.log().clamp_min(0).sum(-1).mean()


def _fine(image: Tensor) -> Tensor:
    """Return half the amplitudes ``[..., waves]`` of the waves of at most eight pixels, by channels and windows."""
    edge = min(16, *image.shape[-2:])
    place = torch.arange(edge, dtype=image.dtype, device=image.device)
    bell = (1 - torch.cos(2 * torch.pi * (place + 0.5) / edge)) / edge
    windows = image.unfold(2, edge, edge // 2).unfold(3, edge, edge // 2)
    waves = torch.fft.fftfreq(edge, device=image.device).abs()
    fine = torch.maximum(waves[:, None], waves[: edge // 2 + 1]) >= 1 / 8
    amplitudes: Tensor = torch.fft.rfft2(windows * bell * bell[:, None])[..., fine].abs()
    return amplitudes


def _amplitudes(luma: Tensor, waves: Tensor) -> Tensor:
    """Return the amplitudes of waves of four and of two pixels in ``luma`` ``[B, H, W]``, every four pixels of a row.

    ``waves`` ``[3, n]`` are the one of four in two phases, and the one of two.
    """
    cosine, sine, fast = F.conv2d(luma[:, None], waves[:, None, None], stride=(1, 4)).unbind(1)
    return torch.stack((torch.sqrt(cosine.square() + sine.square() + 1e-8), fast.abs()))


def _repeating(image: Tensor) -> Tensor:
    """Return the mean absolute part of ``image`` that repeats every four pixels in windows of 32 x 32, or what fits."""
    for axis in (-1, -4):  # in the end [B, 3, windows, cells in a window, 4, windows, cells in a window, 4]
        count = min(8, image.shape[axis] // 4)
        whole = image.narrow(axis, 0, image.shape[axis] // (4 * count) * 4 * count)
        image = torch.unflatten(whole, axis, (-1, count, 4))
    phases = image.mean((-5, -2))
    return (phases - phases.mean((-3, -1), keepdim=True)).abs().mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": l1,
    "l1_luma": l1_luma,
    "mse": mse,
    "mse_luma": mse_luma,
    "mse_chroma": mse_chroma,
    "charbonnier": charbonnier,
    "fft": fft,
    "total_variation": total_variation,
    "ldl": ldl,
    "colour": colour,
    "reduced": reduced,
    "grid": grid,
    "blocks": blocks,
    "comb": comb,
    "excess": excess,
}
PERCEPTUAL = "perceptual"
CLASSIFIER = "classifier"
"""The losses that own a network and so are made, not listed."""


def unit(found: Tensor, expected: Tensor) -> Tensor:
    """Mean over places of the squared distance of features ``[B, C, ...]``, each place's scaled to length 1.

    What LPIPS measures (Zhang et al. 2018, equation 1), with all channels alike. Features shorter than 0.01 are not
    scaled all the way: where there are none, a gradient would have no bound.
    """
    return (F.normalize(found, eps=0.01) - F.normalize(expected, eps=0.01)).square().sum(1).mean()


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l1": F.l1_loss, "mse": F.mse_loss, "unit": unit}
"""Of features."""


class PerceptualLoss(nn.Module):
    """Distance between features of SR and GT (Johnson et al. 2016; before activation: ESRGAN, section 3.3)."""

    def __init__(self, extractor: nn.Module, layers: Mapping[str, float], distance: str, scale: float) -> None:
        """Weigh ``layers``, compared by one of ``DISTANCES``; ``scale`` multiplies the features.

        ``extractor`` maps ``[B, 3, H, W]`` in [0, 1] to the features of each of ``layers``, by name. SRGAN, section
        3.2, has a ``scale`` of 1/12.75 with MSE.
        """
        super().__init__()
        self.extractor = extractor.requires_grad_(False).eval()
        self.layers = layers
        self.distance = DISTANCES[distance]
        self.scale = scale

    def forward(self, sr: Tensor, gt: Tensor) -> Tensor:
        """Return the weighted sum over the layers."""
        found = self.extractor(sr)
        with torch.no_grad():
            expected = self.extractor(gt)
        terms = [
            weight * self.distance(self.scale * found[name], self.scale * expected[name])
            for name, weight in self.layers.items()
        ]
        return torch.stack(terms).sum()


LogitsLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class GanLoss:
    """A row of GAN_LOSSES: functions of the discriminator's logits for GT and for SR."""

    generator: LogitsLoss
    discriminator: LogitsLoss
    needs_real: bool
    """Whether the generator's side looks at the logits of GT."""


def _cross_entropy(real: Tensor, fake: Tensor) -> Tensor:
    """``-E[log D(real)] - E[log(1 - D(fake))]`` with ``D`` the sigmoid of the logits (Goodfellow 2014, equation 1)."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def _relative(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Return each side's logits less the mean of the other's (Jolicoeur-Martineau 2019, RaGAN)."""
    return real - fake.mean(), fake - real.mean()


def _relativistic_generator(real: Tensor, fake: Tensor) -> Tensor:
    """Wang et al. 2018, ESRGAN, equation 2."""
    real, fake = _relative(real, fake)
    return _cross_entropy(fake, real)


def _relativistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Wang et al. 2018, ESRGAN, equation 1."""
    return _cross_entropy(*_relative(real, fake))


GAN_LOSSES = {
    # Goodfellow et al. 2014, section 3: the non-saturating form, and the game as it is first written down.
    "vanilla": GanLoss(lambda real, fake: F.softplus(-fake).mean(), _cross_entropy, needs_real=False),
    "minimax": GanLoss(lambda real, fake: -F.softplus(fake).mean(), _cross_entropy, needs_real=False),
    # Mao et al. 2017, equation 9.
    "lsgan": GanLoss(
        lambda real, fake: 0.5 * (fake - 1).square().mean(),
        lambda real, fake: 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean(),
        needs_real=False,
    ),
    # Lim and Ye 2017, equations 4 and 5.
    "hinge": GanLoss(
        lambda real, fake: -fake.mean(),
        lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
        needs_real=False,
    ),
    "relativistic": GanLoss(_relativistic_generator, _relativistic_discriminator, needs_real=True),
}
