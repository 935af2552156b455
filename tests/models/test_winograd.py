"""Compact networks by ncnn, against PyTorch."""

from __future__ import annotations

import errno
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from upscale import inference
from upscale.engine import Upscaler
from upscale.images import Image, Pixels
from upscale.models import Chain, Generator, SelfEnsemble, build, winograd
from upscale.models.rows import Part, Rows
from upscale.models.winograd import WinogradCompact, by_winograd
from upscale.options import Precision, Tiling

pytest.importorskip("ncnn", reason="ncnn is installed on PCs only")


def compact(**config: Any) -> Generator:
    torch.manual_seed(0)
    generator = build({"arch": "compact", "num_conv": 3, **config}, "test").eval().requires_grad_(False)
    for parameter in generator.parameters():
        parameter.normal_(0, 1 / parameter[0].numel() ** 0.5 if parameter.ndim == 4 else 0.2)
    return generator


def by_rows(generator: Generator, picture: torch.Tensor, parts: list[int]) -> torch.Tensor:
    """Give ``picture`` to ``generator`` so many rows at a time."""
    rows, height = Rows(), picture.shape[2]
    edges = [0, *(min(stop, height) for stop in accumulate(parts))]
    return torch.cat(
        [
            generator.enlarge_rows(picture[:, :, start:stop], Part(start, stop, height), rows)
            for start, stop in pairwise(edges)
            if start < stop
        ],
        2,
    )


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("tta", [False, True])
def test_networks_made_of_compact_ones_go_through_ncnn(monkeypatch: pytest.MonkeyPatch, parts: int, tta: bool) -> None:
    chain = Chain([compact(scale=2) for _ in range(parts)])
    network, picture = SelfEnsemble(chain) if tta else chain, torch.rand(1, 3, 30, 21)
    with torch.inference_mode():
        expected = network(picture)
        monkeypatch.setattr(Rows, "conv", lambda *_, **__: pytest.fail("a convolution of PyTorch's"))
        torch.testing.assert_close(by_winograd(network)(picture), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "config",
    [{"scale": 4}, {"scale": 2}, {"activation": "relu"}, {"activation": "leakyrelu"}, {"num_feat": 72}],
    ids=str,
)
@pytest.mark.parametrize("parts", [[100], [1] * 100, [2, 98], [9, 20, 71], [30] * 4, [8, 1, 91]], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (40, 33), (41, 5)], ids=str)
def test_rows_by_ncnn_are_those_of_pytorch(config: dict[str, Any], parts: list[int], size: tuple[int, int]) -> None:
    generator = compact(**config)
    faster = by_winograd(generator)
    assert isinstance(faster, WinogradCompact)
    picture = torch.rand(1, 3, *size)
    with torch.inference_mode():
        torch.testing.assert_close(by_rows(faster, picture, parts), generator(picture), rtol=1e-4, atol=1e-4)


def test_a_large_tile_goes_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    faster, picture = by_winograd(compact()), torch.rand(1, 3, 50, 31)
    parts: list[Part] = []
    enlarge_rows = WinogradCompact.enlarge_rows

    def watched(self: WinogradCompact, x: torch.Tensor, part: Part, rows: Rows) -> torch.Tensor:
        parts.append(part)
        return enlarge_rows(self, x, part, rows)

    with torch.inference_mode():
        whole = faster(picture)
        monkeypatch.setattr(WinogradCompact, "enlarge_rows", watched)
        monkeypatch.setattr(winograd, "STRIP", 15 * 31)
        torch.testing.assert_close(faster(picture), whole, rtol=1e-4, atol=1e-4)
    assert [part.stop for part in parts] == [15, 30, 45, 50]


def test_strips_that_are_high_enough_do_go_through_ncnn(monkeypatch: pytest.MonkeyPatch) -> None:
    faster = by_winograd(compact())
    monkeypatch.setattr(Rows, "conv", lambda *_, **__: pytest.fail("a convolution of PyTorch's"))
    with torch.inference_mode():
        assert by_rows(faster, torch.rand(1, 3, 60, 16), [20, 20, 20]).shape == (1, 3, 240, 64)


@pytest.mark.parametrize(
    "config",
    [{"arch": "compact", "num_feat": 48}, {"arch": "compact", "num_ch": 1}, {"arch": "srresnet", "num_block": 1}],
)
def test_other_networks_stay_as_they_are(config: dict[str, Any]) -> None:
    generator = build(config, "test")
    assert by_winograd(generator) is generator


def upscalers(monkeypatch: pytest.MonkeyPatch, precision: Precision = Precision.FP32) -> list[Upscaler]:
    """Return the same network by ncnn and by PyTorch."""
    made = []
    for pays in (True, False):
        monkeypatch.setattr(inference, "winograd_pays", lambda device, pays=pays: pays)
        upscaler = Upscaler([compact()], torch.device("cpu"), precision, Tiling(size=64))
        upscaler.upscale(Image(pixels=np.zeros((8, 8, 3), np.uint8)))
        made.append(upscaler)
    return made


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pictures_by_ncnn_are_those_of_pytorch_to_a_level(monkeypatch: pytest.MonkeyPatch, dtype: type) -> None:
    faster, usual = upscalers(monkeypatch)
    top = int(np.iinfo(dtype).max)
    pixels: Pixels = np.random.default_rng(0).integers(0, top + 1, (150, 90, 3)).astype(dtype)
    one, other = (upscaler.upscale(Image(pixels=pixels)).image.pixels.astype(int) for upscaler in (faster, usual))
    assert np.abs(one - other).max() <= max(1, top // 2**15)


@pytest.mark.parametrize("full", [False, True])
def test_weights_that_ncnn_cannot_read_are_left_to_pytorch(monkeypatch: pytest.MonkeyPatch, full: bool) -> None:
    generator, picture = compact(), torch.rand(1, 3, 40, 16)
    faster = by_winograd(generator)
    write, folders = Path.write_bytes, []

    def elsewhere(path: Path, data: bytes) -> int:  # as if its name were another to ncnn
        folders.append(path.parent)
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path.with_suffix(".away"), data)

    monkeypatch.setattr(Path, "write_bytes", elsewhere)
    with torch.inference_mode():
        torch.testing.assert_close(by_rows(faster, picture, [25, 15]), generator(picture), rtol=1e-4, atol=1e-4)
    assert len(folders) == 2
    assert not any(folder.exists() for folder in folders)


def test_half_precision_stays_with_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    faster, _ = upscalers(monkeypatch, Precision.BF16)
    assert not any(isinstance(version, WinogradCompact) for version in faster._network(4).versions)


def test_memory_that_ncnn_lacks_makes_tiles_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    faster, usual = upscalers(monkeypatch)
    enlarge, calls = WinogradCompact.enlarge_rows, 0

    def failing(self: WinogradCompact, *arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise MemoryError
        return enlarge(self, *arguments)

    faster.tiling = usual.tiling = Tiling(size=128)
    monkeypatch.setattr(WinogradCompact, "enlarge_rows", failing)
    pixels = np.random.default_rng(0).integers(0, 256, (200, 130, 3), np.uint8)
    result = faster.upscale(Image(pixels=pixels))
    assert (result.shrunk, result.tile_size) == (True, 64)
    expected = usual.upscale(Image(pixels=pixels)).image.pixels
    assert np.abs(result.image.pixels.astype(int) - expected).max() <= 1
