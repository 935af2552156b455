"""The content loss on what a classifier says of a picture, not on what it sees on the way."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from upscale.checkpoint import load_extractor
from upscale.models.features import EXTRACTORS, FeatureExtractor, load_part
from upscale.statedict import read_state_dict


class Classifier(nn.Module):
    """Map ``image`` ``[B, 3, H, W]`` in [0, 1] to logits ``[B, 1000]`` of ImageNet's classes."""

    def __init__(self, extractor: FeatureExtractor, before: nn.Module, classifier: nn.Module) -> None:
        """Go on from the last layer of ``extractor`` by ``before``, without weights, and ``classifier``."""
        super().__init__()
        self.extractor = extractor
        self.before = before
        self.classifier = classifier

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return ``logits``, as ``PerceptualLoss`` takes features."""
        (features,) = self.extractor(image).values()
        return {"logits": self.classifier(self.before(features)).flatten(1)}


def load_classifier(path: Path, kind: str) -> Classifier:
    """Return the classifier ``kind`` with the weights in ``path``, a state dict under torchvision's names.

    Raises:
        IncompatibleCheckpoint: not a checkpoint of that classifier, or one without its last layers.
    """
    last = max(EXTRACTORS[kind].layers, key=EXTRACTORS[kind].layers.__getitem__)
    extractor = load_extractor(path, kind, [last])
    with torch.device("meta"):
        before, classifier = _heads()[kind]
    load_part(
        classifier,
        read_state_dict(path),
        "classifier.",
        f"{path}: does not have the last layers of {kind}",
        "the loss 'classifier' needs the whole classifier, not only its features",
    )
    return Classifier(extractor, before, classifier)


def _heads() -> dict[str, tuple[nn.Module, nn.Module]]:
    """Return, by the name of each extractor, what lies behind its last layer; numbered as torchvision's."""
    return {
        "vgg19": (
            nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(7), nn.Flatten()),
            nn.Sequential(
                nn.Linear(512 * 7 * 7, 4096), nn.ReLU(), nn.Dropout(),
                nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 1000),
            ),
        ),
        "squeezenet": (
            nn.Identity(),
            nn.Sequential(nn.Dropout(), nn.Conv2d(512, 1000, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        ),
    }  # fmt: skip
