"""Compact: a plain stack of 3x3 convolutions at LR size, the small network of Real-ESRGAN (SRVGGNetCompact)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upscale.models.base import Generator, Shapes, conv, count, shuffle_factor
from upscale.models.rows import Part, Whole, repeated, shuffled


class Compact(Generator):
    """``PixelShuffle(body(lr)) + nearest(lr)``; names of tensors as in the published checkpoints."""

    unseen = ("activation",)

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Hyper-parameters."""

        scale: Literal[1, 2, 3, 4, 8] = 4
        num_ch: Literal[1, 3, 4] = 3
        num_feat: int = 64
        num_conv: int = 16
        """Convolutions between the first and the last."""
        activation: Literal["prelu", "relu", "leakyrelu"] = "prelu"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.channels = (config.num_ch, config.num_ch)
        self.radius = config.num_conv + 2
        self.streams = config.num_ch == 3
        nf = config.num_feat
        layers: list[nn.Module] = [conv(config.num_ch, nf), self._activation()]
        for _ in range(config.num_conv):
            layers += [conv(nf, nf), self._activation()]
        layers += [conv(nf, config.num_ch * config.scale**2)]
        self.body = nn.Sequential(*layers)
        self.edges = ("body.0", "body.1", f"body.{len(layers) - 1}")

    def _activation(self) -> nn.Module:
        if self.config.activation == "prelu":
            return nn.PReLU(self.config.num_feat)
        return nn.LeakyReLU(0.1) if self.config.activation == "leakyrelu" else nn.ReLU()

    @classmethod
    def recognise(cls, shapes: Shapes) -> Mapping[str, Any] | None:  # noqa: D102
        first = shapes.get("body.0.weight", ())
        if len(first) != 4 or any(not name.startswith("body.") for name in shapes):
            return None
        last = max(int(name.split(".")[1]) for name in shapes if name.split(".")[1].isdigit())
        return {
            "scale": shuffle_factor(shapes.get(f"body.{last}.weight", (0,))[0], first[1]),
            "num_ch": first[1],
            "num_feat": first[0],
            "num_conv": (last - 2) // 2,
            # Files without slopes are of the ReLU variant, unless an empty tensor of ours says otherwise.
            "activation": "prelu" if count(shapes, r"body\.(\d+)\.weight") == last + 1 else "relu",
        }

    @classmethod
    def in_order(cls, letters: str) -> list[str] | None:  # noqa: D102
        return [f"body.{i}" for i in range(len(letters))] if re.fullmatch(r"hp(?:bp)+[tu]", letters) else None

    def doubts(self, *, named: bool) -> Mapping[str, Sequence[Any]]:  # noqa: D102
        return {} if self.config.activation == "prelu" else {"activation": ("relu", "leakyrelu")}

    def initialise(self) -> None:
        """Start near the identity in the middle, near zero at the end.

        A plain stack that starts from noise alone collapses to nearest-neighbour enlargement, or learns slowly; one
        whose middle layers pass on what they get, plus a little noise, trains like a residual network from the first
        step.
        """
        *before, last = self._convolutions().values()
        for layer, gain in zip((*before, last), (1.4, *[0.15] * self.config.num_conv, 0.1), strict=True):
            nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        for layer in before[1:]:
            layer.weight.data[:, :, 1, 1] += torch.eye(self.config.num_feat)
        if self.config.num_ch <= self.config.num_feat:
            self._pass_on(before, last)

    def _pass_on(self, before: Sequence[nn.Conv2d], last: nn.Conv2d) -> None:
        """Let as many features as there are channels hold LR in all layers, for the last to interpolate linearly.

        Differences of colour are small beside those of luma. In features that all learn, the steps for luma soon drown
        them; the network then has the colours of ``nearest``, and learns others too late or never. So these features
        stay as they are (``passing``), and what the last layer adds to them is the same for all channels at first.
        """
        channels, scale = self.config.num_ch, self.config.scale
        for layer in before:
            layer.weight.data[:channels] = _identity(layer, channels)
        pixels = torch.eye(9).view(9, 1, 3, 3)  # what each of the 3 x 3 around a pixel adds to the block in its place
        linear, nearest = (F.interpolate(pixels, scale_factor=scale, mode=mode) for mode in ("bilinear", "nearest"))
        taps = (linear - nearest)[:, 0, scale : 2 * scale, scale : 2 * scale].reshape(3, 3, scale**2)
        weight = last.weight.data.view(channels, scale**2, -1, 3, 3)
        weight[:] = weight[0].clone()
        weight[:, :, :channels] = 0
        kept = torch.arange(channels)
        weight[kept, :, kept] = taps.permute(2, 0, 1)

    def passing(self) -> Mapping[str, int]:  # noqa: D102
        channels = self.config.num_ch
        *before, _ = self._convolutions().items()
        # LR is not negative, so that activations pass it on as it is.
        whole = channels <= self.config.num_feat and all(
            torch.equal(layer.weight[:channels], _identity(layer, channels))
            and (layer.bias is None or not layer.bias[:channels].any())
            for _, layer in before
        )
        return {name: channels for name, _ in before} if whole else {}

    def to_precision(self, dtype: torch.dtype) -> None:
        """Cast the layers in between. In bf16, features that hold LR then hold 255/256 of it.

        Eight bits of fraction tell multiples of 1/256 exactly, those of 1/255 to half a level; what sees these features
        is scaled back.
        """
        held = self.config.num_ch if dtype is torch.bfloat16 and self.passing() else 0
        first, *between, last = self._convolutions().values()
        first.weight.data[:held] *= 255 / 256
        for layer in between:
            layer.weight.data[held:, :held] *= 256 / 255
        last.weight.data[:, :held] *= 256 / 255
        super().to_precision(dtype)

    def _convolutions(self) -> dict[str, nn.Conv2d]:
        return {name: layer for name, layer in self.named_modules() if isinstance(layer, nn.Conv2d)}

    def enlarge_rows(self, x: Tensor, part: Part, rows: Whole) -> Tensor:  # noqa: D102
        lr = x
        for layer in self.body:
            x = rows.conv(layer, x, last=part.last) if isinstance(layer, nn.Conv2d) else layer(x)  # [B, F, n, w]
        return shuffled(x, self.scale) + repeated(rows.delay(self, lr, x.shape[2]), self.scale)


def _identity(layer: nn.Conv2d, channels: int) -> Tensor:
    """Return the weights ``[channels, I, 3, 3]`` that pass on the first ``channels`` of what ``layer`` gets."""
    weight = torch.zeros_like(layer.weight[:channels])
    kept = torch.arange(channels)
    weight[kept, kept, 1, 1] = 1
    return weight
