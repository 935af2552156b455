"""Laws that hold for every architecture in the table, over random hyper-parameters."""

from __future__ import annotations

import dataclasses
import itertools
import random
import typing
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file, save_file

from upscale.checkpoint import load_generator, save_generator
from upscale.models import GENERATORS, Generator, build, network_of
from upscale.models.rows import Part, Rows

TRAINED = [arch for arch, cls in GENERATORS.items() if cls.recognise({}) is None and dataclasses.fields(cls.Config)[1:]]
SMALL: dict[str, list[Any]] = {"num_block": [1, 2], "num_conv": [1, 2], "kernel": [3, 5, 9], "tail_kernel": [0, 3, 5]}
SMALL |= {
    "kernels": [(9, 1, 5), (9, 5, 5), (3, 3, 3)],
    "num_feats": [(4, 3), (5,), (4, 4, 2)],
    "res_scale": [None, 0.1, 0.25],
    "slope": [0.2, 0.01],
}


def draw(arch: str, seed: int) -> dict[str, Any]:
    """Return a random small network of ``arch``."""
    rng = random.Random(f"{arch} {seed}")
    config = GENERATORS[arch].Config
    hints = typing.get_type_hints(config)
    network: dict[str, Any] = {"arch": arch}
    for field in dataclasses.fields(config):
        hint = hints[field.name]
        if field.name in SMALL:
            network[field.name] = rng.choice(SMALL[field.name])
        elif typing.get_origin(hint) is Literal:
            network[field.name] = rng.choice(typing.get_args(hint))
        elif hint is bool:
            network[field.name] = rng.random() < 0.5
        else:
            network[field.name] = rng.randint(2, 6)
    if arch == "rrdbnet":  # four channels that become one are an unshuffled one; scale 16 of a small picture is large
        network["num_out_ch"] = network["num_in_ch"]
        network["unshuffle"] = network["unshuffle"] if network["scale"] in (1, 2, 4) else 1
        network["values"] = network["values"] if network["num_in_ch"] == 3 else "unit"
    if arch == "srgan" and network["num_ch"] == 1:
        network |= {"input": "signed", "output": "plain"}
    if network.get("scale") == 3 and "upsampler" in network:
        network["upsampler"] = "shuffle"
    return network


def make(network: dict[str, Any]) -> Generator:
    """Return a network of random weights, running statistics included."""
    torch.manual_seed(0)
    generator = build(network, "test")
    generator.initialise()
    for name, tensor in generator.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith("bias"):
            tensor.normal_(0, 0.05)
    return generator.eval().requires_grad_(False)


def test_layers_are_counted_not_spelt(tmp_path: Path) -> None:
    generator = make({"arch": "espcn", "num_feats": [*range(3, 15)]})
    save_generator(tmp_path / "network.safetensors", generator, {}, torch.float32)
    assert network_of(load_generator(tmp_path / "network.safetensors")) == network_of(generator)


def picture(height: int, width: int, channels: int = 3) -> torch.Tensor:
    return torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(1))


def test_table_lists_the_trained_architectures() -> None:
    assert set(TRAINED) == set(GENERATORS) - {"nearest", "bilinear", "bicubic", "lanczos", "wiener"}


@pytest.mark.parametrize("arch", TRAINED)
@pytest.mark.parametrize("seed", range(6))
def test_saved_network_is_recognised_from_its_bare_tensors(arch: str, seed: int, tmp_path: Path) -> None:
    generator = make(draw(arch, seed))
    path = tmp_path / "network.safetensors"
    save_generator(path, generator, {}, torch.float32)
    save_file(load_file(path), path)  # without what it says of itself
    loaded = load_generator(path)
    assert network_of(loaded) == network_of(generator)
    assert loaded.state_dict().keys() == generator.state_dict().keys()
    lr = picture(8, 12)
    torch.testing.assert_close(loaded(lr), generator(lr), rtol=0, atol=1e-6)  # alignment in memory changes sums


@pytest.mark.parametrize("arch", GENERATORS)
@pytest.mark.parametrize("seed", range(3))
def test_size_dtype_and_precision(arch: str, seed: int) -> None:
    generator = make(draw(arch, seed))
    lr = picture(8, 12)
    sr = generator(lr)
    assert sr.shape == (1, 3, 8 * generator.scale, 12 * generator.scale)
    assert sr.dtype is torch.float32
    generator.to_precision(torch.bfloat16)
    half = generator(lr)
    assert half.dtype is torch.float32
    assert torch.isfinite(half).all()


