"""Distances between the features that a classifier sees in two pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from upscale.errors import IncompatibleCheckpoint
from upscale.metrics.fidelity import need
from upscale.models.base import to_values
from upscale.models.features import SqueezeNetFeatures, load_part, vgg

LEAST = 32  # pixels of height and width, from which on every layer of all three has features


def _squeezenet() -> nn.Sequential:
    return nn.Sequential(*SqueezeNetFeatures.make())


def _alexnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    )  # fmt: skip


def _vgg16() -> nn.Sequential:
    return nn.Sequential(*vgg(2, 2, 3, 3, 3)[:-1])


@dataclass(frozen=True, slots=True)
class Backbone:
    """A row of BACKBONES: a classifier's convolutions and where LPIPS listens."""

    build: Callable[[], nn.Sequential]
    taps: tuple[int, ...]
    """Layers after which features are taken (Zhang et al. 2018, section 3.1)."""
    channels: tuple[int, ...]


BACKBONES = {
    "squeeze": Backbone(_squeezenet, (1, 4, 7, 9, 10, 11, 12), (64, 128, 256, 384, 384, 512, 512)),
    "alex": Backbone(_alexnet, (1, 4, 7, 9, 11), (64, 192, 384, 256, 256)),
    "vgg": Backbone(_vgg16, (3, 8, 15, 22, 29), (64, 128, 256, 512, 512)),
}


def _load(backbone: Backbone, state_dict: Mapping[str, Tensor]) -> nn.Sequential:
    """Build ``backbone`` with the tensors ``features.*`` of a torchvision state dict; others are the classifier's."""
    with torch.device("meta"):
        layers = backbone.build()
    load_part(
        layers,
        state_dict,
        "features.",
        "not the weights of this feature extractor",
        "it takes a state dict with torchvision's names",
    )
    return layers.requires_grad_(False).eval()


def _features(layers: nn.Sequential, taps: Sequence[int], image: Tensor) -> list[Tensor]:
    """Return the features of ``image`` ``[B, 3, H, W]`` at ``taps``, each pixel's of length 1."""
    found = []
    for index, layer in enumerate(layers):
        image = layer(image)
        if index in taps:
            found.append(image / (image.square().sum(1, keepdim=True).sqrt() + 1e-10))
    return found


class FeatureDistance:
    """The unweighted distance of SqueezeNet's features.

    LPIPS without what was fitted to human judgement, so it is not LPIPS and its figures compare with none published.
    ``state_dict`` has torchvision's names and takes RGB in [0, 1]: its first layer includes the normalisation.
    """

    def __init__(self, state_dict: Mapping[str, Tensor]) -> None:
        self._backbone = BACKBONES["squeeze"]
        self._layers = _load(self._backbone, state_dict)

    @torch.inference_mode()
    def __call__(self, sr: Tensor, gt: Tensor) -> Tensor:
        """Compare ``sr`` and ``gt`` ``[B, 3, H, W]`` RGB in [0, 1]; return ``[B]``."""
        need(sr, LEAST, "features")
        pairs = zip(*(_features(self._layers, self._backbone.taps, x.float()) for x in (sr, gt)), strict=True)
        return torch.stack([(x - y).square().sum(1).mean((1, 2)) for x, y in pairs]).mean(0)


class LPIPS:
    """Learned perceptual image patch similarity (Zhang et al. 2018, equation 1).

    ``backbone`` is the state dict of torchvision's SqueezeNet 1.1, AlexNet or VGG-16, ``linear`` that of the published
    calibration (``linN.model.1.weight``); which of the three networks, the widths of ``linear`` tell.

    Raises:
        IncompatibleCheckpoint: these are not the weights of one of the three.
    """

    def __init__(self, backbone: Mapping[str, Tensor], linear: Mapping[str, Tensor]) -> None:
        weights = [linear[key].float() for key in sorted(linear) if key.endswith(".model.1.weight")]
        widths = tuple(weight.shape[1] for weight in weights)
        name = next((name for name, row in BACKBONES.items() if row.channels == widths), None)
        if name is None:
            raise IncompatibleCheckpoint(f"not the calibration of LPIPS: its widths are {widths or 'missing'}")
        self.name = name
        self._weights = weights
        self._taps = BACKBONES[name].taps
        self._layers = _load(BACKBONES[name], backbone)

    @torch.inference_mode()
    def __call__(self, sr: Tensor, gt: Tensor) -> Tensor:
        """Compare ``sr`` and ``gt`` ``[B, 3, H, W]`` RGB in [0, 1]; return ``[B]``, 0 for equal pictures."""
        need(sr, LEAST, "LPIPS")
        pictures = (to_values(image.float(), "imagenet") for image in (sr, gt))
        x, y = (_features(self._layers, self._taps, picture) for picture in pictures)
        layers = zip(x, y, self._weights, strict=True)
        return sum(((a - b).square() * w.view(1, -1, 1, 1)).sum(1).mean((1, 2)) for a, b, w in layers)  # type: ignore[return-value]  # sum() of tensors is a tensor where there is one
