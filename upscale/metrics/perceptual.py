"""Distances between the features that a classifier sees in two pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from upscale.errors import IncompatibleCheckpoint

MEAN = (0.485, 0.456, 0.406)  # of ImageNet, as torchvision's networks expect
DEVIATION = (0.229, 0.224, 0.225)


class _Fire(nn.Module):
    """SqueezeNet's module (Iandola et al. 2016, section 3.2); names of tensors as torchvision's."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat((self.expand1x1(x), self.expand3x3(x)), 1).relu()


def _squeezenet() -> nn.Sequential:
    """SqueezeNet 1.1."""

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(),
        _Fire(64, 16, 64), _Fire(128, 16, 64), pool(),
        _Fire(128, 32, 128), _Fire(256, 32, 128), pool(),
        _Fire(256, 48, 192), _Fire(384, 48, 192), _Fire(384, 64, 256), _Fire(512, 64, 256),
    )  # fmt: skip


def _alexnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    )  # fmt: skip


def _vgg16() -> nn.Sequential:
    layers: list[nn.Module] = []
    widths = (3, 64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
    for before, width in pairwise(widths):
        if width == 0:
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(before or _previous(layers), width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


def _previous(layers: Sequence[nn.Module]) -> int:
    return next(layer.out_channels for layer in reversed(layers) if isinstance(layer, nn.Conv2d))


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
    features = {
        key.removeprefix("features."): value.float() for key, value in state_dict.items() if key.startswith("features.")
    }
    with torch.device("meta"):
        layers = backbone.build()
    try:
        layers.load_state_dict(features, assign=True)
    except RuntimeError as error:
        raise IncompatibleCheckpoint(
            f"not the weights of this feature extractor: {str(error).splitlines()[-1].strip()}",
            "it takes a state dict with torchvision's names",
        ) from error
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
        x, y = (_features(self._layers, self._taps, self._normalise(image)) for image in (sr, gt))
        layers = zip(x, y, self._weights, strict=True)
        return sum(((a - b).square() * w.view(1, -1, 1, 1)).sum(1).mean((1, 2)) for a, b, w in layers)  # type: ignore[return-value]  # sum() of tensors is a tensor where there is one

    @staticmethod
    def _normalise(image: Tensor) -> Tensor:
        mean, deviation = (torch.tensor(value).view(1, 3, 1, 1) for value in (MEAN, DEVIATION))
        return (image.float() - mean) / deviation
