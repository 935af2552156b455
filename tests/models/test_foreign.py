"""What only spandrel knows: once through a stand-in for it, once through itself, where it is installed."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upscale.checkpoint import load_generator
from upscale.errors import IncompatibleCheckpoint
from upscale.images import Image
from upscale.loading import load
from upscale.models import network_of


class Unsupported(Exception):
    pass


class Descriptor:
    """As spandrel's: the network, and facts about it."""

    scale, input_channels, output_channels, purpose, tags = 2, 3, 3, "SR", ["small"]
    supports_half, supports_bfloat16 = False, True
    architecture = SimpleNamespace(name="Odd")

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, x: Tensor) -> Tensor:
        return F.interpolate(self.model(x), scale_factor=2)


class Loader:
    def load_from_state_dict(self, state_dict: dict[str, Tensor]) -> Descriptor:
        if "odd.weight" not in state_dict:
            raise Unsupported
        model = nn.Conv2d(3, 3, 1)
        model.load_state_dict({name.removeprefix("odd."): value for name, value in state_dict.items()})
        return Descriptor(model)


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A network of one layer that doubles the brightness."""
    path = tmp_path / "odd.pth"
    torch.save({"params": {"odd.weight": 2 * torch.eye(3)[..., None, None], "odd.bias": torch.zeros(3)}}, path)
    return path


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A spandrel that knows one network."""
    module: Any = types.ModuleType("spandrel")
    module.__spec__ = SimpleNamespace(name="spandrel")
    module.ModelLoader, module.UnsupportedModelError, module.ImageModelDescriptor = Loader, Unsupported, Descriptor
    module.canonicalize_state_dict = dict
    monkeypatch.setitem(sys.modules, "spandrel", module)


@pytest.mark.usefixtures("stand_in")
def test_network_that_only_spandrel_knows_enlarges_a_picture(odd: Path) -> None:
    assert network_of(load_generator(odd)) == {"arch": "spandrel", "scale": 2, "kind": "Odd", "tags": ("small",)}
    pixels = np.random.default_rng(0).integers(0, 128, (20, 30, 3), np.uint8)
    done = load(str(odd)).upscale(Image(pixels=pixels))
    assert np.array_equal(done.image.pixels, 2 * pixels.repeat(2, 0).repeat(2, 1))


@pytest.mark.usefixtures("stand_in")
def test_half_precision_is_used_only_where_the_network_can(odd: Path) -> None:
    generator = load_generator(odd)
    for dtype, then in ((torch.float16, torch.float32), (torch.bfloat16, torch.bfloat16)):
        generator.to_precision(dtype)
        assert next(generator.parameters()).dtype is then
        assert generator(torch.rand(1, 3, 4, 4)).dtype is torch.float32


@pytest.mark.usefixtures("stand_in")
def test_what_spandrel_does_not_know_either_stays_an_error(tmp_path: Path) -> None:
    torch.save({"even.weight": torch.ones(3, 3, 1, 1)}, tmp_path / "even.pth")
    with pytest.raises(IncompatibleCheckpoint, match="of no known architecture"):
        load_generator(tmp_path / "even.pth")


def test_without_spandrel_the_error_names_it(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    monkeypatch.setattr("upscale.models.foreign.find_spec", lambda name: None)
    with pytest.raises(IncompatibleCheckpoint) as caught:
        load_generator(odd)
    assert "pip install spandrel" in str(caught.value.hint)


@pytest.mark.usefixtures("stand_in")
def test_a_spandrel_that_cannot_be_loaded_is_as_none(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("upscale.models.foreign.import_module", broken)
    with pytest.raises(IncompatibleCheckpoint, match="of no known architecture"):
        load_generator(odd)


def test_network_of_the_library_itself(tmp_path: Path) -> None:
    pytest.importorskip("spandrel")
    from spandrel.architectures.SAFMN import SAFMN

    torch.manual_seed(0)
    net = SAFMN(dim=12, n_blocks=1, upscaling_factor=2).eval()
    path = tmp_path / "net.pth"
    torch.save(net.state_dict(), path)
    lr = torch.rand(1, 3, 16, 24)
    with torch.inference_mode():
        torch.testing.assert_close(load_generator(path)(lr), net(lr).clamp(0, 1))
