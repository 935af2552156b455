"""``faithful``: results reduce to their source."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import Run, network, picture
from upscale.bench.pairs import faith
from upscale.engine import Upscaler
from upscale.images import Image, read_image, write_image
from upscale.models import Generator
from upscale.options import Measure, Precision, Target, Tiling


def upscaler(*, faithful: bool) -> Upscaler:
    generators: list[Generator] = []
    for scale in (2, 4):
        generators.append(network(arch="compact", scale=scale, num_feat=8, num_conv=2))
        generators[-1].get_submodule("body.6").weight.data.mul_(3)  # type: ignore[operator]
    return Upscaler(generators, torch.device("cpu"), Precision.FP32, Tiling(size=64), faithful=faithful)


@pytest.mark.parametrize("size", ["4", "2.5", "8", "1"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_faithful_result_reduces_to_its_source(size: str, dtype: type[np.unsignedinteger]) -> None:
    pixels = (picture(50, 70).astype(dtype) * (257 if dtype is np.uint16 else 1)).astype(dtype)
    source = Image(pixels=pixels)
    plain, faithful = (upscaler(faithful=on).upscale(source, Target.parse(size)).image for on in (False, True))
    assert faith(plain, source).largest > 3
    assert faith(faithful, source).largest <= 1
    assert faithful.pixels.dtype == dtype


def test_sizes_in_pixels_and_transparent_pictures_are_faithful_too() -> None:
    pixels = picture(40, 60)
    alpha = np.full((40, 60), 255, np.uint8)
    alpha[:, :30] = 0
    shown = np.where(alpha[..., None] > 0, pixels, 0).astype(np.uint8)
    result = upscaler(faithful=True).upscale(Image(pixels=shown, alpha=alpha), Target.parse("200", Measure.WIDTH)).image
    right = Image(pixels=result.pixels[:, 120:]), Image(pixels=shown[:, 36:])  # without the edge of transparency
    assert faith(*right).contrast == pytest.approx(1, abs=0.05)
    assert faith(*right).color_mean < 1


def test_from_the_command_line(upscale_command: Run, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", Image(pixels=picture(48, 64)))
    run = upscale_command(["a.png", "-x", "3", "--faithful"], tmp_path)
    assert run.returncode == 0, run.stderr
    checked = upscale_command(["check", "a_x3.png", "a.png", "--json"], tmp_path)
    assert json.loads(checked.stdout)["largest"] <= 1
    assert read_image(tmp_path / "a_x3.png").pixels.shape == (144, 192, 3)
    # An ordinary result may not pass for a faithful one in a folder's journal.
    assert "faithful" in (tmp_path / "a_x3.png").read_bytes().decode("latin-1")
