"""Files with the names and the arithmetic of other authors, against networks written down here once more.

Each reference is the published structure: modules named as in the author's files, and its forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from upscale.checkpoint import load_generator
from upscale.errors import IncompatibleCheckpoint
from upscale.models import GENERATORS, build, network_of
from upscale.models.layout import Layout


class Net(nn.Module):
    """A module of named parts; ``forward`` is a function of the module and its input."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self.function = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def c(i: int, o: int, k: int = 3, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=k // 2, bias=bias)


def seq(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


def through(parts: Iterable[nn.Module], x: Tensor) -> Tensor:
    for part in parts:
        x = part(x)
    return x


def residual(*layers: nn.Module, name: str = "net") -> Net:
    return Net(lambda m, x: x + getattr(m, name)(x), **{name: seq(*layers)})


def named_block(bias: bool = True, act: bool = True) -> Net:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.bn1(m.conv1(x))
        return x + m.bn2(m.conv2(m.prelu(y) if act else F.silu(y)))  # type: ignore[no-any-return]

    parts: dict[str, nn.Module] = {"conv1": c(N, N, bias=bias), "bn1": nn.BatchNorm2d(N)}
    parts |= {"prelu": nn.PReLU()} if act else {}
    return Net(forward, **parts, conv2=c(N, N, bias=bias), bn2=nn.BatchNorm2d(N))


N = 6  # features


def leftthomas() -> nn.Module:
    def up() -> Net:
        return Net(lambda m, x: m.prelu(F.pixel_shuffle(m.conv(x), 2)), conv=c(N, 4 * N), prelu=nn.PReLU())

    def forward(m: Any, x: Tensor) -> Tensor:
        first = m.block1(x)
        y = through([m.block2, m.block3, m.block4, m.block5, m.block6, m.block7], first)
        return (torch.tanh(m.block8(first + y)) + 1) / 2

    return Net(
        forward,
        block1=seq(c(3, N, 9), nn.PReLU()),
        **{f"block{i}": named_block() for i in range(2, 7)},
        block7=seq(c(N, N), nn.BatchNorm2d(N)),
        block8=seq(up(), up(), c(N, 3, 9)),
    )


def rcb() -> Net:
    layers = c(N, N, bias=False), nn.BatchNorm2d(N), nn.PReLU(), c(N, N, bias=False), nn.BatchNorm2d(N)
    return residual(*layers, name="rcb")


def lornatang(head: str = "conv1", neck: str = "conv2", tail: str = "conv3") -> nn.Module:
    def up() -> Net:
        layers = seq(c(N, 4 * N), nn.PixelShuffle(2), nn.PReLU())
        return Net(lambda m, x: m.upsample_block(x), upsample_block=layers)

    def forward(m: Any, x: Tensor) -> Tensor:
        first = getattr(m, head)(x)
        y = m.upsampling(first + getattr(m, neck)(m.trunk(first)))
        return getattr(m, tail)(y).clamp(0, 1)  # type: ignore[no-any-return]

    return Net(
        forward,
        **{head: seq(c(3, N, 9), nn.PReLU()), neck: seq(c(N, N, bias=False), nn.BatchNorm2d(N)), tail: c(N, 3, 9)},
        trunk=seq(rcb(), rcb()),
        upsampling=seq(up(), up()),
    )


def lornatang_2021() -> nn.Module:
    def up() -> Net:
        return Net(lambda m, x: m.prelu(F.pixel_shuffle(m.conv(x), 2)), conv=c(N, 4 * N), prelu=nn.PReLU())

    return Net(
        lambda m, x: (m.conv3(m.subpixel_conv((f := m.conv1(x)) + m.conv2(m.trunk(f)))) + 1) / 2,
        conv1=seq(c(3, N, 9), nn.PReLU()),
        trunk=seq(named_block(bias=False), named_block(bias=False)),
        conv2=seq(c(N, N, bias=False), nn.BatchNorm2d(N)),
        subpixel_conv=seq(up(), up()),
        conv3=seq(c(N, 3, 9), nn.Tanh()),
    )


def goldhuang() -> nn.Module:
    def block() -> Net:
        return residual(c(N, N), nn.BatchNorm2d(N), nn.PReLU(), c(N, N), nn.BatchNorm2d(N))

    def up() -> Net:
        return Net(lambda m, x: m.net(x), net=seq(c(N, 4 * N), nn.PixelShuffle(2), nn.PReLU()))

    def forward(m: Any, x: Tensor) -> Tensor:
        first = m.conv1(x)
        y = m.conv2(through([getattr(m, f"residual{i + 1}") for i in range(11)], first))
        return (torch.tanh(m.upsample(y + first)) + 1) / 2

    return Net(
        forward,
        conv1=seq(c(3, N, 9), nn.PReLU()),
        **{f"residual{i + 1}": block() for i in range(11)},
        conv2=seq(c(N, N), nn.PReLU()),
        upsample=seq(up(), up(), c(N, 3, 9)),
    )


def aitorzip() -> nn.Module:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.silu(m.conv1((x - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)))
        x = x + m.bn2(m.conv2(m.residual_block2(m.residual_block1(x))))
        x = m.conv3(m.upsample2(m.upsample1(x)))
        # the author's own rounded inverse
        shift, factor = torch.tensor([-2.118, -2.036, -1.804]), torch.tensor([4.367, 4.464, 4.444])
        return (x - shift.view(1, 3, 1, 1)) / factor.view(1, 3, 1, 1)

    def up() -> Net:
        return Net(lambda m, x: F.silu(F.pixel_shuffle(m.conv(x), 2)), conv=c(N, 4 * N))

    return Net(
        forward,
        conv1=c(3, N, 9),
        residual_block1=named_block(act=False),
        residual_block2=named_block(act=False),
        conv2=c(N, N),
        bn2=nn.BatchNorm2d(N),
        upsample1=up(),
        upsample2=up(),
        conv3=c(N, 3, 9),
    )


def mseitzer() -> nn.Module:
    up = 4  # features there, more than elsewhere

    def pad(k: int) -> nn.Module:
        return nn.ZeroPad2d(k // 2)

    def bare(i: int, o: int, k: int, bias: bool) -> nn.Conv2d:
        return nn.Conv2d(i, o, k, bias=bias)

    def block() -> Net:
        first = pad(3), bare(N, N, 3, False), nn.BatchNorm2d(N), nn.PReLU(N)
        return residual(*first, pad(3), bare(N, N, 3, False), nn.BatchNorm2d(N), name="block")

    stages = [pad(3), bare(N, 4 * up, 3, True), nn.PixelShuffle(2), nn.PReLU(up)]
    stages += [pad(3), bare(up, 4 * up, 3, True), nn.PixelShuffle(2), nn.PReLU(up)]
    return Net(
        lambda m, x: (m.final_conv(m.upsample((f := m.initial_conv(x)) + m.body(f))) + 1) / 2,
        initial_conv=seq(pad(9), bare(3, N, 9, True), nn.PReLU(N)),
        body=seq(block(), block(), block(), pad(3), bare(N, N, 3, False), nn.BatchNorm2d(N)),
        upsample=seq(*stages),
        final_conv=seq(pad(9), bare(up, 3, 9, True), nn.Tanh()),
    )


def dense(nc: int, gc: int, plus: bool, activated: bool) -> Net:
    """A dense block; with activations as layers of their own, as in the first ESRGAN, or as calls."""

    def forward(m: Any, x: Tensor) -> Tensor:
        def act(i: int, *inputs: Tensor) -> Tensor:
            y: Tensor = getattr(m, f"conv{i}")(torch.cat(inputs, 1))
            return y if activated else F.leaky_relu(y, 0.2)

        x1 = act(1, x)
        x2 = act(2, x, x1)
        x2 = x2 + m.conv1x1(x) if plus else x2
        x3 = act(3, x, x1, x2)
        x4 = act(4, x, x1, x2, x3)
        x4 = x4 + x2 if plus else x4
        last = m.conv5[0] if activated else m.conv5
        return last(torch.cat((x, x1, x2, x3, x4), 1)) * 0.2 + x  # type: ignore[no-any-return]

    parts: dict[str, nn.Module] = {"conv1x1": c(nc, gc, 1, bias=False)} if plus else {}
    for i in range(5):
        layer = c(nc + i * gc, gc if i < 4 else nc)
        parts[f"conv{i + 1}"] = seq(layer, *([nn.LeakyReLU(0.2)] if i < 4 else [])) if activated else layer
    return Net(forward, **parts)


def rrdb(nc: int, gc: int, plus: bool, activated: bool) -> Net:
    parts = {f"RDB{i}": dense(nc, gc, plus, activated) for i in (1, 2, 3)}
    return Net(lambda m, x: m.RDB3(m.RDB2(m.RDB1(x))) * 0.2 + x, **parts)


def old_esrgan(
    scale: int, nb: int = 2, gc: int = 3, plus: bool = False, ch: int = 3, shuffle: bool = False
) -> nn.Module:
    trunk = seq(*(rrdb(N, gc, plus, True) for _ in range(nb)), c(N, N))
    layers: list[nn.Module] = [c(ch, N), Net(lambda m, x: x + m.sub(x), sub=trunk)]
    for _ in range(scale.bit_length() - 1):
        if shuffle:
            layers += [c(N, 4 * N), nn.PixelShuffle(2), nn.LeakyReLU(0.2)]
        else:
            layers += [nn.Upsample(scale_factor=2), c(N, N), nn.LeakyReLU(0.2)]
    layers += [c(N, N), nn.LeakyReLU(0.2), c(N, ch)]
    return Net(lambda m, x: m.model(x), model=seq(*layers))


def bsrgan(scale: int, gc: int = 5) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.conv_first(x)
        x = x + m.trunk_conv(m.RRDB_trunk(x))
        x = F.leaky_relu(m.upconv1(F.interpolate(x, scale_factor=2)), 0.2)
        if scale == 4:
            x = F.leaky_relu(m.upconv2(F.interpolate(x, scale_factor=2)), 0.2)
        return m.conv_last(F.leaky_relu(m.HRconv(x), 0.2))  # type: ignore[no-any-return]

    ups = {f"upconv{i + 1}": c(N, N) for i in range(scale // 2)}
    trunk = seq(*(rrdb(N, gc, False, False) for _ in range(2)))
    return Net(
        forward, conv_first=c(3, N), RRDB_trunk=trunk, trunk_conv=c(N, N), **ups, HRconv=c(N, N), conv_last=c(N, 3)
    )


def edsr(scale: int, white: int = 255) -> nn.Module:
    def shift(sign: int) -> nn.Conv2d:
        layer = nn.Conv2d(3, 3, 1)
        layer.weight.data = torch.eye(3).view(3, 3, 1, 1)
        assert layer.bias is not None
        layer.bias.data = sign * white * torch.tensor([0.4488, 0.4371, 0.4040])
        return layer

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.head(m.sub_mean(white * x))
        return m.add_mean(m.tail(x + m.body(x))) / white  # type: ignore[no-any-return]

    stages = [c(N, 9 * N), nn.PixelShuffle(3)] if scale == 3 else [c(N, 4 * N), nn.PixelShuffle(2)] * 1
    if scale == 4:
        stages += [c(N, 4 * N), nn.PixelShuffle(2)]
    blocks = (residual(c(N, N), nn.ReLU(), c(N, N), name="body") for _ in range(2))
    tail, body = seq(seq(*stages), c(N, 3)), seq(*blocks, c(N, N))
    return Net(forward, sub_mean=shift(-1), add_mean=shift(1), head=seq(c(3, N)), body=body, tail=tail)


def span(norm: bool) -> nn.Module:
    def triple(i: int, o: int) -> Net:
        parts = seq(nn.Conv2d(i, 2 * i, 1), nn.Conv2d(2 * i, 2 * o, 3), nn.Conv2d(2 * o, o, 1))
        return Net(
            lambda m, x: m.conv(F.pad(x, (1, 1, 1, 1))) + m.sk(x), sk=nn.Conv2d(i, o, 1), conv=parts, eval_conv=c(i, o)
        )

    def block(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        first = F.silu(m.c1_r(x))
        last = m.c3_r(F.silu(m.c2_r(first)))
        return (last + x) * (torch.sigmoid(last) - 0.5), first

    def forward(m: Any, x: Tensor) -> Tensor:
        mean = torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)
        features = m.conv_1((x - mean) * 255 if norm else x)
        results = [(features, features)]
        for i in range(6):
            results.append(block(getattr(m, f"block_{i + 1}"), results[-1][0]))
        y = torch.cat((features, m.conv_2(results[6][0]), results[1][0], results[6][1]), 1)
        return m.upsampler(m.conv_cat(y))  # type: ignore[no-any-return]

    blocks = {
        f"block_{i + 1}": Net(lambda m, x: x, c1_r=triple(N, N), c2_r=triple(N, N), c3_r=triple(N, N)) for i in range(6)
    }
    net = Net(
        forward,
        conv_1=triple(3, N),
        **blocks,
        conv_cat=c(4 * N, N, 1),
        conv_2=triple(N, N),
        upsampler=seq(c(N, 27), nn.PixelShuffle(3)),
    )
    if not norm:
        net.register_buffer("no_norm", torch.zeros(1))
    return net


def msrresnet() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.recon_trunk(F.leaky_relu(m.conv_first(x), 0.1))
        y = F.leaky_relu(F.pixel_shuffle(m.upconv1(y), 2), 0.1)
        y = F.leaky_relu(F.pixel_shuffle(m.upconv2(y), 2), 0.1)
        base = F.interpolate(x, scale_factor=4, mode="bilinear", align_corners=False)
        return m.conv_last(F.leaky_relu(m.HRconv(y), 0.1)) + base  # type: ignore[no-any-return]

    def block() -> Net:
        return Net(lambda m, x: x + m.conv2(F.relu(m.conv1(x))), conv1=c(N, N), conv2=c(N, N))

    ups = {"upconv1": c(N, 4 * N), "upconv2": c(N, 4 * N), "HRconv": c(N, N)}
    return Net(forward, conv_first=c(3, N), recon_trunk=seq(block(), block()), **ups, conv_last=c(N, 3))


def signed(net: nn.Module) -> nn.Module:
    """The author's own way from pixels to pixels, where values are in [-1, 1] on both sides."""
    return Outside(net, lambda x: 2 * x - 1, lambda y: (y + 1) / 2)


def imagenet(net: nn.Module) -> nn.Module:
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    return Outside(net, lambda x: (x - mean) / std, lambda y: y * std + mean)


class Outside(nn.Module):
    """What an author's script does before and behind the network, whose tensors keep their names."""

    def __init__(self, net: nn.Module, before: Callable[[Tensor], Tensor], behind: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        for name, part in net.named_children():
            self.add_module(name, part)
        self.function, self.before, self.behind = net.function, before, behind

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(self.function(self, self.before(x)))  # type: ignore[operator]


def residual_net(**parts: nn.Module) -> Net:
    """Head, body, what follows the body, enlargement and tail, in this order; a connection around the second two."""
    head, body, neck, ups, tail = parts

    def forward(m: Any, x: Tensor) -> Tensor:
        first = getattr(m, head)(x)
        y = first + getattr(m, neck)(getattr(m, body)(first))
        return getattr(m, tail)(getattr(m, ups)(y))  # type: ignore[no-any-return]

    return Net(forward, **parts)


def normalised_ups(bias: bool, act: Callable[[], nn.Module]) -> nn.Sequential:
    stages = ((c(N, 4 * N, bias=bias), nn.BatchNorm2d(4 * N), nn.PixelShuffle(2), act()) for _ in range(2))
    return seq(*(layer for stage in stages for layer in stage))


def lornatang_2020() -> nn.Module:
    return residual_net(
        conv1=seq(c(3, N, 9, False), nn.PReLU()),
        residual_blocks=seq(named_block(bias=False), named_block(bias=False)),
        conv2=seq(c(N, N, bias=False), nn.BatchNorm2d(N)),
        upsampling=normalised_ups(False, nn.PReLU),
        conv3=seq(c(N, 3, 9, False), nn.Tanh(), Half()),
    )


class Half(nn.Module):
    """[-1, 1] to [0, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + 1) / 2


def erik_srgan() -> nn.Module:
    def block() -> Net:
        layers = c(N, N), nn.BatchNorm2d(N), nn.ReLU(), c(N, N), nn.BatchNorm2d(N)
        return residual(*layers, name="conv_block")

    return imagenet(
        residual_net(
            conv1=seq(c(3, N, 9), nn.ReLU()),
            res_blocks=seq(block(), block()),
            conv2=seq(c(N, N), nn.BatchNorm2d(N)),
            upsampling=normalised_ups(True, nn.ReLU),
            conv3=seq(c(N, 3, 9), nn.Tanh()),
        )
    )


def aladdin_srgan() -> nn.Module:
    def layer(k: int, norm: bool, act: bool, i: int = N) -> Net:
        parts = {"cnn": c(i, N, k, bias=not norm), "bn": nn.BatchNorm2d(N) if norm else nn.Identity()}
        normed: Callable[[Any, Tensor], Tensor] = lambda m, x: m.bn(m.cnn(x))  # noqa: E731
        return Net((lambda m, x: m.act(normed(m, x))) if act else normed, **parts, act=nn.PReLU(N))

    def block() -> Net:
        first, second = layer(3, True, True), layer(3, True, False)  # the second has an activation that is not used
        return Net(lambda m, x: x + m.block2(m.block1(x)), block1=first, block2=second)

    def up() -> Net:
        return Net(lambda m, x: m.act(F.pixel_shuffle(m.conv(x), 2)), conv=c(N, 4 * N), act=nn.PReLU(N))

    net = residual_net(
        initial=layer(9, False, True, 3),
        residuals=seq(block(), block()),
        convblock=layer(3, True, False),
        upsamples=seq(up(), up()),
        final=c(N, 3, 9),
    )
    return Outside(net, lambda x: x, lambda y: (torch.tanh(y) + 1) / 2)


def dongheehand(scale: int) -> nn.Module:
    act = nn.PReLU()  # one for all

    def layer(i: int, o: int, k: int, norm: bool = False, *then: nn.Module) -> Net:
        norms = [nn.BatchNorm2d(o)] if norm else []
        return Net(lambda m, x: m.body(x), body=seq(c(i, o, k), *norms, *then))

    def up(factor: int) -> Net:
        layers = seq(layer(N, factor**2 * N, 3), nn.PixelShuffle(factor), act)
        return Net(lambda m, x: m.body(x), body=layers)

    blocks = (residual(layer(N, N, 3, True, act), layer(N, N, 3, True), name="body") for _ in range(2))
    return signed(
        residual_net(
            conv01=layer(3, N, 9, False, act),
            body=seq(*blocks),
            conv02=layer(N, N, 3, True),
            tail=seq(up(2), up(2)) if scale == 4 else seq(up(scale)),
            last_conv=layer(N, 3, 3, False, nn.Tanh()),
        )
    )


def fast_srgan() -> nn.Module:
    def block() -> Net:
        parts = {"conv1": nn.Conv2d(N, N, 3, padding=1, bias=False, groups=N), "bn1": nn.BatchNorm2d(N)}
        parts |= {"relu1": nn.PReLU(), "conv2": c(N, N, 1, False), "bn2": nn.BatchNorm2d(N)}
        return Net(lambda m, x: x + m.bn2(m.conv2(m.relu1(m.bn1(m.conv1(x))))), **parts)

    def up() -> Net:
        return Net(lambda m, x: m.relu(F.pixel_shuffle(m.conv(x), 2)), conv=c(N, 4 * N), relu=nn.PReLU())

    return signed(
        residual_net(
            neck=seq(c(3, N), nn.PReLU()),
            stem=seq(block(), block()),
            bottleneck=seq(c(N, N, bias=False), nn.BatchNorm2d(N)),
            upsampling=seq(up(), up()),
            head=seq(c(N, 3), nn.Tanh()),
        )
    )


def twtygqyy() -> nn.Module:
    def block() -> Net:
        parts = {"conv1": c(N, N, bias=False), "bn1": nn.BatchNorm2d(N), "conv2": c(N, N, bias=False)}
        return Net(lambda m, x: x + m.bn2(m.conv2(leaky(m.bn1(m.conv1(x))))), **parts, bn2=nn.BatchNorm2d(N))

    def leaky(x: Tensor) -> Tensor:
        return F.leaky_relu(x, 0.2)

    def forward(m: Any, x: Tensor) -> Tensor:
        first = leaky(m.conv_input(x))
        y = first + m.bn_mid(m.conv_mid(m.residual(first)))
        return m.conv_output(m.upscale4x(y))  # type: ignore[no-any-return]

    ups = (layer for _ in range(2) for layer in (c(N, 4 * N, bias=False), nn.PixelShuffle(2), nn.LeakyReLU(0.2)))
    return Net(
        forward,
        conv_input=c(3, N, 9, False),
        residual=seq(block(), block()),
        conv_mid=c(N, N, bias=False),
        bn_mid=nn.BatchNorm2d(N),
        upscale4x=seq(*ups),
        conv_output=c(N, 3, 9, False),
    )


def old_srresnet(shuffle: bool, norm: bool = False) -> nn.Module:
    def block() -> Net:
        norms = [[nn.BatchNorm2d(N)] if norm else [] for _ in range(2)]
        return residual(c(N, N), *norms[0], nn.ReLU(), c(N, N), *norms[1], name="res")

    layers: list[nn.Module] = [c(3, N), Net(lambda m, x: x + m.sub(x), sub=seq(block(), block(), c(N, N)))]
    for _ in range(2):
        if shuffle:
            layers += [c(N, 4 * N), nn.PixelShuffle(2), nn.ReLU()]
        else:
            layers += [nn.Upsample(scale_factor=2), c(N, N), nn.ReLU()]
    layers += [c(N, N), nn.ReLU(), c(N, 3, bias=shuffle)]
    return Net(lambda m, x: m.model(x), model=seq(*layers))


def sgrvinod() -> nn.Module:
    def layer(i: int, o: int, k: int, *then: nn.Module) -> Net:
        return Net(lambda m, x: m.conv_block(x), conv_block=seq(c(i, o, k), *then))

    def block() -> Net:
        first, second = layer(N, N, 3, nn.BatchNorm2d(N), nn.PReLU()), layer(N, N, 3, nn.BatchNorm2d(N))
        return Net(lambda m, x: x + m.conv_block2(m.conv_block1(x)), conv_block1=first, conv_block2=second)

    def up() -> Net:
        return Net(lambda m, x: m.prelu(F.pixel_shuffle(m.conv(x), 2)), conv=c(N, 4 * N), prelu=nn.PReLU())

    net = residual_net(
        conv_block1=layer(3, N, 9, nn.PReLU()),
        residual_blocks=seq(block(), block()),
        conv_block2=layer(N, N, 3, nn.BatchNorm2d(N)),
        subpixel_convolutional_blocks=seq(up(), up()),
        conv_block3=layer(N, 3, 9, nn.Tanh(), Half()),
    )
    whole = imagenet(Net(lambda m, x: m.net(x), net=net))
    assert isinstance(whole, Outside)
    whole.behind = lambda y: y
    return whole


def lornatang_esrgan() -> nn.Module:
    def block() -> Net:
        parts = {f"rdb{i}": dense(N, 3, False, False) for i in (1, 2, 3)}
        return Net(lambda m, x: m.rdb3(m.rdb2(m.rdb1(x))) * 0.2 + x, **parts)

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.conv1(x)
        x = x + m.conv2(m.trunk(x))
        x = m.upsampling2(F.interpolate(m.upsampling1(F.interpolate(x, scale_factor=2)), scale_factor=2))
        return m.conv4(m.conv3(x))  # type: ignore[no-any-return]

    ups = {f"upsampling{i}": seq(c(N, N), nn.LeakyReLU(0.2)) for i in (1, 2)}
    ends = {"conv3": seq(c(N, N), nn.LeakyReLU(0.2)), "conv4": c(N, 3)}
    return Net(forward, conv1=c(3, N), trunk=seq(block(), block()), conv2=c(N, N), **ups, **ends)


def listed_dense(slope: float, **parts: nn.Module) -> Net:
    """A dense block of five ``parts``, or of a list ``blocks`` of them."""

    def forward(m: Any, x: Tensor) -> Tensor:
        seen = [x]
        layers = list(parts.get("blocks", m).children())
        for part in layers:
            seen.append(F.leaky_relu(part(torch.cat(seen, 1)), slope))
        last = layers[-1](torch.cat(seen[:-1], 1))
        return last * 0.2 + x  # type: ignore[no-any-return]

    return Net(forward, **parts)


def in_dense(outer: str, block: Callable[[], nn.Module]) -> Net:
    return Net(lambda m, x: getattr(m, outer)(x) * 0.2 + x, **{outer: seq(block(), block(), block())})


def aladdin_esrgan() -> nn.Module:
    def layer(i: int, o: int) -> Net:
        return Net(lambda m, x: m.cnn(x), cnn=c(i, o))

    def block() -> Net:
        return listed_dense(0.2, blocks=seq(*(layer(N + 3 * i, 3 if i < 4 else N) for i in range(5))))

    def up() -> Net:
        return Net(lambda m, x: F.leaky_relu(m.conv(F.interpolate(x, scale_factor=2)), 0.2), conv=c(N, N))

    return residual_net(
        initial=c(3, N),
        residuals=seq(in_dense("rrdb", block), in_dense("rrdb", block)),
        conv=c(N, N),
        upsamples=seq(up(), up()),
        final=seq(c(N, N), nn.LeakyReLU(0.2), c(N, 3)),
    )


def erik_esrgan() -> nn.Module:
    def block() -> Net:
        layers = {f"b{i}": seq(c(i * N, N)) for i in range(1, 6)}
        return listed_dense(0.01, **layers)

    ups = (layer for _ in range(2) for layer in (c(N, 4 * N), nn.LeakyReLU(), nn.PixelShuffle(2)))
    return imagenet(
        residual_net(
            conv1=c(3, N),
            res_blocks=seq(in_dense("dense_blocks", block), in_dense("dense_blocks", block)),
            conv2=c(N, N),
            upsampling=seq(*ups),
            conv3=seq(c(N, N), nn.LeakyReLU(), c(N, 3)),
        )
    )


def mmediting_srresnet() -> nn.Module:
    def up() -> Net:
        return Net(lambda m, x: F.pixel_shuffle(m.upsample_conv(x), 2), upsample_conv=c(N, 4 * N))

    def block() -> Net:
        return Net(lambda m, x: x + m.conv2(F.relu(m.conv1(x))), conv1=c(N, N), conv2=c(N, N))

    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.trunk_net(F.leaky_relu(m.conv_first(x), 0.1))
        y = F.leaky_relu(m.upsample2(F.leaky_relu(m.upsample1(y), 0.1)), 0.1)
        base = F.interpolate(x, scale_factor=4, mode="bilinear", align_corners=False)
        return m.conv_last(F.leaky_relu(m.conv_hr(y), 0.1)) + base  # type: ignore[no-any-return]

    parts = {"conv_first": c(3, N), "trunk_net": seq(block(), block()), "upsample1": up(), "upsample2": up()}
    return Net(forward, **parts, conv_hr=c(N, N), conv_last=c(N, 3))


REFERENCES: dict[str, Callable[[], nn.Module]] = {
    "leftthomas": leftthomas,
    "lornatang": lornatang,
    "lornatang-2022": lambda: lornatang("conv_block1", "conv_block2", "conv_block3"),
    "lornatang-2021": lornatang_2021,
    "goldhuang": goldhuang,
    "aitorzip": aitorzip,
    "mseitzer": mseitzer,
    "esrgan-old-x1": lambda: old_esrgan(1),
    "esrgan-old-x2": lambda: old_esrgan(2),
    "esrgan-old-x4": lambda: old_esrgan(4, nb=12),
    "esrgan-old-x8": lambda: old_esrgan(8),
    "esrgan-old-shuffle": lambda: old_esrgan(4, shuffle=True),
    "esrgan-plus": lambda: old_esrgan(4, plus=True),
    "bsrgan-x2": lambda: bsrgan(2),
    "bsrgan-x4": lambda: bsrgan(4),
    "edsr-x2": lambda: edsr(2),
    "edsr-x3": lambda: edsr(3),
    "edsr-x4": lambda: edsr(4),
    "edsr-x2-unit": lambda: edsr(2, white=1),
    "span": lambda: span(True),
    "span-no-norm": lambda: span(False),
    "msrresnet-kair": msrresnet,
    "msrresnet-mmediting": mmediting_srresnet,
    "lornatang-2020": lornatang_2020,
    "erik-srgan": erik_srgan,
    "aladdin-srgan": aladdin_srgan,
    "dongheehand-x4": lambda: dongheehand(4),
    "dongheehand-x3": lambda: dongheehand(3),
    "fast-srgan": fast_srgan,
    "twtygqyy": twtygqyy,
    "old-srresnet": lambda: old_srresnet(shuffle=True),
    "old-srresnet-norm": lambda: old_srresnet(shuffle=True, norm=True),
    "msrresnet0-kair": lambda: old_srresnet(shuffle=False),
    "sgrvinod": sgrvinod,
    "lornatang-esrgan": lornatang_esrgan,
    "aladdin-esrgan": aladdin_esrgan,
    "erik-esrgan": erik_esrgan,
}


def randomised(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    net = make().eval().requires_grad_(False)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1):
            nn.init.kaiming_normal_(layer.weight)
    for name, tensor in net.named_buffers():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    return net


@pytest.mark.parametrize("name", REFERENCES)
def test_foreign_file_gives_what_its_author_s_code_gives(name: str, tmp_path: Path) -> None:
    net = randomised(REFERENCES[name])
    path = tmp_path / "net.pth"
    torch.save(net.state_dict(), path)
    generator = load_generator(path)
    lr = torch.rand(1, 3, 9, 11)
    expected, found = net(lr), generator(lr)
    if name in ("lornatang", "lornatang-2022"):
        found = found.clamp(0, 1)  # as the engine does
    assert found.shape == expected.shape
    assert expected.std() > 0.05
    assert (found - expected).abs().max() < 0.1 / 255 * max(1, expected.abs().max())


def truthful(net: Any, before: Callable[[Tensor], Tensor], behind: Callable[[Tensor], Tensor]) -> nn.Module:
    """Weights for ``net`` with which it repeats pixels, plus a little of its own, between an author's two ranges."""
    net = randomised(lambda: net)
    torch.manual_seed(1)
    convolutions = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    for layer in convolutions:
        layer.weight.mul_(0.02)
        layer.bias.zero_() if layer.bias is not None else None
    for slope in (layer for layer in net.modules() if isinstance(layer, nn.PReLU)):
        slope.weight.fill_(0.97)
    # behind(gain * before(x) + offset) = x
    lows, highs = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    low, high = before(lows), before(highs)
    first, *_, last = convolutions
    for layer in (first, *(layer for layer in convolutions if layer.out_channels > N), last):
        for o in range(layer.out_channels if layer is not last else 3):
            i = o * N // layer.out_channels if layer not in (first, last) else o
            if i < 3:
                layer.weight[o, i, layer.kernel_size[0] // 2, layer.kernel_size[0] // 2] += 1
    assert last.bias is not None
    for channel in range(3):
        gain = (inverse(behind, 1.0) - inverse(behind, 0.0)) / float((high - low)[0, channel])
        last.weight[channel] *= gain
        last.bias[channel] = inverse(behind, 0.0) - gain * float(low[0, channel])
    return Outside(net, before, behind)


def inverse(behind: Callable[[Tensor], Tensor], value: float) -> float:
    """Solve ``behind(y) = value``, ``behind`` being a straight line."""
    zero, one = (float(behind(torch.tensor(float(y)))) for y in (0, 1))
    return (value - zero) / (one - zero)


def nobodys_srgan() -> Net:
    """A generator whose names no table has."""
    blocks = (residual(c(N, N), nn.BatchNorm2d(N), nn.PReLU(), c(N, N), nn.BatchNorm2d(N), name="way") for _ in "ab")
    ups = (layer for _ in "ab" for layer in (c(N, 4 * N), nn.PixelShuffle(2), nn.PReLU()))
    return residual_net(
        entry=seq(c(3, N, 5), nn.PReLU()),
        middle=seq(*blocks),
        after=seq(c(N, N), nn.BatchNorm2d(N)),
        larger=seq(*ups),
        exit=c(N, 3, 5),
    )


@pytest.mark.parametrize(
    ("author", "taken", "given"),
    [("nobody", "unit", "signed"), ("nobody", "signed", "unit"), ("leftthomas", "signed", "unit")],
)
def test_conventions_are_told_by_a_trial(author: str, taken: str, given: str, tmp_path: Path) -> None:
    """Whoever named the tensors, a trained network gives a picture back only from and to its own range."""
    into = {"unit": lambda x: x, "signed": lambda x: 2 * x - 1}
    out = {"unit": lambda y: y, "signed": lambda y: (y + 1) / 2}
    net = nobodys_srgan() if author == "nobody" else leftthomas()
    if author == "leftthomas":
        net.function = lambda m, x: m.block8(  # type: ignore[assignment]
            (f := m.block1(x)) + through([getattr(m, f"block{i}") for i in range(2, 8)], f)
        )
    reference = truthful(net, into[taken], out[given])
    path = tmp_path / "net.pth"
    torch.save(reference.state_dict(), path)
    lr = torch.rand(1, 3, 9, 11)
    torch.testing.assert_close(load_generator(path)(lr), reference(lr), atol=1e-4, rtol=0)


def nobodys_rrdbnet() -> Net:
    def block() -> Net:
        return listed_dense(0.2, **{f"c{i}": c(N + 3 * i, 3 if i < 4 else N) for i in range(5)})

    def up() -> Net:
        return Net(lambda m, x: F.leaky_relu(F.pixel_shuffle(m.wide(x), 2), 0.2), wide=c(N, 4 * N))

    return residual_net(
        entry=c(3, N),
        trunk=seq(in_dense("three", block)),
        after=c(N, N),
        larger=seq(up(), up()),
        exit=seq(c(N, N), nn.LeakyReLU(0.2), c(N, 3)),
    )


def nobodys_compact() -> Net:
    stack = seq(c(3, N), nn.PReLU(N), c(N, N), nn.PReLU(N), c(N, 12), nn.PixelShuffle(2))
    return Net(lambda m, x: m.stack(x) + F.interpolate(x, scale_factor=2), stack=stack)


def nobodys_msrresnet() -> Net:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = F.leaky_relu(F.pixel_shuffle(m.up(m.blocks(F.leaky_relu(m.entry(x), 0.1))), 2), 0.1)
        return m.exit(F.leaky_relu(m.fine(y), 0.1)) + F.interpolate(x, scale_factor=2, mode="bilinear")  # type: ignore

    blocks = seq(*(residual(c(N, N), nn.ReLU(), c(N, N), name="way") for _ in "ab"))
    return Net(forward, entry=c(3, N), blocks=blocks, up=c(N, 4 * N), fine=c(N, N), exit=c(N, 3))


@pytest.mark.parametrize("make", [nobodys_rrdbnet, nobodys_compact, nobodys_msrresnet])
def test_names_that_nobody_knows(make: Callable[[], Net], tmp_path: Path) -> None:
    reference = randomised(make)
    path = tmp_path / "net.pth"
    torch.save(reference.state_dict(), path)
    if make is nobodys_rrdbnet:  # of no effect on a picture without training; the others add to an enlargement
        with pytest.raises(IncompatibleCheckpoint, match="of no known architecture"):
            load_generator(path)
        reference = truthful(make(), lambda x: x, lambda y: y)
        fine = reference.get_submodule("exit.0")
        assert isinstance(fine, nn.Conv2d)
        fine.weight[range(3), range(3), 1, 1] += 1
    else:
        [layer for layer in reference.modules() if isinstance(layer, nn.Conv2d)][-1].weight.mul_(0.05)
    torch.save(reference.state_dict(), path)
    lr = torch.rand(1, 3, 9, 11)
    torch.testing.assert_close(load_generator(path)(lr), reference(lr), atol=1e-4, rtol=0)
    if make is not nobodys_compact:  # sorted by name, other layers may follow each other
        save_file(reference.state_dict(), tmp_path / "net.safetensors")
        with pytest.raises(IncompatibleCheckpoint, match="of no known architecture"):
            load_generator(tmp_path / "net.safetensors")


def test_layers_that_are_called_by_number_are_in_order_in_any_file(tmp_path: Path) -> None:
    """Of more than ten, the eleventh comes before the third by its letters."""
    middle = [layer for _ in range(6) for layer in (c(N, N), nn.PReLU(N))]
    stack = seq(c(3, N), nn.PReLU(N), *middle, c(N, 12), nn.PixelShuffle(2))
    net = Net(lambda m, x: m.stack(x) + F.interpolate(x, scale_factor=2), stack=stack)
    reference = randomised(lambda: net)
    [layer for layer in reference.modules() if isinstance(layer, nn.Conv2d)][-1].weight.mul_(0.01)
    save_file(reference.state_dict(), tmp_path / "net.safetensors")
    lr = torch.rand(1, 3, 9, 11)
    torch.testing.assert_close(load_generator(tmp_path / "net.safetensors")(lr), reference(lr), atol=1e-4, rtol=0)


def test_files_from_before_batches_were_counted_load(tmp_path: Path) -> None:
    net = randomised(leftthomas)
    path = tmp_path / "net.pth"
    torch.save({k: v for k, v in net.state_dict().items() if "num_batches" not in k}, path)
    lr = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(load_generator(path)(lr), net(lr))


@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_channels(channels: int, tmp_path: Path) -> None:
    net = randomised(lambda: old_esrgan(2, ch=channels))
    path = tmp_path / "net.pth"
    torch.save(net.state_dict(), path)
    x = torch.rand(1, channels, 8, 8)
    torch.testing.assert_close(load_generator(path).enlarge(x), net(x))


def luma(author: str) -> nn.Module:
    if author == "vdsr":
        body = [layer for _ in range(3) for layer in (c(N, N, bias=False), nn.ReLU())]
        layers = seq(c(1, N, bias=False), nn.ReLU(), *body, c(N, 1, bias=False))
        return Net(lambda m, x: m.features(x) + x, features=layers)
    if author == "srcnn":
        return Net(
            lambda m, x: m.reconstruction(m.map(m.features(x))),
            features=seq(c(1, N, 9), nn.ReLU()),
            map=seq(c(N, 4, 5), nn.ReLU()),
            reconstruction=c(4, 1, 5),
        )
    if author == "fsrcnn":
        middle = [c(N, 4, 1), nn.PReLU(4), *(layer for _ in range(4) for layer in (c(4, 4), nn.PReLU(4)))]
        return Net(
            lambda m, x: m.last_part(m.mid_part(m.first_part(x))),
            first_part=seq(c(1, N, 5), nn.PReLU(N)),
            mid_part=seq(*middle, c(4, N, 1), nn.PReLU(N)),
            last_part=nn.ConvTranspose2d(N, 1, 9, stride=3, padding=4, output_padding=2),
        )
    if author == "espcn-tanh":
        return Net(
            lambda m, x: m.last_part(m.first_part(x)),
            first_part=seq(c(1, N, 5), nn.Tanh(), c(N, 4), nn.Tanh()),
            last_part=seq(c(4, 9), nn.PixelShuffle(3)),
        )
    return Net(
        lambda m, x: F.pixel_shuffle(m.conv4(F.relu(m.conv3(F.relu(m.conv2(F.relu(m.conv1(x))))))), 3),
        conv1=c(1, N, 5),
        conv2=c(N, N),
        conv3=c(N, 4),
        conv4=c(4, 9),
    )


@pytest.mark.parametrize("author", ["vdsr", "srcnn", "fsrcnn", "espcn-tanh", "espcn-relu"])
def test_luma_networks_of_others(author: str, tmp_path: Path) -> None:
    net = randomised(lambda: luma(author))
    path = tmp_path / f"{author}_x3.pth"  # the tensors of the first three do not show the scale
    torch.save(net.state_dict(), path)
    generator = load_generator(path)
    y = torch.rand(1, 1, 8, 9)
    before = GENERATORS["bicubic"](GENERATORS["bicubic"].Config(scale=3)).enlarge(y)
    expected = net(before if author in ("vdsr", "srcnn") else y)
    torch.testing.assert_close(generator.enlarge(y), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["best", "fsrcnn_x4"])
def test_fsrcnn_s_scale_is_told_by_a_trial_whatever_its_name_says(tmp_path: Path, scale: int, name: str) -> None:
    network = {"arch": "fsrcnn", "scale": scale, "num_feat": 8, "num_shrunk": 4, "num_conv": 2}
    net = build(network, "test")
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data[0, 0, layer.kernel_size[0] // 2, layer.kernel_size[1] // 2] = 1  # passes on the first
        elif isinstance(layer, nn.ConvTranspose2d):
            tent = (1 - (torch.arange(9) - 4 - (scale - 1) / 2).abs() / scale).clamp(min=0)
            layer.weight.data[0, 0] = torch.outer(tent, tent)  # linear interpolation
    torch.save({key: value for key, value in net.state_dict().items() if "=" not in key}, tmp_path / f"{name}.pth")
    assert load_generator(tmp_path / f"{name}.pth").scale == scale


@pytest.mark.parametrize("arch", GENERATORS)
def test_recognising_junk_raises_nothing(arch: str) -> None:
    cls = GENERATORS[arch]
    names = [name.replace("\\", "").replace("(d)", "0") for layout in cls.layouts for name in layout.names]
    with torch.device("meta"):
        names += cls(cls.Config()).state_dict()
    for shape in ((), (3,), (0, 0, 0, 0), (2, 3)):
        cls.recognise(dict.fromkeys(names, shape))
        cls.recognise({name + ".weight": shape for name in names})


def test_layout_refuses_a_name_that_is_not_its_own() -> None:
    layout = Layout(author="x", names={r"a\.(\d+)": "b.#"})
    assert layout.translate(["a.3.weight", "a.7.weight"]) == {"a.3.weight": "b.0.weight", "a.7.weight": "b.1.weight"}
    assert layout.translate(["a.3.weight", "c.weight"]) is None


def test_published_names_stay_as_they_are() -> None:
    with torch.device("meta"):
        names = {
            arch: list(GENERATORS[arch](GENERATORS[arch].Config()).state_dict()) for arch in ("rrdbnet", "compact")
        }
    assert len(names["rrdbnet"]) == 702
    assert {"conv_first.weight", "body.22.rdb3.conv5.bias", "conv_up2.weight", "conv_hr.bias"} <= {*names["rrdbnet"]}
    assert names["compact"][0] == "body.0.weight"
    assert names["compact"][-1] == "body.34.bias"


def test_real_file(tmp_path: Path) -> None:
    """The keys of a published network, under the name of its wrapper."""
    net = GENERATORS["rrdbnet"](GENERATORS["rrdbnet"].Config(num_block=6))
    torch.save(net.state_dict(), tmp_path / "x.pth")
    assert network_of(load_generator(tmp_path / "x.pth")) == {
        "arch": "rrdbnet",
        "scale": 4,
        "num_in_ch": 3,
        "num_out_ch": 3,
        "num_feat": 64,
        "num_block": 6,
        "num_grow_ch": 32,
        "unshuffle": 1,
        "upsampler": "nearest",
        "plus": False,
        "slope": 0.2,
        "values": "unit",
    }
