"""Sets, rows and means: nothing is left out, and nothing is measured that does not fit."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from upscale.bench import quality
from upscale.bench.published import table
from upscale.bench.quality import Comparison, Row, Summary, quantities, run, summarise
from upscale.bench.sets import CARRIED, ROOT_VARIABLE, Case, DataSet, open_case, open_sets, reduce
from upscale.engine import Upscaled, Upscaler
from upscale.errors import InputError, NonFiniteOutput
from upscale.images import Image, read_image, write_image
from upscale.loading import load
from upscale.metrics import METRICS, PROTOCOLS

SETS = os.environ.get(ROOT_VARIABLE)


def draw(path: Path, height: int = 48, width: int = 64, dtype: type = np.uint8, seed: int = 0) -> None:
    """Write a smooth random picture."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, np.iinfo(dtype).max + 1, (height // 8 + 1, width // 8 + 1, 3))
    large = coarse.repeat(8, 0).repeat(8, 1)[:height, :width]
    write_image(path, Image(pixels=large.astype(dtype)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder ``hr`` with three pictures, one of odd size."""
    hr = tmp_path / "hr"
    hr.mkdir()
    for index, name in enumerate(("a", "b", "c")):
        draw(hr / f"{name}.png", 48 + index, 64, seed=index)
    return hr


def measure(upscalers: Mapping[str, Upscaler], sets: list[DataSet], scale: int) -> tuple[list[Row], list[Summary]]:
    found = run(upscalers, sets, [scale], PROTOCOLS["y"], quantities())
    rows = [row for rows, _ in found for row in rows]
    return rows, summarise(rows, PROTOCOLS["y"])


def test_every_picture_and_network_has_a_row_and_the_mean_is_theirs(folder: Path) -> None:
    rows, (summary, _) = measure(
        {name: load(name) for name in ("bicubic", "lanczos")}, open_sets([str(folder)], None, [2]), 2
    )
    assert [(row.image, row.model) for row in rows] == [(i, m) for i in "abc" for m in ("bicubic", "lanczos")]
    own = [row.values["psnr"] for row in rows if row.model == "bicubic"]
    assert summary.means["psnr"] == pytest.approx(np.mean([value for value in own if value is not None]))
    assert (summary.images, summary.failed, summary.counts["psnr"]) == (3, 0, 3)
    assert all(row.seconds and row.megapixels for row in rows)


def test_metrics_without_weights_say_so_and_stay_empty(folder: Path) -> None:
    rows, (summary,) = measure({"bicubic": load("bicubic")}, open_sets([str(folder)], None, [2]), 2)
    assert rows[0].values["lpips"] is None
    assert rows[0].reasons["lpips"] == "no weights"
    assert summary.means["lpips"] is None
    assert "no weights" in quantities()["lpips"].meaning
    assert "not LPIPS" in quantities()["features"].meaning


def test_a_picture_too_small_for_ssim_keeps_its_psnr_and_takes_the_mean_of_ssim_away(folder: Path) -> None:
    draw(folder / "d.png", 12, 40)
    rows, (summary,) = measure({"bicubic": load("bicubic")}, open_sets([str(folder)], None, [2]), 2)
    assert rows[3].error is None
    assert rows[3].reasons["ssim"] == "36x8 compared pixels are too few for SSIM, which needs 11x11"
    assert summary.counts["ssim"] == 3
    assert summary.means["ssim"] is None
    assert summary.means["psnr"] is not None


def test_what_training_logs_is_the_same_metric_in_the_bench() -> None:
    table = quantities()
    gt, sr = torch.rand(2, 1, 1, 24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen = Comparison(sr=sr, gt=gt, lr=gt, reduced=sr, compared_sr=sr, compared_gt=gt)
    for name, metric in METRICS.items():
        function = table[name].function
        assert function is not None
        assert torch.equal(function(seen), metric.function(sr, gt))
        assert table[name].higher_is_better is metric.higher_is_better


class Broken(Upscaler):
    """Fails on one size, as a network does that overflows."""

    def upscale(self, image: Image, *arguments: object) -> Upscaled:
        if image.pixels.shape[0] == 49 // 2:
            raise NonFiniteOutput("the network gives values that are not finite, even in float32")
        return super().upscale(image, *arguments)  # type: ignore[arg-type]


def test_a_failed_picture_is_a_marked_row_and_there_is_no_mean_over_the_others(folder: Path) -> None:
    draw(folder / "b.png", 80, 64)
    sound = load("bicubic")
    broken = Broken(list(sound.generators.values()), sound.device, sound.precision, sound.tiling)
    rows, (bad, good) = measure({"broken": broken, "bicubic": sound}, open_sets([str(folder)], None, [2]), 2)
    failed = [row for row in rows if row.error]
    assert [(row.image, row.model) for row in failed] == [("a", "broken")]
    assert "not finite" in str(failed[0].error)
    assert (bad.images, bad.failed) == (3, 1)
    assert set(bad.means.values()) == {None}
    assert good.means["psnr"] is not None


def test_a_damaged_picture_is_a_marked_row_for_every_network(folder: Path) -> None:
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:60])
    rows, summaries = measure(
        {name: load(name) for name in ("bicubic", "lanczos")}, open_sets([str(folder)], None, [2]), 2
    )
    assert [row.image for row in rows if row.error] == ["b", "b"]
    assert [summary.means["psnr"] for summary in summaries] == [None, None]


def test_given_lr_pictures_are_used_and_must_be_there_and_fit(folder: Path, tmp_path: Path) -> None:
    lr = tmp_path / "lr"
    (lr / "X2").mkdir(parents=True)
    draw(lr / "X2" / "ax2.png", 24, 32)
    draw(lr / "b.png", 25, 32)
    with pytest.raises(InputError, match=r"no x2 picture for 1 of 3: c\.png"):
        open_sets([str(folder)], lr, [2])
    draw(lr / "c_x2.png", 25, 32)
    (dataset,) = open_sets([str(folder)], lr, [2])
    case = open_case(dataset, folder / "a.png", 2)
    np.testing.assert_array_equal(case.lr.pixels, read_image(lr / "X2" / "ax2.png").pixels)
    with pytest.raises(InputError, match=r"32x25, but x2 of b\.png should be 32x24"):
        open_case(dataset, folder / "b.png", 2)


def test_given_lr_pictures_are_part_of_what_tells_data_apart(folder: Path, tmp_path: Path) -> None:
    lr = tmp_path / "lr"
    lr.mkdir()
    for name in "abc":
        draw(lr / f"{name}.png", 24, 32)
    (made,), (given,) = open_sets([str(folder)], None, [2]), open_sets([str(folder)], lr, [2])
    before = given.digest([2])
    assert before != made.digest([2])
    draw(lr / "b.png", 24, 32, seed=9)
    assert before != given.digest([2])


def test_sets_of_one_name_are_told_apart_by_their_places(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / folder.name
    other.mkdir(parents=True)
    draw(other / "a.png")
    draw(other / "._a.png")  # as macOS leaves beside files on foreign disks
    sets = open_sets([str(folder), str(other)], None, [2])
    assert [dataset.name for dataset in sets] == [str(folder), str(other)]
    assert [path.name for path in sets[1].pictures] == ["a.png"]
    with pytest.raises(InputError, match="is named twice"):
        open_sets([str(other), str(other)], None, [2])


def test_a_picture_that_memory_does_not_take_is_a_marked_row(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(case: Case, *arguments: Any) -> Any:
        if case.name == "b":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return figures(case, *arguments)

    figures = quality.measure
    monkeypatch.setattr(quality, "measure", greedy)
    rows, _ = measure({"bicubic": load("bicubic")}, open_sets([str(folder)], None, [2]), 2)
    assert [row.error for row in rows] == [None, "b: not enough memory for it", None]


def test_memory_is_that_of_the_network_without_the_metrics(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Peak:
        def __init__(self, device: torch.device) -> None:
            asked.append("network")

        def bytes(self) -> int:
            asked.append("peak")
            return 1

    def figures(*arguments: Any) -> Any:
        asked.append("metrics")
        return {}, {}

    monkeypatch.setattr(quality, "PeakMemory", Peak)
    monkeypatch.setattr(quality, "measure", figures)
    next(quality.run({"bicubic": load("bicubic")}, open_sets([str(folder)], None, [2]), [2], PROTOCOLS["y"], {}))
    assert asked == ["network", "peak", "metrics"]


def test_hr_is_cut_to_a_multiple_and_sixteen_bits_stay(tmp_path: Path) -> None:
    draw(tmp_path / "deep.png", 50, 41, np.uint16)
    case = open_case(DataSet("deep", (tmp_path / "deep.png",)), tmp_path / "deep.png", 4)
    assert case.gt.shape == (48, 40, 3)
    assert case.lr.pixels.shape == (12, 10, 3)
    assert case.lr.pixels.dtype == np.uint16


def test_a_grey_picture_is_compared_as_itself_only_where_both_are_grey(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (16, 16, 1), np.uint8).repeat(3, 2)
    (tmp_path / "lr").mkdir()
    write_image(tmp_path / "bridge.png", Image(pixels=grey, grayscale=True))
    write_image(tmp_path / "lr" / "bridge.png", Image(pixels=reduce(grey, 2)))
    assert open_case(DataSet("s", (), None), tmp_path / "bridge.png", 2).grayscale
    assert not open_case(DataSet("s", (), tmp_path / "lr"), tmp_path / "bridge.png", 2).grayscale


def test_halves_are_rounded_up_as_matlab_does() -> None:
    """Away from the border, every second weight of the reduction by 2 adds up to exactly 1/2."""
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, ::2] = 201
    assert (reduce(pixels, 2)[:, 3:-3] == 101).all()


def test_sets_are_found_by_name_and_slips_are_explained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(folder.parent))
    assert open_sets(["HR"], None, [2])[0].name == "hr"
    with pytest.raises(InputError, match="nowhere: no such folder"):
        open_sets(["nowhere"], None, [2])
    empty = folder.parent / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="no pictures in it"):
        open_sets([str(empty)], None, [2])
    draw(folder / "a.jpg")
    with pytest.raises(InputError, match="two pictures are called a"):
        open_sets([str(folder)], None, [2])


def test_the_carried_set_is_small_credited_and_large_enough_for_every_metric() -> None:
    pictures = [path for path in CARRIED.iterdir() if path.suffix != ".md"]
    credits = (CARRIED / "CREDITS.md").read_text(encoding="utf-8")
    assert sum(path.stat().st_size for path in pictures) < 300_000
    assert all(f"`{path.name}`" in credits for path in pictures)
    assert all(min(read_image(path).pixels.shape[:2]) >= 176 + 2 * 4 for path in pictures)


def test_published_values_appear_only_for_the_whole_set() -> None:
    assert table("set5", 5, 4)["Bicubic"] == (28.42, 0.8104)
    assert table("BSD100", 100, 3)["VDSR"] == (28.82, 0.7976)
    assert table("Set5", 4, 4) == {}
    assert table("holiday", 5, 4) == {}
    assert "SRGAN" not in table("Urban100", 100, 4)


def test_equal_pictures_have_infinite_psnr_and_do_not_break_the_mean(tmp_path: Path) -> None:
    write_image(tmp_path / "flat.png", Image(pixels=np.full((40, 40, 3), 90, np.uint8)))
    _, (summary,) = measure({"bicubic": load("bicubic")}, open_sets([str(tmp_path)], None, [2]), 2)
    assert summary.means["psnr"] == math.inf


@pytest.mark.skipif(not SETS, reason=f"{ROOT_VARIABLE} does not name a folder with the standard sets")
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["Set5", "Set14"])
def test_bicubic_agrees_with_the_published_table(name: str, scale: int) -> None:
    psnr_and_ssim = {key: row for key, row in quantities().items() if key in ("psnr", "ssim")}
    found = run({"bicubic": load("bicubic")}, open_sets([name], None, [scale]), [scale], PROTOCOLS["y"], psnr_and_ssim)
    (summary,) = summarise([row for rows, _ in found for row in rows], PROTOCOLS["y"])
    assert summary.published is not None
    assert summary.means["psnr"] == pytest.approx(summary.published[0], abs=0.02)
    assert summary.means["ssim"] == pytest.approx(summary.published[1], abs=0.002)