@pytest.mark.parametrize("arch", GENERATORS)
@pytest.mark.parametrize("seed", range(3))
def test_no_pixel_sees_further_than_the_radius(arch: str, seed: int) -> None:
    generator = make(draw(arch, seed)).double()
    m, r, s = generator.multiple_of, generator.radius, generator.scale
    width = -(-(2 * r + 9) // m) * m
    lr = picture(max(m, 4), width).double()
    changed = lr.clone()
    changed[..., width // 2] = 1 - changed[..., width // 2]
    moved = (generator(changed) - generator(lr)).abs().amax((0, 1, 2)) > 1e-12
    touched = torch.nonzero(moved)[:, 0]
    assert touched.min() >= s * (width // 2 - r)
    assert touched.max() < s * (width // 2 + r + 1)


@pytest.mark.parametrize("arch", TRAINED)
def test_one_step_of_training_moves_every_weight(arch: str) -> None:
    torch.manual_seed(0)
    generator = build(draw(arch, 0), "test").train()
    generator.initialise()
    lr = torch.rand(2, 3, 8, 8)
    loss = (generator(lr) - torch.rand(2, 3, 8 * generator.scale, 8 * generator.scale)).square().mean()
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in generator.parameters())
    assert any(p.grad.abs().max() > 0 for p in generator.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        ({"arch": "srcnn"}, 57_281),  # 57K
        ({"arch": "srcnn", "kernels": (9, 1, 5)}, 8_129),  # 8K, section 4.1
        ({"arch": "fsrcnn"}, 12_809),  # 12K, slopes of PReLU included
        ({"arch": "espcn"}, 24_752),
        ({"arch": "espcn", "scale": 3}, 22_729),
        ({"arch": "vdsr"}, 664_704),  # 665K
        ({"arch": "srgan", "block_bias": False}, 1_547_350),  # 1.54M
        ({"arch": "srresnet"}, 1_517_571),  # 1.52M
        ({"arch": "edsr"}, 1_517_571),  # 1.52M
        ({"arch": "edsr", "scale": 2}, 1_369_859),  # 1.37M
        ({"arch": "edsr", "num_feat": 256, "num_block": 32}, 43_089_923),  # 43.1M
        ({"arch": "rrdbnet"}, 16_697_987),  # 16.70M
        ({"arch": "compact"}, 621_424),  # 0.62M
        ({"arch": "compact", "scale": 2}, 600_652),  # 601K
        ({"arch": "compact", "num_conv": 32}, 1_213_296),  # 1.21M
        ({"arch": "span", "fused": True}, 426_288),
    ],
    ids=str,
)
def test_parameters_are_as_many_as_published(network: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        generator = build(network, "test")
    assert sum(p.numel() for p in generator.parameters()) == parameters


def test_span_in_its_published_form_counts_both_forms() -> None:
    with torch.device("meta"):
        counts = {
            (num_feat, fused): sum(
                p.numel()
                for name, p in build({"arch": "span", "num_feat": num_feat, "fused": fused}, "test").named_parameters()
                if not fused or "eval_conv" in name
            )
            for num_feat in (48, 52)
            for fused in (False, True)
        }
    assert round((counts[48, False] + counts[48, True]) / 1e6, 2) == 2.24  # SPAN-S, unfused
    assert round((counts[52, False] + counts[52, True]) / 1e6, 2) == 2.62  # SPAN, unfused


@pytest.mark.parametrize("network", [{"arch": "srcnn"}, {"arch": "fsrcnn"}, {"arch": "espcn"}, {"arch": "vdsr"}])
def test_luma_network_of_no_effect_gives_bicubic(network: dict[str, Any]) -> None:
    """A network on luma alone leaves the chroma of the bicubic enlargement."""
    generator = make({**network, "scale": 2})
    bicubic = build({"arch": "bicubic", "scale": 2}, "test")
    lr = picture(10, 14)
    cb_cr = torch.tensor([[-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
    found, expected = (torch.einsum("kc,bchw->bkhw", cb_cr, g(lr)) for g in (generator, bicubic))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


def test_luma_of_vdsr_is_that_of_the_network_on_luma() -> None:
    generator = make({"arch": "vdsr", "scale": 2, "num_feat": 4, "num_conv": 2})
    weights = torch.tensor([65.481, 128.553, 24.966])
    lr = picture(10, 14)
    y = torch.einsum("bchw,c->bhw", lr, weights)[:, None] / 255 + 16 / 255
    sr_y = torch.einsum("bchw,c->bhw", generator(lr), weights)[:, None] / 255 + 16 / 255
    torch.testing.assert_close(sr_y, generator.enlarge(y), atol=1e-5, rtol=0)


def test_grey_network_gives_its_own_result_for_a_grey_picture() -> None:
    generator = make({"arch": "rrdbnet", "scale": 2, "num_in_ch": 1, "num_out_ch": 1, "num_feat": 4, "num_block": 1})
    grey = picture(8, 8, channels=1)
    expected = generator.enlarge(grey).expand(1, 3, 16, 16)
    torch.testing.assert_close(generator(grey.expand(1, 3, 8, 8)), expected, atol=1e-5, rtol=0)


def test_network_of_four_channels_takes_alpha_or_an_opaque_picture() -> None:
    generator = make({"arch": "rrdbnet", "scale": 4, "num_in_ch": 4, "num_out_ch": 4, "num_feat": 4, "num_block": 1})
    rgba = picture(8, 8, channels=4)
    assert generator(rgba).shape == (1, 4, 32, 32)
    rgba[:, 3] = 1
    torch.testing.assert_close(generator(rgba[:, :3]), generator(rgba)[:, :3])


def test_refiner_runs_at_any_scale_with_the_same_weights() -> None:
    generator = make({"arch": "srcnn", "num_feat": 4, "num_map": 3})
    tripled = generator.at_scale(3)
    assert tripled(picture(6, 7)).shape == (1, 3, 18, 21)
    assert tripled.get_parameter("conv1.weight") is generator.get_parameter("conv1.weight")
    assert generator(picture(6, 7)).shape == (1, 3, 24, 28)


@pytest.mark.parametrize("norm", [False, True])
def test_folded_span_is_the_fused_form_of_the_same_network(norm: bool) -> None:
    generator = make({"arch": "span", "scale": 2, "num_feat": 6, "norm": norm})
    folded = generator.folded()
    assert network_of(folded) == {**network_of(generator), "fused": True}
    torch.testing.assert_close(folded(picture(8, 9)), generator(picture(8, 9)), atol=1e-4, rtol=1e-4)
    assert folded.folded() is folded


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("activation", ["prelu", "relu"])
def test_compact_starts_with_lr_in_its_features_and_interpolates_it(scale: int, activation: str) -> None:
    torch.manual_seed(0)
    generator = build({"arch": "compact", "scale": scale, "num_conv": 4, "activation": activation}, "test")
    generator.initialise()
    last = [layer for layer in generator.modules() if isinstance(layer, torch.nn.Conv2d)][-1]
    last.weight.data[:, 3:] = 0  # what the others add is noise
    lr = torch.rand(1, 3, 9, 8)
    linear = torch.nn.functional.interpolate(lr, scale_factor=scale, mode="bilinear")
    with torch.inference_mode():
        sr = generator(lr)
    inside = (..., slice(scale, -scale), slice(scale, -scale))
    torch.testing.assert_close(sr[inside], linear[inside])
    layers = [name for name, layer in generator.named_modules() if isinstance(layer, torch.nn.Conv2d)]
    assert generator.passing() == dict.fromkeys(layers[:-1], 3)
    generator.get_parameter(f"{layers[2]}.weight").data[1, 7, 0, 0] = 1e-3
    assert not generator.passing()


def test_features_that_hold_lr_tell_all_its_levels_in_bf16() -> None:
    generator = make({"arch": "compact", "num_conv": 4})
    generator.initialise()
    *_, middle, last = [layer for layer in generator.modules() if isinstance(layer, torch.nn.Conv2d)]
    last.weight.data[:, 3:] = 0
    lr = (torch.arange(768.0) % 256 / 255).view(1, 3, 16, 16)
    with torch.inference_mode():
        exact = generator(lr)
        seen = middle.weight[3:, :3].clone()
        generator.to_precision(torch.bfloat16)
        torch.testing.assert_close(generator(lr), exact, rtol=0, atol=1e-5)
        generator.to_precision(torch.bfloat16)  # is so already
        torch.testing.assert_close(generator(lr), exact, rtol=0, atol=1e-5)
    torch.testing.assert_close(middle.weight[3:, :3].float(), seen * 256 / 255, rtol=0.005, atol=1e-6)


def streaming() -> list[dict[str, Any]]:
    """Return random small networks that take rows, of every architecture that does."""
    configs = [draw(arch, seed) for arch in TRAINED for seed in range(12)]
    configs = [config for config in configs if config.get("scale") != 16 and build(config, "test").streams]
    return [config for arch in TRAINED for config in [c for c in configs if c["arch"] == arch][:4]]


def test_these_architectures_take_rows() -> None:
    assert {config["arch"] for config in streaming()} == {"compact", "edsr", "rrdbnet", "span", "srgan", "srresnet"}


@pytest.mark.parametrize(
    "config", [*streaming(), {"arch": "rrdbnet", "num_feat": 8, "num_grow_ch": 4, "num_block": 3}], ids=str
)
@pytest.mark.parametrize("parts", [[100], [1] * 100, [22, 78], [1, 99], [5, 7, 88], [19, 3, 78], [12] * 9, [40] * 3])
def test_rows_one_after_the_other_give_what_the_whole_picture_gives(config: dict[str, Any], parts: list[int]) -> None:
    generator = make(config)
    for parameter in generator.parameters():
        if parameter.ndim == 4:
            parameter.data.normal_(0, 0.7 / parameter[0].numel() ** 0.5)
    m = generator.multiple_of
    for height in (23 * m, m, 6 * m):
        picture = torch.rand(2, 3, height, 2 * m)
        torch.testing.assert_close(by_rows(generator, picture, parts), generator.enlarge(picture), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parts", [[100], [1] * 100, [19, 3, 78], [12] * 9])
def test_rows_in_bf16_are_those_of_float32_but_for_rounding(parts: list[int]) -> None:
    generator = make({"arch": "rrdbnet", "num_block": 1})  # as large as is common: small ones lie otherwise in memory
    for parameter in generator.body.parameters():  # type: ignore[union-attr]
        if parameter.ndim == 4:
            parameter.data.normal_(0, 0.7 / parameter[0].numel() ** 0.5)
    picture = torch.rand(1, 3, 23, 7)
    exact = generator.enlarge(picture)
    generator.to_precision(torch.bfloat16)
    off = by_rows(generator, picture, parts) - exact
    assert off.abs().max() < 0.05 * exact.std()


def test_sums_around_dense_blocks_stay_float32_in_bf16() -> None:
    generator = make({"arch": "rrdbnet", "num_block": 1})
    (block,) = generator.recurring()
    for parameter in block.parameters():
        parameter.data.zero_()  # dense blocks add nothing
    generator.to_precision(torch.bfloat16)
    given: list[torch.dtype] = []
    block.register_forward_pre_hook(lambda _block, x: given.append(x[0].dtype))
    generator(torch.rand(1, 3, 9, 7))
    assert given == [torch.float32]
    x = torch.rand(1, 64, 23, 7)
    sums = x + 0.2 * x.bfloat16().float()
    assert torch.equal(block(x), sums)
    memory = torch.empty(192 * (23 + 15 + 6) * 7, dtype=torch.bfloat16)
    assert torch.equal(block.rows(x, Part(0, 23 + 15, 23), Rows(), memory), sums)  # type: ignore[operator]


def by_rows(generator: Generator, picture: torch.Tensor, parts: list[int]) -> torch.Tensor:
    """Return what ``generator`` makes of ``picture``, so many rows after so many."""
    m, height = generator.multiple_of, picture.shape[2]
    rows, bands, start = Rows(), [], 0
    for part in itertools.accumulate(parts):
        stop = min(part * m, height + generator.lag)
        if start < stop:
            bands.append(generator.enlarge_rows(picture[:, :, start:stop], Part(start, stop, height), rows))
            rows.gather()
        start = stop
    return torch.cat(bands, 2)
