"""What every generator promises, and what several of them share."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upscale.imaging import resize, rgb_to_y
from upscale.models.layout import Layout
from upscale.models.rows import Part, Whole

Shapes = Mapping[str, tuple[int, ...]]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Generator(nn.Module):
    """A network that enlarges images.

    ``forward`` maps ``lr`` ``[B, 3, h, w]``, float32 RGB in [0, 1], to ``[B, 3, scale*h, scale*w]`` float32 on the
    same device, not clamped. ``h`` and ``w`` are multiples of ``multiple_of``. A network of four channels takes and
    gives a fourth, alpha, as well; one of a single channel works on luma, and bicubic enlargement gives the colours.
    """

    Config: ClassVar[type[Any]]
    layouts: ClassVar[tuple[Layout, ...]] = ()
    """How the tensors are called elsewhere."""
    unseen: ClassVar[tuple[str, ...]] = ()
    """Hyper-parameters that no name and no shape of a tensor shows."""
    config: Any
    scale: int
    radius: int
    """Receptive radius: how many LR pixels around a pixel can change its output."""
    margin: int = 4
    """How many LR pixels of an image, mirrored, the engine puts around it. More than four change nothing that can be
    seen, neither in results of the bundled networks nor of realesr-general-x4v3."""
    multiple_of: int = 1
    any_scale: bool = False
    """Whether ``at_scale`` gives the network for another scale."""
    channels: tuple[int, int] = (3, 3)
    """Channels that ``enlarge`` takes and gives: 1 is luma, 3 RGB, 4 RGB and alpha."""
    studio: bool = False
    """Whether luma is that of MATLAB's rgb2ycbcr, in [16/255, 235/255], instead of [0, 1]."""
    streams: bool = False
    """Whether ``enlarge_rows`` takes an image a few rows at a time."""
    lag: int = 0
    """How many rows past the image's end parts must reach until ``enlarge_rows`` has given all of the result."""
    edges: tuple[str, ...] = ()
    """The first and the last layers: ``to_precision`` leaves them in float32."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.scale = config.scale
        defaults = {field.name: field.default for field in dataclasses.fields(config) if field.name in self.unseen}
        usual = dataclasses.replace(config, **defaults)
        for name in self.unseen:
            if getattr(config, name) != getattr(usual, name):
                self.register_buffer(note(name, getattr(config, name)), torch.zeros(()))

    def recurring(self) -> Sequence[nn.Module]:
        """Return modules of one kind that most of the work is in: a compiler makes one for all, and is done sooner."""
        return ()

    @classmethod
    def recognise(cls, shapes: Shapes) -> Mapping[str, Any] | None:
        """Return the visible hyper-parameters of the network that has tensors of these names and shapes, or None."""
        return None

    @classmethod
    def in_order(cls, letters: str) -> list[str] | None:
        """Return our name of each layer of a file whose layers, in its order, are ``letters``; None for another's.

        h is the first convolution, t the last; b keeps the features, u makes more, d is any other; n is batch
        normalisation, p are the slopes of PReLU.
        """
        return None

    def doubts(self, *, named: bool) -> Mapping[str, Sequence[Any]]:
        """Return the hyper-parameters that only a trial can tell, and their choices.

        ``named``: the names of the tensors tell whose they are, so that only habits are open, not the structure.
        """
        return {}

    @property
    def has_weights(self) -> bool:
        """Whether anything could be trained."""
        return next(self.parameters(), None) is not None

    def at_scale(self, scale: int) -> Self:
        """Return the network that enlarges by ``scale``; only where ``any_scale``."""
        return self

    def initialise(self) -> None:
        """Draw weights for training from the global generator of random numbers."""

    def passing(self) -> Mapping[str, int]:
        """Return the layers whose first features do nothing but pass on the input, and how many: to be left so."""
        return {}

    def folded(self) -> Generator:
        """Return the network in the form that runs best: without what only training needs."""
        return self

    def to_precision(self, dtype: torch.dtype) -> None:
        """Cast the weights to ``dtype``, except those of ``edges``, which stay float32.

        A picture's own eight bits do not fit into bf16's, so what reads the picture and what writes it is float32.
        """
        edges = [self.get_submodule(name) for name in self.edges]
        whole = [copy.deepcopy(edge.state_dict()) for edge in edges]
        self.to(dtype)
        for edge, state in zip(edges, whole, strict=True):
            edge.float().load_state_dict(state)  # to() has rounded it

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge ``lr`` ``[B, 3, h, w]``, or ``[B, 4, h, w]`` where the network takes alpha."""
        taken, given = self.channels
        rgb = lr[:, :3]
        if taken == 1:
            sr = self.enlarge(self._luma(rgb))
        elif taken == 4 and lr.shape[1] == 3:
            sr = self.enlarge(F.pad(lr, (0, 0, 0, 0, 0, 1), value=1.0))
        else:
            sr = self.enlarge(lr)
        if given != 1:
            return sr[:, : lr.shape[1]]
        base = resize(rgb, self.scale * lr.shape[-2], self.scale * lr.shape[-1])
        # Luma is the sum of red, green and blue by weights that add up to 219/255 or 1, and chroma does not change
        # where all three change alike: the new luma is set by adding the difference to each.
        gain = 255 / 219 if self.studio else 1.0
        return base + gain * (sr - self._luma(base))

    def enlarge(self, x: Tensor) -> Tensor:
        """Enlarge ``x`` ``[B, channels[0], h, w]`` to ``[B, channels[1], scale*h, scale*w]``."""
        return self.enlarge_rows(x, Part(0, x.shape[2], x.shape[2]), Whole())

    def enlarge_rows(self, x: Tensor, part: Part, rows: Whole) -> Tensor:
        """Enlarge the rows ``x`` ``[B, channels[0], n, w]`` of ``part``, which follow those of the last call.

        ``rows`` keeps what is needed from call to call, and has nothing at the top. Parts end ``lag`` rows past the
        image, or later; ``x`` has the rows that are there. Returns the rows that are final by now,
        ``[B, channels[1], m, scale*w]``: all together those of ``enlarge`` for the whole image.
        """
        # A network defines this or ``enlarge``, and the engine asks for rows only where ``streams`` says that it does.
        raise NotImplementedError(f"{type(self).__name__} takes whole images only")

    def _luma(self, rgb: Tensor) -> Tensor:
        """Return the luma of ``rgb`` ``[B, 3, h, w]`` as ``[B, 1, h, w]``."""
        studio = rgb_to_y(rgb)[:, None]
        return studio if self.studio else (255 * studio - 16) / 219


