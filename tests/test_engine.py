from __future__ import annotations

import math
import platform
import random
import subprocess
import sys
import textwrap
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import network, picture
from upscale import engine
from upscale.device import is_out_of_memory
from upscale.engine import Upscaler
from upscale.errors import InputError, NonFiniteOutput, OutOfMemory
from upscale.images import Image, Pixels
from upscale.imaging import bleed, resize, to_array, to_tensor
from upscale.inference import Column, Network
from upscale.models import Generator
from upscale.models.base import run
from upscale.models.classical import Bicubic
from upscale.models.rows import Rows
from upscale.options import Measure, Precision, Target, Tiling

CPU = torch.device("cpu")
COMPACT = {"arch": "compact", "num_feat": 8, "num_conv": 4, "scale": 2}
SRRESNET = {"arch": "srresnet", "num_feat": 8, "num_block": 16, "scale": 4}
SPAN = {"arch": "span", "num_feat": 8, "scale": 4}  # takes no rows
RRDBNET = {"arch": "rrdbnet", "num_feat": 8, "num_block": 1, "num_grow_ch": 4}


def upscaler(*generators: Generator, precision: Precision = Precision.FP32, **tiling: int) -> Upscaler:
    return Upscaler(generators, CPU, precision, Tiling(**tiling))


def strong(**config: Any) -> Generator:
    """A network whose output really depends on all of its receptive field: large random weights."""
    generator = network(**config)
    gain = 1.4 if config["arch"] == "compact" else 0.7  # what keeps the output near [0, 1]
    for parameter in generator.parameters():
        if parameter.ndim == 4:
            parameter.data.normal_(0, gain / parameter[0].numel() ** 0.5)
    return generator


def enlarged(generator: Generator, pixels: Pixels) -> Tensor:
    """Return the result of all of ``pixels`` at once, mirrored at the frame."""
    margin = generator.margin
    around = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), "symmetric")
    inside = slice(generator.scale * margin, -generator.scale * margin)
    with torch.inference_mode():
        sr: Tensor = generator(to_tensor(around)[None])[0, :, inside, inside]
    return sr.clamp(0, 1)


def untiled(generator: Generator, image: Image) -> Image:
    return Image(pixels=to_array(enlarged(generator, image.pixels), image.pixels.dtype))


def levels(a: Image, b: Image) -> int:
    return int(np.abs(a.pixels.astype(int) - b.pixels.astype(int)).max())


@pytest.mark.parametrize("config", [COMPACT, {**COMPACT, "num_conv": 16, "scale": 4}, SRRESNET, SPAN])
def test_tiled_equals_untiled_at_every_tile_and_image_size(config: dict[str, Any]) -> None:
    generator = strong(**config)
    rng = random.Random(1)
    for _ in range(6):
        image = Image(pixels=picture(rng.randint(1, 200), rng.randint(1, 200), rng.randint(0, 99)))
        whole = untiled(generator, image)
        for size in (256, rng.randint(64, 160)):
            assert levels(whole, upscaler(generator, size=size).upscale(image).image) <= 1


def test_columns_of_a_network_that_takes_rows_fade_like_tiles() -> None:
    generator = strong(**COMPACT)
    image = Image(pixels=picture(90, 700))
    whole = untiled(generator, image)
    generator.radius *= 3
    faded = upscaler(generator, size=64, overlap=24).upscale(image)
    assert faded.tiles > 12
    assert levels(whole, faded.image) <= 1


def test_tiles_lower_than_the_network_sees() -> None:
    generator = strong(**{**COMPACT, "num_conv": 16})
    image = Image(pixels=picture(42, 492))
    whole = untiled(generator, image)
    tiled = upscaler(generator, size=64).upscale(image)
    assert tiled.tiles == 6
    assert levels(whole, tiled.image) <= 1


