"""The loss on a classifier's output."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.train.conftest import CPU, recipe
from upscale.errors import ConfigError, IncompatibleCheckpoint
from upscale.models.features import SqueezeNetFeatures
from upscale.train.classifier import _heads, load_classifier
from upscale.train.ranks import Ranks
from upscale.train.recipe import load_recipe
from upscale.train.start import objective


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SqueezeNet with random weights, under torchvision's names."""
    torch.manual_seed(0)
    tensors = dict(SqueezeNetFeatures(["fire9"]).state_dict())
    tensors |= {"classifier.1.weight": torch.randn(1000, 512, 1, 1) / 20, "classifier.1.bias": torch.randn(1000)}
    path = tmp_path_factory.mktemp("weights") / "squeezenet.pth"
    torch.save(tensors, path)
    return path


def logits(path: Path, image: Tensor) -> Tensor:
    """SqueezeNet's output, from its tensors."""
    tensors = torch.load(path, weights_only=True)
    extractor = SqueezeNetFeatures(["fire9"])
    extractor.load_state_dict({key: value for key, value in tensors.items() if key.startswith("features")})
    seen = extractor(image)["fire9"]
    return F.conv2d(seen, tensors["classifier.1.weight"], tensors["classifier.1.bias"]).relu().mean((2, 3))


def test_the_loss_is_the_distance_of_logits_and_descends_to_the_picture(weights: Path) -> None:
    numbers = recipe(
        "losses={ classifier = 1.0 }", "perceptual.extractor=squeezenet", f'perceptual.file="{weights.as_posix()}"',
        "perceptual.layers={ fire9 = 1.0 }", "perceptual.distance=mse", "perceptual.feature_scale=0.5",
    )  # fmt: skip
    ((weight, loss),) = objective(numbers, CPU, Ranks()).losses.values()
    sr, gt = torch.rand(2, 3, 40, 48).requires_grad_(True), torch.rand(2, 3, 40, 48)
    expected = (0.5 * (logits(weights, sr) - logits(weights, gt))).square().mean()
    value = loss(sr, gt)
    assert weight == 1.0
    torch.testing.assert_close(value, expected)
    value.backward()  # type: ignore[no-untyped-call]
    assert sr.grad is not None
    assert float(sr.grad.abs().max()) > 0
    assert float(loss(gt, gt)) == 0


def test_the_last_layers_of_vgg19_are_called_as_torchvision_calls_them() -> None:
    with torch.device("meta"):
        before, classifier = _heads()["vgg19"]
        features = torch.empty(2, 512, 9, 14)  # of conv5_4
        assert classifier(before(features)).shape == (2, 1000)
    shapes = {name: tuple(tensor.shape) for name, tensor in classifier.state_dict().items()}
    assert shapes == {
        "0.weight": (4096, 25088), "0.bias": (4096,), "3.weight": (4096, 4096), "3.bias": (4096,),
        "6.weight": (1000, 4096), "6.bias": (1000,),
    }  # fmt: skip


def test_features_alone_are_not_enough(weights: Path, tmp_path: Path) -> None:
    tensors = torch.load(weights, weights_only=True)
    torch.save({key: value for key, value in tensors.items() if "classifier" not in key}, tmp_path / "features.pth")
    with pytest.raises(IncompatibleCheckpoint, match="does not have the last layers of squeezenet"):
        load_classifier(tmp_path / "features.pth", "squeezenet")


def test_without_weights_the_loss_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSCALE_OFFLINE", "1")
    with pytest.raises(ConfigError, match="the loss 'classifier' needs the weights of squeezenet"):
        objective(load_recipe("compact-photo", ["init=x", "losses={ classifier = 1.0 }"]), CPU, Ranks())