def to_values(x: Tensor, values: str) -> Tensor:
    """Map pixels ``x`` ``[B, C, h, w]`` in [0, 1] to what an author feeds to a network.

    ``values``: "unit" is [0, 1], "signed" [-1, 1], "imagenet" less ImageNet's mean and over its deviation (RGB).
    """
    if values == "imagenet":
        return (x - constant(IMAGENET_MEAN, x)) / constant(IMAGENET_STD, x)
    return 2 * x - 1 if values == "signed" else x


def from_values(x: Tensor, values: str) -> Tensor:
    """Undo ``to_values``."""
    if values == "imagenet":
        return x * constant(IMAGENET_STD, x) + constant(IMAGENET_MEAN, x)
    return (x + 1) / 2 if values == "signed" else x


def constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    """Return ``values``, one for each channel, as ``[1, 3, 1, 1]`` beside ``like``."""
    return torch.tensor(values, device=like.device).view(1, 3, 1, 1)


def run(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply ``layer`` to ``x``, cast to the dtype of the layer's weights first."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return layer(x.to(weight.dtype))  # type: ignore[no-any-return]


def conv(inputs: int, outputs: int, kernel: int = 3, *, bias: bool = True) -> nn.Conv2d:
    """Return a convolution that keeps height and width."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)


def factors(scale: int) -> tuple[int, ...]:
    """Return the steps of an enlargement by ``scale``, a power of 2, or 3."""
    return (3,) if scale == 3 else (2,) * (scale.bit_length() - 1)


def faults(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return in words why the tensors ``found`` are not those ``expected``, by name; empty where they are."""
    misshapen = [
        f"{key} {list(found[key].shape)} instead of {list(expected[key].shape)}"
        for key in expected
        if key in found and found[key].shape != expected[key].shape
    ]
    whole = [
        key
        for key in expected
        if key in found and expected[key].dtype.is_floating_point > found[key].dtype.is_floating_point
    ]
    faults = (
        ("missing", [key for key in expected if key not in found]),
        ("unexpected", [key for key in found if key not in expected]),
        ("of another shape", misshapen),
        ("not real numbers", whole),
    )
    return tuple(f"{what}: {first_of(keys)}" for what, keys in faults if keys)


def first_of(names: Sequence[str]) -> str:
    """Return the first few of ``names``."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def kaiming(network: nn.Module, gain: float = 1.0) -> None:
    """Draw all convolutions of ``network`` as He et al. 2015 do, times ``gain``; biases are 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight)
            layer.weight.data.mul_(gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def count(names: Iterable[str], pattern: str) -> int:
    """Return how many different numbers the one group of ``pattern`` takes among ``names``."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})


def shuffle_factor(outputs: int, channels: int) -> int:
    """Return the scale at which pixel shuffling makes ``channels`` of ``outputs``, 0 where there is none."""
    scale = math.isqrt(outputs // channels) if channels else 0
    return scale if channels * scale**2 == outputs else 0


def note(name: str, value: Any) -> str:
    """Return the name of the empty tensor that tells the hyper-parameter ``name``, for example ``norm=false``."""
    # A Sequential or a ParameterList counts its tensors with dots; a name of one buffer must not have any.
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{name}={text}".replace(".", ",")


def read_notes(names: Iterable[str]) -> dict[str, Any]:
    """Return the hyper-parameters that the names of empty tensors tell."""
    notes = {}
    for name, text in (name.split("=", 1) for name in names if "=" in name):
        try:
            notes[name] = json.loads(text.replace(",", "."))
        except ValueError:
            notes[name] = text
    return notes