@pytest.mark.parametrize(("config", "tiles"), [(COMPACT, 4), (SPAN, 7)])
def test_a_wide_picture_is_done_in_lower_tiles(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], tiles: int
) -> None:
    image = Image(pixels=picture(292, 192))
    generator = strong(**config)
    usual = upscaler(generator, size=384).upscale(image)
    monkeypatch.setattr(engine, "STRIP", 3 * 4 * generator.scale**2 * 200 * 80)
    low = upscaler(generator, size=384).upscale(image)
    assert (usual.tiles, low.tiles) == (1, tiles)
    assert levels(usual.image, low.image) <= 1


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_faded_tiles_equal_untiled_when_the_overlap_covers_what_the_network_sees(scale: int) -> None:
    generator = strong(**RRDBNET, scale=scale)
    generator.radius = {4: 20, 2: 41, 1: 83}[scale]
    image = Image(pixels=picture(150, 170))
    whole = upscaler(generator, size=512).upscale(image)
    tiled = upscaler(generator, size=384, overlap=2).upscale(image)
    assert tiled.tiles == 1
    faded = upscaler(generator, size=128, overlap=64).upscale(Image(pixels=image.pixels))
    assert faded.tiles > 1
    assert levels(whole.image, faded.image) <= 1


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (5, 70), (67, 33)])
def test_networks_see_the_image_mirrored_around_it_on_their_own_grid(scale: int, size: tuple[int, int]) -> None:
    generator = strong(**RRDBNET, scale=scale)
    image = Image(pixels=picture(*size))
    m, (h, w) = generator.multiple_of, size
    around = np.pad(image.pixels, ((4, 4 + -h % m), (4, 4 + -w % m), (0, 0)), "symmetric")
    with torch.inference_mode():
        sr = generator(to_tensor(around)[None])[0, :, 4 * scale : (4 + h) * scale, 4 * scale : (4 + w) * scale]
    assert levels(Image(pixels=to_array(sr, image.pixels.dtype)), upscaler(generator).upscale(image).image) <= 1


def test_constant_in_constant_out() -> None:
    generator = Bicubic(Bicubic.Config(scale=3))
    for overlap in (0, 7, 32):
        image = Image(pixels=np.full((150, 131, 3), 77, np.uint8))
        result = upscaler(generator, size=64, overlap=overlap).upscale(image)
        assert np.unique(result.image.pixels).tolist() == [77]


def test_of_networks_for_one_scale_and_for_any_the_latter_makes_what_the_former_cannot() -> None:
    image, any_scale = Image(pixels=picture(8, 10)), Bicubic(Bicubic.Config(scale=2))
    mixed = upscaler(network(arch="compact", num_feat=4, num_conv=1), any_scale)
    expected = upscaler(any_scale).upscale(image, 3).image.pixels
    np.testing.assert_array_equal(mixed.upscale(image, 3).image.pixels, expected)


def test_bicubic_network_equals_resize_of_the_whole() -> None:
    pixels = picture(90, 140)
    result = upscaler(Bicubic(Bicubic.Config()), size=64).upscale(Image(pixels=pixels), Target(Fraction(3)))
    expected = to_array(resize(to_tensor(pixels), 270, 420), np.dtype(np.uint8))
    assert np.abs(result.image.pixels.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("scales", "target", "passes"),
    [
        ((2, 4), "2", [2]),
        ((2, 4), "3", [4]),
        ((2, 4), "2.5", [4]),
        ((2, 4), "8", [4, 2]),
        ((2, 4), "32", [4, 4, 2]),
        ((4,), "8", [4, 4]),
        ((2,), "32", [2] * 5),
        ((2, 4), "1", [2]),
        ((2, 4), "1.5", [2]),
    ],
)
def test_passes_reach_the_target_with_the_least_work(scales: tuple[int, ...], target: str, passes: list[int]) -> None:
    generators = [network(**{**COMPACT, "scale": scale}) for scale in scales]
    assert upscaler(*generators)._plan(Target.parse(target).value) == passes


@pytest.mark.parametrize("target", ["1", "1.5", "2.5", "3", "8", "7/3"])
def test_any_factor_gives_the_right_size(target: str) -> None:
    generators = [network(**{**COMPACT, "scale": scale}) for scale in (2, 4)]
    image = Image(pixels=picture(31, 18), alpha=np.full((31, 18), 200, np.uint8))
    result = upscaler(*generators).upscale(image, Target.parse(target)).image
    factor = Target.parse(target).value
    assert abs(result.pixels.shape[0] - 31 * factor) <= Fraction(1, 2)
    assert abs(result.pixels.shape[1] - 18 * factor) <= Fraction(1, 2)
    assert result.alpha is not None
    assert result.alpha.shape == result.pixels.shape[:2]
    assert np.unique(result.alpha).tolist() == [200]


