"""RRDBNet, the generator of ESRGAN (Wang et al. 2018, section 3.1) and Real-ESRGAN (Wang et al. 2021)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upscale.models.base import Generator, Shapes, conv, count, factors, from_values, kaiming, to_values
from upscale.models.layout import Layout
from upscale.models.rows import Part, Rows, Whole, between, repeated, shuffled

RESIDUAL_SCALE = 0.2  # ESRGAN, section 3.1: residual scaling
LAG = 5  # rows by which the result of a dense block lags behind: its convolutions


class ResidualDenseBlock(nn.Module):
    """Five convolutions, each of which sees the results of all before it."""

    def __init__(self, num_feat: int, num_grow_ch: int, slope: float, *, plus: bool) -> None:
        super().__init__()
        self.conv1 = conv(num_feat, num_grow_ch)
        self.conv2 = conv(num_feat + num_grow_ch, num_grow_ch)
        self.conv3 = conv(num_feat + 2 * num_grow_ch, num_grow_ch)
        self.conv4 = conv(num_feat + 3 * num_grow_ch, num_grow_ch)
        self.conv5 = conv(num_feat + 4 * num_grow_ch, num_feat)
        self.conv1x1 = conv(num_feat, num_grow_ch, 1, bias=False) if plus else None
        self.act = nn.LeakyReLU(slope, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` ``[B, F, h, w]`` to the same shape."""
        x1 = self.act(self.conv1(x))
        x2 = self.act(self.conv2(torch.cat((x, x1), 1)))
        if self.conv1x1 is not None:  # ESRGAN+ (Rakotonirina and Rasoanaivo 2020), figure 3
            x2 = x2 + self.conv1x1(x)
        x3 = self.act(self.conv3(torch.cat((x, x1, x2), 1)))
        x4 = self.act(self.conv4(torch.cat((x, x1, x2, x3), 1)))
        if self.conv1x1 is not None:
            x4 = x4 + x2
        return x + RESIDUAL_SCALE * self.conv5(torch.cat((x, x1, x2, x3, x4), 1))  # type: ignore[no-any-return]

    def rows(self, x: Tensor, part: Part, rows: Rows, memory: Tensor) -> Tensor:
        """Map the rows ``x`` of ``part`` to those of ``part.behind(LAG)``, with the room that ``memory`` gives."""
        nf, grow = self.conv1.in_channels, self.conv1.out_channels
        top = _top(part.start)  # the row that the first of the room is
        before = part.start - top
        # The last is the row below the bottom, of zeros, where the part goes on below it.
        count = max(before, min(part.stop, part.height + 1) - top)
        room = Room(memory, x, nf + 4 * grow, grow, count, whole=self.conv1x1 is not None)
        above = rows.kept(self)
        if above is None:
            room.rows(0, before).zero_()
        else:
            room.rows(0, before).copy_(above)
        first, last = part.rows
        room.put(0, first - top, x)
        if part.start <= part.height < part.stop:
            room.rows(part.height - top, count).zero_()  # the padding of all convolutions
        made = nf
        for lag, layer in enumerate((self.conv1, self.conv2, self.conv3, self.conv4), 1):
            first, last = (row - top for row in part.behind(lag).rows)
            if first < last:
                y = self.act(room.convolved(layer, first, last))
                if self.conv1x1 is not None and layer is self.conv2:
                    y += self.conv1x1(room.features(0, nf, first, last))
                if self.conv1x1 is not None and layer is self.conv4:
                    y += room.features(nf + grow, grow, first, last)
                room.put(made, first, y)
            made += grow
        first, last = (row - top for row in part.behind(LAG).rows)
        next_top = _top(part.stop)
        kept = room.rows(min(count, next_top - top), count)
        rows.keep(self, F.pad(kept, (0, 0, 0, part.stop - next_top - kept.shape[-2])))
        if first == last:
            return x[:, :, :0]
        y = room.convolved(self.conv5, first, last).mul_(RESIDUAL_SCALE)
        room.grouped(y).add_(room.features(0, nf, first, last))
        return y


def _top(start: int) -> int:
    """Return the first row that a dense block looks at for a part from ``start`` on: above the image, one of zeros."""
    return max(start - LAG, 0) - 1


