"""Discriminators: ``image`` ``[B, 3, H, W]`` in [0, 1] -> logits, one per image or one per place."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class Discriminator(nn.Module):
    """What all discriminators have."""

    any_size: ClassVar[bool] = True
    """Whether images of other sizes than the one it was made for can be judged, a multiple of 8 given."""


class VGGDiscriminator(Discriminator):
    """Eight convolutions, two dense layers (Ledig et al. 2017, section 2.1.1 and figure 4): logits ``[B, 1]``."""

    any_size = False

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Hyper-parameters."""

        gt_size: int = 128
        """Edge of the images, a multiple of 16: the dense layer sees all of one."""
        num_feat: int = 64

        def __post_init__(self) -> None:
            if self.gt_size < 16 or self.gt_size % 16:
                raise ValueError(f"gt_size {self.gt_size} is not a multiple of 16")

    def __init__(self, config: Config) -> None:
        super().__init__()
        nf = config.num_feat
        layers: list[nn.Module] = [nn.Conv2d(3, nf, 3, padding=1), nn.LeakyReLU(0.2)]
        widths = [nf, nf, 2 * nf, 2 * nf, 4 * nf, 4 * nf, 8 * nf, 8 * nf]
        for i, (before, after) in enumerate(pairwise(widths)):
            stride = 2 - i % 2
            layers += [
                nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.2),
            ]
        edge = config.gt_size // 16
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(8 * nf * edge**2, 1024), nn.LeakyReLU(0.2), nn.Linear(1024, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Judge ``image``."""
        return self.head(self.features(image))  # type: ignore[no-any-return]


class UNetDiscriminator(Discriminator):
    """U-Net with spectral normalisation (Wang et al. 2021, Real-ESRGAN, section 3.3): logits ``[B, 1, H, W]``.

    ``H`` and ``W`` are multiples of 8.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Hyper-parameters."""

        num_feat: int = 64

    def __init__(self, config: Config) -> None:
        super().__init__()
        nf = config.num_feat
        self.conv_first = nn.Conv2d(3, nf, 3, padding=1)
        self.down = nn.ModuleList(
            spectral_norm(nn.Conv2d(before, 2 * before, 4, stride=2, padding=1, bias=False))
            for before in (nf, 2 * nf, 4 * nf)
        )
        self.up = nn.ModuleList(
            spectral_norm(nn.Conv2d(before, before // 2, 3, padding=1, bias=False))
            for before in (8 * nf, 4 * nf, 2 * nf)
        )
        self.tail = nn.ModuleList(spectral_norm(nn.Conv2d(nf, nf, 3, padding=1, bias=False)) for _ in range(2))
        self.conv_last = nn.Conv2d(nf, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Judge ``image``."""
        x = F.leaky_relu(self.conv_first(image), 0.2)
        skips = []
        for conv in self.down:
            skips.append(x)
            x = F.leaky_relu(conv(x), 0.2)
        for conv in self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = F.leaky_relu(conv(x), 0.2) + skips.pop()
        for conv in self.tail:
            x = F.leaky_relu(conv(x), 0.2)
        return self.conv_last(x)  # type: ignore[no-any-return]


class PatchDiscriminator(Discriminator):
    """PatchGAN with a view of 70x70 pixels (Isola et al. 2017, section 6.1.2): logits ``[B, 1, H/8 - 2, W/8 - 2]``."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Hyper-parameters."""

        num_feat: int = 64
        norm: Literal["batch", "spectral"] = "batch"
        """Of the inner layers: by the batch, or of their weights (Miyato et al. 2018), which bounds how steep the
        logits are, so that the generator learns from them also where all fakes are told."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        nf = config.num_feat
        layers: list[nn.Module] = [nn.Conv2d(3, nf, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for before, after, stride in ((nf, 2 * nf, 2), (2 * nf, 4 * nf, 2), (4 * nf, 8 * nf, 1)):
            conv = nn.Conv2d(before, after, 4, stride=stride, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(after)] if config.norm == "batch" else [spectral_norm(conv)]
            layers.append(nn.LeakyReLU(0.2))
        self.body = nn.Sequential(*layers, nn.Conv2d(8 * nf, 1, 4, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        """Judge ``image``."""
        return self.body(image)  # type: ignore[no-any-return]


DISCRIMINATORS: dict[str, type[Discriminator]] = {
    "vgg": VGGDiscriminator,
    "unet": UNetDiscriminator,
    "patch": PatchDiscriminator,
}