def test_a_factor_may_be_a_number() -> None:
    bicubic, image = upscaler(Bicubic(Bicubic.Config())), Image(pixels=picture(8, 10))
    assert bicubic.upscale(image, 2.5).image.pixels.shape == (20, 25, 3)
    with pytest.raises(ValueError, match="99 is not between 1 and 32"):
        bicubic.upscale(image, 99)
    with pytest.raises(InputError, match="no pixels"):
        bicubic.upscale(Image(pixels=image.pixels[:0]), 2)


def test_a_factor_is_reached_in_values_and_a_width_by_light() -> None:
    generator = network(**{**COMPACT, "scale": 4})
    pixels = picture(70, 90)
    sr = enlarged(generator, pixels)
    light = torch.where(sr <= 0.04045, sr / 12.92, ((sr + 0.055) / 1.055) ** 2.4)
    light = resize(light, 175, 225).clamp(0, 1)
    by_light = torch.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    for target, values in (
        (Target.parse("2.5"), resize(sr, 175, 225)),
        (Target.parse("225", Measure.WIDTH), by_light),
    ):
        result = upscaler(generator).upscale(Image(pixels=pixels), target).image.pixels
        assert np.abs(result.astype(int) - to_array(values, np.dtype(np.uint8))).max() <= 1


def test_a_network_that_keeps_the_size_cannot_enlarge() -> None:
    with pytest.raises(InputError, match="keeps the size"):
        upscaler(network(**RRDBNET, scale=1)).upscale(Image(pixels=picture(8, 8)), Target.parse("2"))


