"""Networks that PyTorch's compiler makes: the same results, and only where they come sooner."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter

from tests.conftest import network, picture
from upscale import compiling, engine
from upscale.cli import main
from upscale.compiling import Trial, tried
from upscale.engine import Upscaler
from upscale.images import Image, read_image, write_image
from upscale.models import Chain, Compiled, Generator
from upscale.options import Precision, Tiling

CPU = torch.device("cpu")
FAST, SLOW = Trial(2.0, 1.0), Trial(1.0, 2.0)
NETWORKS = (
    {"arch": "compact", "num_feat": 8, "num_conv": 2, "scale": 2},
    {"arch": "rrdbnet", "num_feat": 8, "num_block": 1, "num_grow_ch": 4, "scale": 2},
)
IMAGE = Image(pixels=picture(150, 90))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where choices are kept; networks are traced, but not turned into machine code."""
    file = tmp_path / "cache" / "compiled.json"
    monkeypatch.setattr(compiling, "_file", lambda: file)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    return file


def upscaler(
    generator: Generator, say: Callable[[str], None] | None, precision: Precision = Precision.FP32
) -> Upscaler:
    return Upscaler([generator], CPU, precision, Tiling(size=256), on_compile=say)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
@pytest.mark.parametrize("config", NETWORKS, ids=lambda config: str(config["arch"]))
def test_a_compiled_network_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], precision: Precision
) -> None:
    generator = network(**config)
    monkeypatch.setattr(engine, "tried", lambda *_, **__: FAST)
    compiled = upscaler(generator, lambda text: None, precision)
    one, other = (one.upscale(IMAGE, 2).image.pixels for one in (compiled, upscaler(generator, None, precision)))
    assert isinstance(compiled._networks[2].generator, Compiled)
    assert np.abs(one.astype(int) - other).max() <= (0 if precision is Precision.FP32 else 1)


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler of C++")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", NETWORKS, ids=lambda config: str(config["arch"]))
def test_machine_code_gives_the_same(monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]) -> None:
    monkeypatch.undo()
    generator = network(**config)
    compiled = Compiled(generator)
    with torch.inference_mode():
        for height, width in ((24, 12), (16, 16), (8, 30)):
            lr = torch.rand(1, 3, height, width)
            torch.testing.assert_close(compiled(lr), generator(lr), atol=1e-5, rtol=0)


def test_of_equal_blocks_one_is_compiled_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    made = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=made))
    generator = network(**{**NETWORKS[1], "num_block": 5})
    compiled = Compiled(generator)
    with torch.inference_mode():
        for edge in (12, 16):
            lr = torch.rand(1, 3, edge, 24)
            torch.testing.assert_close(compiled(lr), generator(lr), atol=1e-5, rtol=0)
    assert made.frame_count == 1


def test_the_faster_one_is_taken_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for trial, kind in ((FAST, Compiled), (SLOW, type(network(**NETWORKS[0])))):
        said: list[str] = []
        monkeypatch.setattr(engine, "tried", lambda *_, trial=trial, **__: trial)
        chosen = upscaler(network(**NETWORKS[0]), said.append)
        chosen.upscale(IMAGE)
        assert isinstance(chosen._networks[2].generator, kind)
        assert said == [f"x2: {trial}"]
    assert str(FAST) == "compiled, 2.00 times as fast"
    assert str(SLOW) == "not compiled, it would be 0.50 times as fast"
    assert str(Trial(1.05, 1.0)) == "not compiled, it would be 1.05 times as fast"
    assert str(Trial(1.2, 1.0)) == "compiled, 1.20 times as fast"


def test_both_are_timed_once_and_the_choice_is_remembered(cache: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        upscaler(network(**NETWORKS[0]), said.append).upscale(IMAGE)
    assert [text.split(":")[1][:8] for text in said] == [" trying ", *[said[1].split(":")[1][:8]] * 2]
    (trial,) = json.loads(cache.read_text(encoding="utf-8")).values()
    assert trial["plain"] > 0
    assert trial["compiled"] > 0
    upscaler(network(**NETWORKS[0]), said.append, Precision.BF16).upscale(IMAGE)  # another question
    assert len(json.loads(cache.read_text(encoding="utf-8"))) == 2


def test_a_trial_that_runs_out_of_memory_leaves_tiles_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = upscaler(network(**NETWORKS[0]), lambda text: None)

    def time_both(*_: Any, **__: Any) -> Trial:
        chosen.tiling = Tiling(size=128)
        return SLOW

    monkeypatch.setattr(engine, "tried", time_both)
    assert not chosen.upscale(IMAGE).shrunk
    assert chosen.tiling == Tiling(size=256)


def test_a_compiler_that_fails_is_told_of_keeps_nobody_and_is_tried_again(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise RuntimeError("no C++ compiler found\nmore of it")

    monkeypatch.setattr(torch, "compile", missing)
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "a.png", Image(pixels=picture(12, 10)))
    for more in ([], ["--quiet"]):
        with pytest.raises(SystemExit) as caught:
            main(["a.png", "-x", "2", "--compile", "--tile", "64", "--force", *more])
        streams = capsys.readouterr()
        assert not caught.value.code
        assert ("note: x2: not compiled: no C++ compiler found\n" in streams.err) == (not more)
    assert read_image(tmp_path / "a_x2.png").pixels.shape == (24, 20, 3)
    assert not cache.exists()


def test_a_compiler_that_has_gone_since_is_told_of_and_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise RuntimeError("no C++ compiler any more")

    monkeypatch.setattr(compiling, "LEAST_GAIN", 0)  # so that it pays
    said: list[str] = []
    for compiler in (torch.compile, gone):
        monkeypatch.setattr(torch, "compile", compiler)
        assert upscaler(network(**NETWORKS[0]), said.append).upscale(IMAGE).image.pixels.any()
    assert said[1].startswith("x2: compiled")
    assert said[2:] == ["x2: not compiled: no C++ compiler any more"]


@pytest.mark.parametrize("text", ["", "[]", '{"%s": 3}', '{"%s": {"plain": 1}}'])
def test_a_damaged_memory_is_none(cache: Path, text: str) -> None:
    key = compiling._key(network(**NETWORKS[0]), CPU, Precision.FP32, 64)
    cache.parent.mkdir()
    cache.write_text(text.replace('"%s"', json.dumps(key)), encoding="utf-8")
    timed: list[float] = []

    def time_of(seconds: float, runs: int) -> float:
        timed.append(seconds * bool(runs))
        return seconds

    def asked() -> Trial:
        generator, plain, compiled = network(**NETWORKS[0]), partial(time_of, 3.0), partial(time_of, 2.0)
        return tried(generator, CPU, Precision.FP32, 64, plain=plain, compiled=compiled, say=lambda text: None)

    assert asked() == asked() == Trial(3.0, 2.0)
    assert timed == [3.0, 2.0, 0.0]  # the compiler is asked whether it is still there
    shutil.rmtree(cache.parent)
    cache.parent.touch()  # where nothing can be kept
    assert asked() == Trial(3.0, 2.0)


@pytest.mark.parametrize(
    "parts", [[{"arch": "bicubic", "scale": 2}], [{"arch": "srcnn"}], [NETWORKS[0], {"arch": "espcn"}]]
)
def test_what_interpolates_is_not_compiled(parts: list[dict[str, Any]]) -> None:
    said: list[str] = []
    networks = [network(**part) for part in parts]
    upscaler(Chain(networks) if networks[1:] else networks[0], said.append).upscale(Image(pixels=picture(9, 8)), 2)
    assert said == []