class Room:
    """Where a dense block puts what it makes beside what it is made of: rows ``[B, C, n, w]``.

    In bf16 on a CPU, groups of as many features as a convolution adds are the depth of a volume ``[B, G, C/G, n, w]``:
    the first of them lie side by side, so that they are convolved without a copy, and as fast. In float32 that is slow.
    """

    def __init__(self, memory: Tensor, like: Tensor, features: int, group: int, rows: int, *, whole: bool) -> None:
        """Lay features out in ``memory``, for images like ``like``; ``whole``: not in groups."""
        batch, width = len(like), like.shape[3]
        memory = memory[: batch * features * rows * width]
        self.group = 0
        if like.device.type == "mps":
            self.pixels = memory.view(batch, features, rows, width)
        elif whole or like.device.type != "cpu" or memory.dtype != torch.bfloat16 or group % 32 or features % group:
            self.pixels = memory.view(batch, rows, width, features).permute(0, 3, 1, 2)
        else:
            self.group = group
            self.pixels = memory.view(batch, features // group, rows, width, group).permute(0, 4, 1, 2, 3)

    def rows(self, first: int, last: int) -> Tensor:
        """Return all features of some rows."""
        return self.pixels[..., first:last, :]

    def features(self, at: int, count: int, first: int, last: int) -> Tensor:
        """Return ``count`` features from ``at`` on of the rows ``first`` to ``last``, ``grouped``."""
        if self.group:
            return self.pixels[:, :, at // self.group : (at + count) // self.group, first:last]
        return self.pixels[:, at : at + count, first:last]

    def grouped(self, x: Tensor) -> Tensor:
        """Return a view of ``x`` ``[B, C, n, w]`` as features lie here."""
        if not self.group:
            return x
        return x.view(len(x), x.shape[1] // self.group, self.group, *x.shape[2:]).transpose(1, 2)

    def put(self, at: int, first: int, x: Tensor) -> None:
        """Copy ``x`` ``[B, C, n, w]`` to the features from ``at`` on and the rows from ``first`` on."""
        self.features(at, x.shape[1], first, first + x.shape[2]).copy_(self.grouped(x))

    def convolved(self, layer: nn.Conv2d, first: int, last: int) -> Tensor:
        """Apply ``layer`` to the first features, for the rows ``first`` to ``last``: ``[B, O, n, w]``."""
        if not self.group:
            return between(layer, self.pixels[:, : layer.in_channels, first - 1 : last + 1])
        weight = self.grouped(layer.weight)  # [O, G, I/G, 3, 3]
        volume = self.pixels[:, :, : layer.in_channels // self.group]
        return F.conv3d(volume, weight, layer.bias, padding=(0, 0, 1))[:, :, 0, first - 1 : last - 1]


class RRDB(nn.Module):
    """Residual in residual dense block: three dense blocks and a residual around them."""

    def __init__(self, num_feat: int, num_grow_ch: int, slope: float, *, plus: bool) -> None:
        super().__init__()
        self.rdb1 = ResidualDenseBlock(num_feat, num_grow_ch, slope, plus=plus)
        self.rdb2 = ResidualDenseBlock(num_feat, num_grow_ch, slope, plus=plus)
        self.rdb3 = ResidualDenseBlock(num_feat, num_grow_ch, slope, plus=plus)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` ``[B, F, h, w]`` to the same shape and dtype."""
        y = self.rdb3(self.rdb2(self.rdb1(x.to(self.rdb1.conv1.weight.dtype))))
        return x + RESIDUAL_SCALE * y.to(x.dtype)  # type: ignore[no-any-return]

    def rows(self, x: Tensor, part: Part, rows: Rows, memory: Tensor) -> Tensor:
        """Map the rows ``x`` of ``part`` to those of ``part.behind(3 * LAG)``, in the room that ``memory`` gives."""
        y = x
        for block in (self.rdb1, self.rdb2, self.rdb3):
            y = block.rows(y, part, rows, memory)
            part = part.behind(LAG)
        return rows.add_delayed(self, x, y.to(x.dtype).mul_(RESIDUAL_SCALE))


class RRDBNet(Generator):
    """A trunk of RRDBs, then one enlargement by two after the other; names as in Real-ESRGAN's files."""

    layouts = (
        Layout(
            author="xinntao/ESRGAN, KAIR, RealSR",
            names={
                "conv_first": "conv_first",
                "trunk_conv": "conv_body",
                r"upconv(\d)": r"conv_up\1",
                "HRconv": "conv_hr",
                "conv_last": "conv_last",
                r"RRDB_trunk\.(\d+)\.RDB(\d)\.(conv\d|conv1x1)": r"body.\1.rdb\2.\3",
            },
        ),
        Layout(
            author="xinntao/ESRGAN of 2018, ESRGAN+",
            names={
                r"model\.0": "conv_first",
                r"model\.1\.sub\.(\d+)\.RDB(\d)\.(conv\d|conv1x1)(?:\.0)?": r"body.\1.rdb\2.\3",
                r"model\.1\.sub\.\d+": "conv_body",
                r"model\.{n-2}": "conv_hr",
                r"model\.{n}": "conv_last",
                r"model\.(\d+)": "conv_up#1",
            },
            counter=r"model\.(\d+)",
        ),
        Layout(
            author="Lornatang/ESRGAN-PyTorch",
            names={
                "conv1": "conv_first",
                r"trunk\.(\d+)\.(rdb\d\.conv\d)": r"body.\1.\2",
                "conv2": "conv_body",
                r"upsampling(\d)\.0": r"conv_up\1",
                r"conv3\.0": "conv_hr",
                "conv4": "conv_last",
            },
        ),
        Layout(
            author="aladdinpersson/Machine-Learning-Collection",
            names={
                "initial": "conv_first",
                **{
                    rf"residuals\.(\d+)\.rrdb\.{i}\.blocks\.{j}\.cnn": rf"body.\1.rdb{i + 1}.conv{j + 1}"
                    for i in range(3)
                    for j in range(5)
                },
                "conv": "conv_body",
                r"upsamples\.(\d)\.conv": "conv_up#1",
                r"final\.0": "conv_hr",
                r"final\.2": "conv_last",
            },
        ),
        Layout(
            author="eriklindernoren/PyTorch-GAN",
            names={
                "conv1": "conv_first",
                **{rf"res_blocks\.(\d+)\.dense_blocks\.{i}\.b(\d)\.0": rf"body.\1.rdb{i + 1}.conv\2" for i in range(3)},
                "conv2": "conv_body",
                r"upsampling\.(\d)": "conv_up#1",
                r"conv3\.0": "conv_hr",
                r"conv3\.2": "conv_last",
            },
            implies={"slope": 0.01, "values": "imagenet"},
        ),
    )
    unseen = ("slope", "values")

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Hyper-parameters."""

        scale: Literal[1, 2, 3, 4, 8, 16] = 4
        num_in_ch: Literal[1, 3, 4] = 3
        num_out_ch: Literal[1, 3, 4] = 3
        num_feat: int = 64
        num_block: int = 23
        num_grow_ch: int = 32
        unshuffle: Literal[0, 1, 2, 4] = 0
        """Pixel-unshuffling of the input; 0: as Real-ESRGAN does, so that the trunk enlarges by 4 at least."""
        upsampler: Literal["nearest", "shuffle"] = "nearest"
        plus: bool = False
        """The further connections of ESRGAN+."""
        slope: float = 0.2
        """Of the leaky ReLU."""
        values: Literal["unit", "signed", "imagenet"] = "unit"
        """Pixels, in and out: [0, 1], [-1, 1], or less the mean and over the deviation of ImageNet."""

        def __post_init__(self) -> None:
            object.__setattr__(self, "unshuffle", self.unshuffle or max(1, 4 // self.scale))
            if self.scale == 3 and (self.unshuffle, self.upsampler) != (1, "shuffle"):
                raise ValueError("scale 3 is by pixel shuffling, without unshuffling")
            if self.values == "imagenet" and (self.num_in_ch, self.num_out_ch) != (3, 3):
                raise ValueError("the mean of ImageNet is a colour")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.channels = (config.num_in_ch, config.num_out_ch)
        self.multiple_of = config.unshuffle
        self.factors = factors(config.scale * config.unshuffle)
        nf = config.num_feat
        self.act = nn.LeakyReLU(config.slope, inplace=True)
        self.conv_first = conv(config.num_in_ch * config.unshuffle**2, nf)
        self.body = nn.Sequential(
            *(RRDB(nf, config.num_grow_ch, config.slope, plus=config.plus) for _ in range(config.num_block))
        )
        self.conv_body = conv(nf, nf)
        for i, factor in enumerate(self.factors):
            self.add_module(f"conv_up{i + 1}", conv(nf, nf if config.upsampler == "nearest" else factor**2 * nf))
        self.conv_hr = conv(nf, nf)
        self.conv_last = conv(nf, config.num_out_ch)
        self.edges = ("conv_first", "conv_last")
        # 15 convolutions a block, conv_first and conv_body reach one trunk pixel each; the convolutions behind the
        # first enlargement 1/2, ... together less than one, the last two 2 / 2**ups, and nearest enlargement rounds
        # outward. Unshuffled pixels reach as far as their group.
        self.radius = config.unshuffle * (15 * config.num_block + 5) - 1
        self.streams = self.channels == (3, 3)
        self.lag = config.unshuffle * 3 * LAG * config.num_block

    @classmethod
    def recognise(cls, shapes: Shapes) -> Mapping[str, Any] | None:  # noqa: D102
        first, last, grow = (
            shapes.get(f"{name}.weight", ()) for name in ("conv_first", "conv_last", "body.0.rdb1.conv1")
        )
        if any(len(layer) != 4 for layer in (first, last, grow)):
            return None
        # Four channels are red, green, blue and alpha, unless there is only one in the end.
        unshuffle = {4 * last[0]: 2, 16 * last[0]: 4}.get(first[1], 1)
        ups = count(shapes, r"conv_up(\d)\.weight")
        made = shapes.get("conv_up1.weight", first)[0]
        return {
            "scale": 3 if made == 9 * first[0] else 2**ups // unshuffle,
            "num_in_ch": first[1] // unshuffle**2,
            "num_out_ch": last[0],
            "num_feat": first[0],
            "num_block": count(shapes, r"body\.(\d+)\.rdb1\.conv1\.weight"),
            "num_grow_ch": grow[0],
            "unshuffle": unshuffle,
            "upsampler": "nearest" if made == first[0] else "shuffle",
            "plus": "body.0.rdb1.conv1x1.weight" in shapes,
        }

    @classmethod
    def in_order(cls, letters: str) -> list[str] | None:  # noqa: D102
        match = re.fullmatch(r"h((?:(?:[bd]dddd){3})+)b(b*|u+)bt", letters)
        if match is None:
            return None
        blocks = range(len(match[1]) // 15)
        body = (f"body.{i}.rdb{j}.conv{k}" for i in blocks for j in (1, 2, 3) for k in (1, 2, 3, 4, 5))
        ups = (f"conv_up{i + 1}" for i in range(len(match[2])))
        return ["conv_first", *body, "conv_body", *ups, "conv_hr", "conv_last"]

    def doubts(self, *, named: bool) -> Mapping[str, Sequence[Any]]:  # noqa: D102
        return {} if named else {"values": ("unit", "signed", "imagenet"), "slope": (0.2, 0.01)}

    def recurring(self) -> Sequence[nn.Module]:  # noqa: D102
        return list(self.body)

    def initialise(self) -> None:
        """Kaiming-normal, a tenth of it in the body (ESRGAN, section 3.1: smaller initialisation)."""
        kaiming(self)
        kaiming(self.body, 0.1)

    def enlarge_rows(self, x: Tensor, part: Part, rows: Whole) -> Tensor:  # noqa: D102
        config, m = self.config, self.multiple_of
        part = part.over(m)
        if part.start < part.height:
            x = to_values(x, config.values)
            x = rows.conv(self.conv_first, F.pixel_unshuffle(x, m) if m > 1 else x, last=part.last)
        else:
            x = x.new_empty(len(x), config.num_feat, 0, x.shape[3] // m)
        dtype = self.conv_body.weight.dtype
        # The sums around the blocks: 23 roundings to bf16, one after the other, are most of what it differs by.
        trunk = x = x.to(torch.float32 if dtype == torch.bfloat16 else dtype)  # [B, F, h/m, w/m]
        if isinstance(rows, Rows):
            x, part = self._body_rows(x, part.behind_one_layer(), rows)
        else:
            x = self.body(x)
        last = part.last
        x = rows.conv(self.conv_body, x, last=last)
        x = (x + rows.delay(self, trunk, x.shape[2])).to(dtype)
        for i, factor in enumerate(self.factors):
            up = self.get_submodule(f"conv_up{i + 1}")
            assert isinstance(up, nn.Conv2d)
            if config.upsampler == "nearest":
                x = self.act(rows.conv(up, repeated(x, 2), last=last))
            else:
                x = self.act(shuffled(rows.conv(up, x, last=last), factor))
        x = self.act(rows.conv(self.conv_hr, x, last=last))  # [B, F, s*h, s*w]
        return from_values(rows.conv(self.conv_last, x, last=last), config.values)

    def _body_rows(self, x: Tensor, part: Part, rows: Rows) -> tuple[Tensor, Part]:
        """Return the rows of the body's result that are final once those of ``part`` are known, and their part."""
        features = self.config.num_feat + 4 * self.config.num_grow_ch
        size = len(x) * features * (part.stop - part.start + LAG + 1) * x.shape[3]
        memory = x.new_empty(size, dtype=self.conv_body.weight.dtype)
        for block in self.body:
            assert isinstance(block, RRDB)
            x = block.rows(x, part, rows, memory)
            part = part.behind(3 * LAG)
        return x, part