class FailsAt:
    """Makes tiles fail for want of memory at some calls, or above some size; rows, when some layers have had them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, calls: tuple[int, ...] = (), largest: int = 10**9) -> None:
        self.calls = 0
        run, enlarge, gather = Network.run, Column._enlarge, Rows.gather
        failing = False

        def fails(size: float) -> bool:
            self.calls += 1
            return self.calls in calls or size > largest

        def failing_run(network: Network, tile: Pixels, progress: Any) -> Tensor:
            if fails(max(tile.shape[:2])):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return run(network, tile, progress)

        def failing_enlarge(column: Column, start: int, stop: int) -> Tensor | None:
            nonlocal failing
            failing = fails(math.sqrt((stop - start) * column.width))
            return enlarge(column, start, stop)

        def failing_gather(rows: Rows) -> None:
            if failing:
                raise torch.OutOfMemoryError("CUDA out of memory")
            gather(rows)

        monkeypatch.setattr(Network, "run", failing_run)
        monkeypatch.setattr(Column, "_enlarge", failing_enlarge)
        monkeypatch.setattr(Rows, "gather", failing_gather)


@pytest.mark.parametrize(("config", "height", "tiles"), [(COMPACT, 400, 4), (RRDBNET, 400, 4), (SPAN, 150, 4)])
@pytest.mark.parametrize("call", [1, 2, 4])
def test_out_of_memory_on_any_tile_gives_the_same_pixels(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], height: int, tiles: int, call: int
) -> None:
    generator = network(**config)
    image = Image(pixels=picture(height, 140))
    expected = upscaler(generator, size=128).upscale(image)
    assert expected.tiles == tiles
    FailsAt(monkeypatch, (call,))
    limited = upscaler(generator, size=128)
    result = limited.upscale(image)
    # Kernels sum in another order for another tile, which now and then turns x.4999 into x.5.
    assert levels(expected.image, result.image) <= 1
    assert np.mean(expected.image.pixels != result.image.pixels) < 1e-4
    assert limited.tiling.size == 64
    assert 64 <= result.tile_size < 128


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9553920 bytes"),
        RuntimeError("could not create a primitive"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=repr,
)
def test_what_says_that_memory_ran_out_is_understood(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.parametrize("config", [COMPACT, RRDBNET, SPAN])
def test_out_of_memory_halves_until_it_fits(monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]) -> None:
    generator = strong(**config)
    image = Image(pixels=picture(300, 200))
    expected = upscaler(generator, size=512).upscale(image)
    FailsAt(monkeypatch, largest=80)
    told: list[tuple[int, int]] = []
    result = upscaler(generator, size=512).upscale(image, on_tile=lambda *tile: told.append(tile))
    assert levels(expected.image, result.image) <= 1
    assert result.tile_size <= 80
    assert (expected.shrunk, result.shrunk) == (False, True)
    assert all(done <= total for done, total in told)


@pytest.mark.parametrize("config", [COMPACT, RRDBNET, SPAN])
def test_out_of_memory_at_the_smallest_tile_is_an_error(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]
) -> None:
    FailsAt(monkeypatch, largest=8)
    with pytest.raises(OutOfMemory, match="not enough memory") as caught:
        upscaler(network(**config)).upscale(Image(pixels=picture(300, 200)))
    assert caught.value.hint == "close other programs"  # the CPU is in use already


class Overflows(Bicubic):
    """Bicubic enlargement with a weight that half precision cannot hold."""

    edges = ()

    def __init__(self) -> None:
        super().__init__(Bicubic.Config(scale=2))
        self.layer = torch.nn.Conv2d(3, 3, 1)
        self.layer.weight.data.copy_(torch.eye(3)[:, :, None, None] * 1e5)
        self.layer.bias.data.zero_()  # type: ignore[union-attr]

    def forward(self, lr: Tensor) -> Tensor:
        return super().forward(run(self.layer, lr).float() / 1e5)


def test_a_tile_that_overflows_in_half_precision_is_done_in_float32() -> None:
    image = Image(pixels=picture(100, 60))
    generator = Overflows()
    generator.any_scale = False
    expected = upscaler(generator).upscale(image)
    result = upscaler(generator, precision=Precision.FP16, size=64).upscale(image)
    assert levels(expected.image, result.image) == 0
    assert result.float32_tiles == result.tiles > 1
    assert expected.float32_tiles == 0


@pytest.mark.parametrize(
    ("config", "gains"),
    [
        (COMPACT, {"body.0": 300, "body.2": 3000, "body.4": 1 / 300, "body.10": 1 / 3000}),
        (RRDBNET, {"conv_first": 5e4, "conv_last": 1 / 5e4}),
    ],
)
def test_rows_that_overflow_in_half_precision_are_done_in_float32(
    config: dict[str, Any], gains: dict[str, float]
) -> None:
    generator = network(**config)
    for name, parameter in generator.named_parameters():
        parameter.data.mul_(gains.get(name.removesuffix(".weight"), 0 if name.endswith("bias") else 1))
    image = Image(pixels=np.concatenate((picture(200, 90) // 64, picture(60, 90), picture(60, 90) // 64)))
    expected = upscaler(generator).upscale(image)
    result = upscaler(generator, precision=Precision.FP16, size=64).upscale(image)
    assert levels(expected.image, result.image) <= 1
    assert 0 < result.float32_tiles < result.tiles


def test_a_network_that_is_never_finite_is_an_error() -> None:
    generator = network(**COMPACT)
    next(generator.parameters()).data.fill_(torch.nan)
    with pytest.raises(NonFiniteOutput, match="not finite"):
        upscaler(generator).upscale(Image(pixels=picture(8, 8)))


@pytest.mark.parametrize(("config", "decibels"), [(COMPACT, 50), (SRRESNET, 50), (RRDBNET, 40)])
def test_bf16_is_close_to_float32(config: dict[str, Any], decibels: int) -> None:
    generator = network(**config)
    image = Image(pixels=picture(24, 24))
    full = upscaler(generator).upscale(image).image.pixels.astype(float)
    half = upscaler(generator, precision=Precision.BF16).upscale(image).image.pixels.astype(float)
    mse = float(((full - half) ** 2).mean())
    assert mse < 255**2 / 10 ** (decibels / 10)


def test_edges_of_a_half_precision_network_stay_float32() -> None:
    generator = network(**COMPACT)
    before = {name: parameter.clone() for name, parameter in generator.named_parameters() if name.endswith("weight")}
    generator.to_precision(torch.float16)
    after = [generator.get_parameter(name) for name in before]
    assert torch.float16 in [weight.dtype for weight in after[2:-1]]
    for place in (0, -1):  # not rounded and cast back
        assert torch.equal(after[place], list(before.values())[place])


def test_a_grey_picture_stays_grey() -> None:
    grey = np.repeat(picture(40, 40)[..., :1], 3, 2)
    generator = strong(**COMPACT)
    result = upscaler(generator).upscale(Image(pixels=grey, grayscale=True)).image.pixels
    assert np.array_equal(result[..., 0], result[..., 1])
    assert np.array_equal(result[..., 0], result[..., 2])


def test_depth_is_the_dtype() -> None:
    deep = picture(20, 20).astype(np.uint16)  # dark: every value below 256
    result = upscaler(Bicubic(Bicubic.Config(scale=2))).upscale(Image(pixels=deep)).image.pixels
    assert result.dtype == np.uint16
    assert abs(float(result.mean()) - float(deep.mean())) < 1


class Doubled(Bicubic):
    """A network that raises contrast, by more than alpha can hold."""

    def enlarge(self, x: torch.Tensor) -> torch.Tensor:
        return (super().enlarge(x) - 0.5) * 2 + 0.5


def test_no_dark_fringe_around_a_transparent_shape() -> None:
    y, x = np.mgrid[-20:20, -20:20]
    inside = x**2 + y**2 < 150
    pixels = np.where(inside[..., None], np.uint8([200, 180, 90]), np.uint8(0)).astype(np.uint8)  # type: ignore[arg-type]
    image = Image(pixels=pixels, alpha=np.where(inside, 255, 0).astype(np.uint8))
    result = upscaler(Bicubic(Bicubic.Config())).upscale(image, Target.parse("4")).image
    assert result.alpha is not None
    visible = result.pixels[result.alpha > 8].astype(int)
    assert np.abs(visible - [200, 180, 90]).max() <= 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("target", ["4", "2.5", "90x70"])
def test_the_shape_of_a_logo_goes_through_the_network(target: str, dtype: type) -> None:
    calls: list[tuple[int, int]] = []
    levels = np.iinfo(dtype).max
    y, x = np.mgrid[-5.5:6.5, -6.5:7.5]
    soft = np.rint(levels * np.clip(3.2 - np.hypot(x, y), 0, 1)).astype(dtype)
    image = Image(pixels=np.full((*soft.shape, 3), 7, dtype), alpha=soft)
    measure = Measure.FIT if "x" in target else Measure.SCALE
    networks = Doubled(Doubled.Config(scale=4))
    result = upscaler(networks).upscale(image, Target.parse(target, measure), lambda *call: calls.append(call)).image
    assert result.alpha is not None
    assert result.alpha.shape == result.pixels.shape[:2]
    assert result.alpha.dtype == dtype
    assert (result.alpha[[0, -1]] == 0).all(), "what is transparent stays so"
    middle = result.alpha[result.alpha.shape[0] // 2, result.alpha.shape[1] // 2]
    assert middle == levels, "and what is opaque"
    interpolated = upscaler(Bicubic(Bicubic.Config(scale=4))).upscale(image, Target.parse(target, measure)).image.alpha
    assert interpolated is not None
    assert np.abs(result.alpha.astype(int) - interpolated).max() > 0.02 * levels, "the network's, not interpolation"
    assert calls[-1] == (2, 2)


def test_an_image_is_asked_for_in_words() -> None:
    with pytest.raises(TypeError, match=r"ndarray: upscale\.Image\(pixels=ARRAY\)"):
        upscaler(Bicubic(Bicubic.Config())).upscale(picture(4, 4))  # type: ignore[arg-type]


def test_progress_counts_every_tile() -> None:
    calls: list[tuple[int, int]] = []
    generators = [network(**{**COMPACT, "scale": scale}) for scale in (2, 4)]
    image = Image(pixels=picture(100, 70))
    scaler = upscaler(*generators, size=64)
    result = scaler.upscale(image, Target.parse("8"), lambda done, total: calls.append((done, total)))
    assert calls == [(i + 1, result.tiles) for i in range(result.tiles)]


def test_alpha_is_no_light() -> None:
    image = Image(pixels=picture(40, 50), alpha=picture(40, 50, 1)[..., 0].copy())
    by_factor, by_width = (
        upscaler(Bicubic(Bicubic.Config())).upscale(image, target).image.alpha
        for target in (Target.parse("1.8"), Target.parse("90", Measure.WIDTH))
    )
    assert by_factor is not None
    assert by_width is not None
    np.testing.assert_array_equal(by_width, by_factor)


def test_a_faithful_result_has_no_dark_fringe() -> None:
    y, x = np.mgrid[-20:20, -20:20]
    inside = x**2 + y**2 < 150
    pixels = np.where(inside[..., None], (200, 180, 90), 0).astype(np.uint8)
    image = Image(pixels=pixels, alpha=np.where(inside, 255, 0).astype(np.uint8))
    faithful = Upscaler([Bicubic(Bicubic.Config())], CPU, Precision.FP32, Tiling(), faithful=True)
    result = faithful.upscale(image, Target.parse("4")).image
    assert result.alpha is not None
    assert np.abs(result.pixels[result.alpha > 8].astype(int) - (200, 180, 90)).max() <= 2


def test_a_large_overlap_alone_makes_tiles_that_hold_it() -> None:
    generator = network(**SPAN)
    usual = upscaler(generator)._geometry(generator)[0]
    assert upscaler(generator, overlap=usual)._geometry(generator)[:2] == (2 * usual, usual)


def test_tiles_of_a_wide_picture_are_not_lower_than_what_they_share(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = strong(**SPAN)
    image = Image(pixels=picture(292, 60))
    usual = upscaler(generator, size=384).upscale(image)
    monkeypatch.setattr(engine, "STRIP", 0)
    low = upscaler(generator, size=384, overlap=100).upscale(image)
    assert 1 < low.tiles < 5
    assert levels(usual.image, low.image) <= 1


@pytest.mark.parametrize("config", [COMPACT, SPAN])
def test_other_errors_are_not_taken_for_too_little_memory(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]
) -> None:
    def fail(*_: Any) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Network, "run", fail)
    monkeypatch.setattr(Column, "push", fail)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        upscaler(network(**config)).upscale(Image(pixels=picture(80, 80)))


@pytest.mark.parametrize("config", [RRDBNET, SPAN])
def test_an_overlap_that_was_asked_for_is_halved_with_the_tiles(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]
) -> None:
    FailsAt(monkeypatch, (1,))
    limited = upscaler(network(**config), size=128, overlap=64)
    result = limited.upscale(Image(pixels=picture(150, 90)))
    assert limited.tiling == Tiling(size=64, overlap=32)
    assert result.shrunk


def test_nothing_is_rounded_to_eight_bits_between_two_passes() -> None:
    generator = Bicubic(Bicubic.Config(scale=2))
    generator.any_scale = False
    ramp = np.linspace(0, 65_535, 60).astype(np.uint16)
    pixels = np.ascontiguousarray(np.broadcast_to(ramp[:, None], (20, 60, 3)))
    result = upscaler(generator).upscale(Image(pixels=pixels), 4).image.pixels
    expected = to_array(resize(resize(to_tensor(pixels), 40, 120).clamp(0, 1), 80, 240), np.dtype(np.uint16))
    assert np.abs(result.astype(int) - expected).max() <= 3


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the memory of glibc")
def test_memory_of_a_large_tensor_serves_the_next_one() -> None:
    """In a process of its own: there is no way back to how glibc was."""
    code = """
        import resource, torch
        from tests.test_engine import COMPACT, network, upscaler
        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            torch.ones(30_000_000)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        upscaler(network(**COMPACT))
        print(sum(faults() for _ in range(12)))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 6 * 29_297  # pages of a tensor; the first few may find no room that is large enough


def test_colours_spread_by_how_visible_they_are() -> None:
    pixels = np.zeros((1, 8, 3), np.uint8)
    pixels[:, :3] = 200
    alpha = np.array([[255, 255, 255, 1, 0, 0, 0, 0]], np.uint8)  # black, where hardly anything is seen
    spread = bleed(pixels, alpha)
    assert spread[0, 4:].min() > 190
    assert (spread[0, :4] == pixels[0, :4]).all()
