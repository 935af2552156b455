"""Feature extractors for perceptual losses: ``image`` ``[B, 3, H, W]`` in [0, 1] -> features by layer name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upscale.errors import IncompatibleCheckpoint
from upscale.models.base import faults, to_values


class FeatureExtractor(nn.Module, ABC):
    """The convolutions of a classifier, up to the last layer that is asked for."""

    layers: ClassVar[Mapping[str, int]]
    """Index in ``features`` of each layer that can be asked for."""

    def __init__(self, wanted: Collection[str]) -> None:
        super().__init__()
        unknown = [name for name in wanted if name not in self.layers]
        if unknown or not wanted:
            raise ValueError(f"layers {list(wanted)}: expected some of {', '.join(self.layers)}")
        self.wanted = {self.layers[name]: name for name in wanted}
        self.features = nn.Sequential(*self.make()[: max(self.wanted) + 1])

    @staticmethod
    @abstractmethod
    def make() -> list[nn.Module]:
        """Return all layers, in the order of torchvision's ``features``."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the output of each layer that was asked for."""
        found = {}
        x = image
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.wanted:
                found[self.wanted[index]] = x
        return found


def vgg(*counts: int) -> list[nn.Module]:
    """Return the layers of a VGG (Simonyan and Zisserman 2015, table 1) with ``counts`` convolutions in its blocks."""
    made: list[nn.Module] = []
    before = 3
    for width, count in zip((64, 128, 256, 512, 512), counts, strict=True):
        for _ in range(count):
            made += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]  # not in place: features are kept
            before = width
        made.append(nn.MaxPool2d(2))
    return made


class VGG19Features(FeatureExtractor):
    """VGG-19 (Simonyan and Zisserman 2015, table 1, E); ``convM_N`` is before its activation (ESRGAN, section 3.3)."""

    layers: ClassVar = {
        f"conv{block}_{n + 1}": start + 2 * n
        for block, (start, count) in enumerate(((0, 2), (5, 2), (10, 4), (19, 4), (28, 4)), 1)
        for n in range(count)
    }

    @staticmethod
    def make() -> list[nn.Module]:
        """Return all layers, in the order of torchvision's ``features``."""
        return vgg(2, 2, 4, 4, 4)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the output of each layer that was asked for."""
        return super().forward(to_values(image, "imagenet"))


class Fire(nn.Module):
    """Squeeze to few channels, expand by 1x1 and by 3x3 (Iandola et al. 2016, section 3.2)."""

    def __init__(self, before: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(before, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, before, h, w]`` to ``[B, 2 * expanded, h, w]``."""
        x = F.relu(self.squeeze(x))
        return torch.cat((F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))), 1)


class SqueezeNetFeatures(FeatureExtractor):
    """SqueezeNet 1.1: a hundredth of VGG-19's size, for machines without its 548 MB.

    Input normalisation is folded into the first layer of the weights that are used with it.
    """

    layers: ClassVar = {
        "relu1": 1, "fire2": 3, "fire3": 4, "fire4": 6, "fire5": 7, "fire6": 9, "fire7": 10, "fire8": 11, "fire9": 12
    }  # fmt: skip

    @staticmethod
    def make() -> list[nn.Module]:
        """Return all layers, in the order of torchvision's ``features``."""
        return [
            nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), _pool(),
            Fire(64, 16, 64), Fire(128, 16, 64), _pool(),
            Fire(128, 32, 128), Fire(256, 32, 128), _pool(),
            Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
        ]  # fmt: skip


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


EXTRACTORS: dict[str, type[FeatureExtractor]] = {"vgg19": VGG19Features, "squeezenet": SqueezeNetFeatures}


def load_part(
    network: nn.Module, state_dict: Mapping[str, Tensor], prefix: str, fault: str, hint: str | None = None
) -> None:
    """Put into ``network`` its tensors of a torchvision state dict, where ``prefix`` begins their names, as float32.

    Raises:
        IncompatibleCheckpoint: saying ``fault``, what is missing or of another shape, and ``hint``.
    """
    wanted = network.state_dict()
    tensors = {key: state_dict[prefix + key].float() for key in wanted if prefix + key in state_dict}
    if wrong := faults(wanted, tensors):
        raise IncompatibleCheckpoint(f"{fault}; {'; '.join(wrong)}", hint)
    network.load_state_dict(tensors, assign=True)
