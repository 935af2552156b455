from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image as PILImage
from torch import Tensor

from tests.conftest import network, picture
from tests.test_devices import GPU, OneDevice
from tests.train.conftest import CPU, SHORT, SMALL, interrupted_at, losses, recipe, run
from upscale.bench.quality import measure, quantities
from upscale.bench.sets import DataSet, open_case
from upscale.checkpoint import load_generator, read_metadata
from upscale.cli import main
from upscale.engine import Upscaler
from upscale.errors import ConfigError, InputError, UsageError
from upscale.images import FORMATS, Image, write_image
from upscale.imaging import to_tensor
from upscale.metrics.protocols import DEFAULT_PROTOCOL
from upscale.models import Generator, build
from upscale.options import Precision, Tiling
from upscale.train import data
from upscale.train.data import Batches, Pictures, _load, open_pictures
from upscale.train.degradation import degrade
from upscale.train.loop import _set_rates, train
from upscale.train.ranks import Ranks
from upscale.train.recipe import load_recipe, to_toml
from upscale.train.start import assemble, fresh, objective
from upscale.train.step import train_step
from upscale.train.validation import Pair, load_pairs, validate


def save_picture(path: Path, pixels: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    PILImage.fromarray(pixels).save(path)


def test_pictures_are_decoded_once_and_the_useless_listed(pictures: Pictures, tmp_path: Path) -> None:
    assert sorted(pictures.names) == ["0.png", "sub/1.png", "sub/2.png"]
    assert len(pictures.skipped) == 2
    assert any("low.png: 90x20 is smaller" in text for text in pictures.skipped)
    assert any("broken.jpg: not an image" in text for text in pictures.skipped)
    first = pictures.arrays[list(pictures.names).index("0.png")]
    assert np.array_equal(first, picture(48, 64, 0))
    again = open_pictures(tmp_path / "data", 32, lambda done, total: pytest.fail("decoded again"))
    assert again.digest == pictures.digest


def test_pictures_are_there_reduced_as_well(pictures: Pictures, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    also = open_pictures(folder, 24, sizes=(0.5, 0.25))
    names = list(also.names)
    assert sorted(names) == ["0.png", "0.png", "sub/1.png", "sub/2.png"]
    whole, half = (also.arrays[names.index("0.png") + i] for i in (0, 1))
    assert np.array_equal(whole, picture(48, 64, 0))
    assert half.shape == (24, 32, 3)
    means = whole.reshape(24, 2, 32, 2, 3).mean((1, 3))
    assert abs(half - means).max() <= 0.5
    assert also.skipped == open_pictures(folder, 24).skipped, "of reduced ones that are too small, nothing is told"
    assert list(open_pictures(folder, 32).names) == list(pictures.names)


def test_crops_of_another_size_need_no_other_copy_and_the_unused_are_removed(
    pictures: Pictures, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    (cached,) = (tmp_path / "cache").rglob("*.rgb")
    larger = open_pictures(folder, 45, lambda done, total: pytest.fail("decoded again"))
    assert larger.names == ["0.png"]
    assert np.array_equal(larger.arrays[0], picture(48, 64, 0))
    os.utime(cached.with_suffix(".json"), (0, time.time() - data.UNUSED - 100))
    open_pictures(folder, 32)
    assert time.time() - cached.with_suffix(".json").stat().st_mtime < data.UNUSED  # that was a use
    os.utime(cached.with_suffix(".json"), (0, time.time() - data.UNUSED - 100))
    (folder / "low.png").unlink()
    open_pictures(folder, 32)
    (other,) = (tmp_path / "cache").rglob("*.rgb")
    assert other != cached


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_to_a_picture_that_is_gone_is_skipped(pictures: Pictures, tmp_path: Path) -> None:
    (tmp_path / "data" / "gone.png").symlink_to("nowhere.png")
    opened = open_pictures(tmp_path / "data", 32)
    assert opened.names == pictures.names
    assert any("gone.png: No such file" in text for text in opened.skipped)


def test_batches_are_aligned_and_depend_on_seed_and_step_only(pictures: Pictures) -> None:
    batches = Batches(pictures, recipe())
    stream = batches.starting_at(5, CPU)
    for step in (5, 6):
        batch, same = next(stream), batches.batch(step)
        assert torch.equal(batch.lr, same.lr)
        assert torch.equal(batch.gt, same.gt)
    assert batch.lr.shape == (2, 3, 8, 8)
    assert batch.gt.shape == (2, 3, 16, 16)
    reduced = torch.nn.functional.avg_pool2d(batch.gt, 2)
    assert float((reduced - batch.lr).abs().mean()) < 0.03
    assert float((reduced.flip(-1) - batch.lr).abs().mean()) > 0.05
    other = Batches(pictures, recipe("seed=1")).batch(5)
    assert not torch.equal(other.gt, batches.batch(5).gt)


def test_threads_make_the_same_batches_in_their_order(pictures: Pictures) -> None:
    batches = Batches(pictures, recipe("degradation.kind=blind"))
    for step, batch in zip(range(3, 11), batches.ahead(3, CPU, 3), strict=False):
        same = batches.batch(step)
        assert torch.equal(batch.lr, same.lr)
        assert torch.equal(batch.gt, same.gt)
    assert next(Batches(pictures, recipe()).starting_at(3, GPU)).lr.device == GPU


@pytest.mark.parametrize("changes", [(), ("data.drawn=0.5",), ("degradation.kind=blind",)])
def test_batches_do_not_depend_on_where_pictures_are_kept(pictures: Pictures, changes: tuple[str, ...]) -> None:
    kept = Batches(pictures, recipe("data.candidates=2", *changes))
    kept.keep_on(CPU)
    for step in range(3):
        made, same = kept.batch(step), Batches(pictures, kept.recipe).batch(step)
        assert torch.equal(made.lr, same.lr)
        assert torch.equal(made.gt, same.gt)


def test_lr_that_has_no_room_on_a_gpu_is_made_on_the_cpu(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = Batches(pictures, recipe())
    same = batches.batch(3)

    def full(source: Tensor, *others: Any) -> Tensor:
        if source.device == GPU:
            raise torch.OutOfMemoryError
        return degrade(source, *others)

    monkeypatch.setattr(data, "degrade", full)
    made = next(batches.ahead(3, GPU, 1))
    assert (made.lr.device, made.gt.device) == (GPU, GPU)
    assert (made.lr.shape, made.gt.shape) == (same.lr.shape, same.gt.shape)
    monkeypatch.setattr(data, "degrade", lambda *_: torch.ones(1) @ torch.ones(2))
    with pytest.raises(RuntimeError, match="size"):
        next(batches.ahead(3, GPU, 1))


@pytest.mark.parametrize("changes", [("data.drawn=0.5",), ("degradation.kind=blind", "degradation.sharpen=true")])
def test_lr_for_a_gpu_is_made_on_it(pictures: Pictures, changes: tuple[str, ...]) -> None:
    batches = Batches(pictures, recipe("data.batch_size=4", *changes))
    for step in range(12):
        with OneDevice():  # type: ignore[no-untyped-call]
            made = [tensor for tensor in batches.batch(step, GPU)[:3] if tensor is not None]
        same = [tensor for tensor in batches.batch(step)[:3] if tensor is not None]
        assert {tensor.device for tensor in made} == {GPU}
        assert [tensor.shape for tensor in made] == [tensor.shape for tensor in same]


def test_the_last_steps_take_larger_crops_from_pictures_with_room(pictures: Pictures) -> None:
    changes = ("data.batch_size=8", "data.large=0.3", "steps=10")
    batches = Batches(pictures, recipe("data.gt_size=16", *changes))  # one of the three has room for more
    assert [batches.batch(step).gt.shape[-1] for step in (0, 6, 7, 9)] == [16, 16, 32, 32]
    assert [batches.batch(step).lr.shape for step in (6, 7)] == [(8, 3, 8, 8), (2, 3, 16, 16)]
    none = Batches(pictures, recipe("data.gt_size=18", *changes))
    assert none.batch(9).gt.shape == (8, 3, 18, 18)


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_a_compiled_network_learns_the_same(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []
    compiler = partial(torch.compile, backend="eager")  # traced, but not turned into machine code

    def compile_(function: Any, **options: Any) -> Any:
        compiled.append(function)
        return compiler(function)

    monkeypatch.setattr(torch, "compile", compile_)
    numbers = recipe("branches=2")
    outs = []
    for asked in (False, True):
        events: list[Any] = []
        assert not compiled
        out = tmp_path / str(asked)
        result = train(numbers, pictures, [], out, CPU, resume=False, on_event=events.append, compiled=asked)
        outs.append((losses(events), load_generator(result.generator).state_dict()))
    assert len(compiled) > 1
    (before, network), (after, same) = outs
    assert after == pytest.approx(before, rel=1e-5)
    assert all(torch.allclose(network[key], same[key], atol=1e-3) for key in network)


@pytest.mark.parametrize("kind", ["muon", "adam"])
def test_training_repeats_and_resumes_bit_for_bit(
    pictures: Pictures, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = recipe(f"optim.kind={kind}")
    whole, events = run(numbers, pictures, tmp_path / "whole")
    again, events_again = run(numbers, pictures, tmp_path / "again")
    assert losses(events) == losses(events_again)

    with monkeypatch.context() as patch:
        patch.setattr("upscale.train.loop.train_step", interrupted_at(9))
        half, first = run(numbers, pictures, tmp_path / "half")
    assert not half.finished
    assert half.generator.name == "generator-0000010.safetensors"
    rest, second = run(numbers, pictures, tmp_path / "half", resume=True)
    assert rest.finished
    assert losses(first) + losses(second) == losses(events)
    for name in ("whole", "half"):
        assert (tmp_path / name / "log.jsonl").read_text().count('"step"') >= 20
    expected = load_generator(whole.generator).state_dict()
    for name, tensor in load_generator(rest.generator).state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert again.generator.read_bytes() == whole.generator.read_bytes()


def test_a_network_learns_and_says_what_it_is(pictures: Pictures, tmp_path: Path) -> None:
    numbers = recipe("steps=60", "optim.lr=3e-3")
    result, events = run(numbers, pictures, tmp_path / "run")
    assert np.mean(losses(events)[-10:]) < 0.8 * np.mean(losses(events)[:10])
    generator = load_generator(result.generator)
    assert (generator.scale, generator.config.num_feat, generator.config.num_conv) == (2, 8, 2)
    about = read_metadata(result.generator)
    assert about["network"].items() >= {"arch": "compact", "scale": 2, "num_feat": 8, "num_conv": 2}.items()
    assert about["data"] == pictures.digest
    written = tmp_path / "run" / "recipe.toml"
    assert load_recipe(str(written)) == numbers
    assert about["recipe"] == to_toml(numbers)
    for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines():
        assert "event" in json.loads(line)


def test_validation_measures_and_shows(pictures: Pictures, tmp_path: Path) -> None:
    valid = tmp_path / "valid"
    valid.mkdir()
    PILImage.fromarray(picture(41, 53, 5)).save(valid / "v.png")
    events: list[dict[str, Any]] = []
    (valid / "broken.png").write_text("no picture")
    pairs, skipped = load_pairs(valid, 2)
    assert [text.partition("broken.png: ")[2][:12] for text in skipped] == ["not an image"]
    assert pairs[0].gt.shape == (1, 3, 40, 52)
    result = train(
        recipe(), pictures, pairs, tmp_path / "run", CPU, resume=False, on_event=lambda e: events.append(dict(e))
    )
    measured = [event for event in events if event["event"] == "valid"]
    assert [event["step"] for event in measured] == [10, 20]
    assert measured[-1]["psnr"] > 10
    assert read_metadata(result.generator)["metrics"]["psnr"] == pytest.approx(measured[-1]["psnr"], abs=1e-4)
    with PILImage.open(tmp_path / "run" / "previews" / "0000020.png") as sheet:
        assert sheet.size == (3 * (52 + 4), 40 + 4)


def test_a_run_that_gets_no_better_stops_and_the_best_is_kept(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([20.0, 30.0, 29.0, 28.0, 27.0, 40.0])
    monkeypatch.setattr("upscale.train.loop.validate", lambda *arguments: ({"psnr": next(scores)}, []))
    events: list[dict[str, Any]] = []
    numbers = recipe("steps=12", "valid_every=2", "patience=3", "keep=2")
    result = train(
        numbers, pictures, [], tmp_path / "run", CPU, resume=False, on_event=lambda e: events.append(dict(e))
    )
    assert result.finished
    assert events[-1] == {"event": "stop", "step": 10, "reason": "no better PSNR than 30.000 dB since step 4"}
    kept = sorted(path.name for path in (tmp_path / "run").glob("*.safetensors"))
    assert kept == [f"generator-{step:07d}.safetensors" for step in (4, 8, 10)]
    assert result.generator.name == kept[0], "the best is the one to use"


def test_the_mean_of_the_weights_is_what_is_saved(pictures: Pictures, tmp_path: Path) -> None:
    result, _ = run(recipe(), pictures, tmp_path / "run")
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    saved = load_generator(result.generator).state_dict()["body.0.weight"]
    torch.testing.assert_close(saved, state["ema"]["module.body.0.weight"], atol=1e-3, rtol=1e-3)
    assert not torch.allclose(saved, state["generator"]["body.0.weight"], atol=1e-4)


@pytest.mark.parametrize("branches", [0, 2])
@pytest.mark.parametrize("kind", ["adam", "muon"])
def test_features_that_hold_lr_hold_it_to_the_end(branches: int, kind: str, pictures: Pictures, tmp_path: Path) -> None:
    numbers = recipe(f"branches={branches}", f"optim.kind={kind}")
    result, _ = run(numbers, pictures, tmp_path / "run")
    trained, start = load_generator(result.generator), fresh(recipe(), CPU).generator
    assert trained.passing() == {"body.0": 3, "body.2": 3, "body.4": 3}
    others = [network.state_dict()["body.2.weight"][3:] for network in (trained, start)]
    assert float((others[0] - others[1]).abs().max()) > 1e-3


@pytest.mark.parametrize(("scale", "smaller"), [(4, 2), (2, 1), (4, 1)])
def test_a_run_begins_with_the_result_of_a_network_of_a_larger_scale_reduced(
    scale: int, smaller: int, pictures: Pictures, tmp_path: Path
) -> None:
    first, _ = run(recipe(f"generator.scale={scale}", "steps=2"), pictures, tmp_path / "large")
    small = fresh(recipe(f"generator.scale={smaller}", f'init="{first.generator}"'), CPU)
    large = load_generator(first.generator)
    lr = torch.rand(1, 3, 9, 11)
    with torch.no_grad():
        means = F.avg_pool2d(large(lr), scale // smaller)
        torch.testing.assert_close(small.generator(lr), means, atol=1e-5, rtol=0)
    assert not small.anew


def test_what_another_network_has_not_begins_anew(pictures: Pictures, tmp_path: Path) -> None:
    edsr = [recipe(f'generator={{ arch = "edsr", scale = {scale}, num_feat = 8, num_block = 2 }}') for scale in (2, 4)]
    first, _ = run(replace(edsr[0], steps=1), pictures, tmp_path / "x2")
    second, events = run(
        replace(edsr[1], steps=1, init=str(first.generator), optim=replace(edsr[1].optim, lr=1e-12)),
        pictures,
        tmp_path / "x4",
    )
    old, new = load_generator(first.generator).state_dict(), load_generator(second.generator).state_dict()
    torch.testing.assert_close(old["upsample.0.weight"], new["upsample.0.weight"], atol=1e-6, rtol=1e-3)
    said = [event["text"] for event in events if event["event"] == "remark"]
    assert any("upsample.2.weight, upsample.2.bias begin anew" in text for text in said)


def test_a_run_is_not_overwritten_nor_resumed_with_other_numbers(pictures: Pictures, tmp_path: Path) -> None:
    run(recipe("steps=1"), pictures, tmp_path / "run")
    with pytest.raises(ConfigError, match="holds a training run already"):
        run(recipe("steps=1"), pictures, tmp_path / "run")
    with pytest.raises(ConfigError, match="another recipe"):
        run(recipe("steps=1", "optim.lr=1e-9"), pictures, tmp_path / "run", resume=True)
    with pytest.raises(ConfigError, match="no training run"):
        run(recipe("steps=1"), pictures, tmp_path / "none", resume=True)


def test_a_finished_run_can_be_made_longer_not_shorter(pictures: Pictures, tmp_path: Path) -> None:
    out = tmp_path / "run"
    _, events = run(recipe("steps=4"), pictures, out)
    longer = recipe("steps=6", "valid_every=1", "patience=9")
    result, more = run(longer, pictures, out, resume=True)
    assert result.finished
    assert result.generator.name == "generator-0000006.safetensors"
    assert (len(losses(events)), len(losses(more))) == (4, 2)
    assert load_recipe(str(out / "recipe.toml")) == longer
    with pytest.raises(ConfigError, match="is at step 6 already") as caught:
        run(recipe("steps=5"), pictures, out, resume=True)
    assert "--set steps=N" in str(caught.value.hint)
    assert load_recipe(str(out / "recipe.toml")) == longer


def test_a_run_that_goes_on_with_other_pictures_says_so(pictures: Pictures, tmp_path: Path) -> None:
    run(recipe("steps=2"), pictures, tmp_path / "run")
    events: list[dict[str, Any]] = []
    for digest in (pictures.digest, "another"):
        train(
            recipe("steps=2"),
            replace(pictures, digest=digest),
            (),
            tmp_path / "run",
            CPU,
            resume=True,
            on_event=lambda e: events.append(dict(e)),
        )
    assert [event["text"] for event in events if "text" in event] == [
        "the pictures, or their dates, are not those of before"
    ]


def test_a_gradient_that_is_not_finite_is_skipped(pictures: Pictures) -> None:
    numbers = recipe("losses.mse=1e38", "losses.l1=1e38")
    state = fresh(numbers, CPU)
    before = {name: tensor.clone() for name, tensor in state.generator.state_dict().items()}
    for batch in Batches(pictures, numbers).batch(0), Batches(pictures, numbers).batch(1):
        train_step(state, batch, objective(numbers, CPU, Ranks()))
    assert (state.step, state.skipped_in_a_row) == (2, 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.generator.state_dict().items())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stepz=3", "unknown key 'stepz'"),
        ("optim.lr=fast", "optim.lr: expected float"),
        ("losses.l3=1", "unknown loss 'l3'"),
        ("data.gt_size=17", "not a multiple of the scale"),
        ("data.large=1.5", "from 0 to 1"),
        ("data.large=0.5", "has no quarter"),
        ("steps", "expected KEY=VALUE"),
        ("steps=0", "must be at least 1"),
        ("patience=0", "must be at least 1"),
        ("seed=99999999999999999999", "must be from 0 to"),
        ("optim.betas=[0.9,1.0]", "less than 1"),
        ("optim.gamma=-1", "from 0 to 1"),
    ],
)
def test_a_wrong_number_is_named(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^--set .*{message}"):
        recipe(override)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        (
            "srgan",
            ["data.gt_size=64"],
            "takes no crops of 64x64 pixels, it is made for 96: --set discriminator.gt_size",
        ),
        ("realesrgan", ["data.gt_size=20"], "the discriminator takes no crops of 12x12"),
        ("compact-photo", ["generator.scale=2", "data.gt_size=16"], "takes no crops of 8x8"),
    ],
)
def test_crops_that_a_network_cannot_judge_are_told_at_once(name: str, overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_recipe(name, overrides)


def test_a_fault_of_the_file_is_not_blamed_on_the_command(tmp_path: Path) -> None:
    text = to_toml(recipe()).replace("log_every", "log_evry")
    (tmp_path / "mine.toml").write_text(text)
    for overrides in ([], ["steps=3"]):
        with pytest.raises(ConfigError, match=r"^mine\.toml: unknown key 'log_evry'"):
            load_recipe(str(tmp_path / "mine.toml"), overrides)


def test_folders_without_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(InputError, match="no such folder"):
        open_pictures(tmp_path / "none", 32)
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="no pictures"):
        open_pictures(tmp_path / "data", 32)
    PILImage.fromarray(picture(9, 9)).save(tmp_path / "data" / "small.png")
    with pytest.raises(InputError, match="none of its 1 pictures"):
        open_pictures(tmp_path / "data", 32)
    with pytest.raises(InputError, match="none of its pictures can be used") as caught:
        load_pairs(tmp_path / "data", 4)
    assert "small.png: too small to validate x4 on" in str(caught.value.hint)


def test_validation_uses_and_leaves_what_batch_norm_learned(pictures: Pictures, tmp_path: Path) -> None:
    network = 'generator={arch="srgan", scale=2, num_feat=8, num_block=1}'
    numbers = recipe(network, "steps=2", "valid_every=1")
    pair = Pair("v", (batch := Batches(pictures, numbers).batch(0)).lr[:1], batch.gt[:1].double())
    with_valid, without = tmp_path / "a", tmp_path / "b"
    for out, valid in ((with_valid, [pair]), (without, [])):
        train(numbers, pictures, valid, out, CPU, resume=False, on_event=lambda event: None)
    states = [torch.load(out / "state.pt", weights_only=True)["ema"] for out in (with_valid, without)]
    assert any("running_mean" in name for name in states[0])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_pictures_of_any_size_are_measured_by_a_network_that_asks_for_multiples(tmp_path: Path) -> None:
    save_picture(tmp_path / "valid" / "a.png", picture(66, 70))
    (pair,), _ = load_pairs(tmp_path / "valid", 2)
    assert pair.lr.shape == (1, 3, 33, 35)
    generator = build({"arch": "rrdbnet", "scale": 2, "num_feat": 4, "num_block": 1, "num_grow_ch": 2}, "test").eval()
    assert generator.multiple_of == 2
    metrics, missed = validate(generator, [pair], CPU, tmp_path / "sheets" / "a.png")
    assert metrics["psnr"] > 0
    assert not missed


def test_given_lr_is_what_is_measured_on(tmp_path: Path) -> None:
    save_picture(tmp_path / "valid" / "a.png", picture(40, 48))
    save_picture(tmp_path / "lr" / "ax2.png", picture(20, 24, 9))
    (pair,), _ = load_pairs(tmp_path / "valid", 2, tmp_path / "lr")
    assert torch.equal(pair.lr, to_tensor(picture(20, 24, 9))[None])
    save_picture(tmp_path / "lr" / "ax2.png", picture(20, 23))
    with pytest.raises(InputError, match=r"ax2\.png: 23x20, but x2 of GT, 48x40, is 24x20"):
        load_pairs(tmp_path / "valid", 2, tmp_path / "lr")


def test_what_nobody_sees_is_neither_trained_nor_measured_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pixels = np.concatenate((picture(40, 48), np.full((40, 48, 1), 255, np.uint8)), 2)
    pixels[:, 24:, 3] = 0
    save_picture(tmp_path / "data" / "a.png", pixels)
    trained = open_pictures(tmp_path / "data", 16).arrays[0]
    (pair,), _ = load_pairs(tmp_path / "data", 2)
    measured = open_case(DataSet("d", (tmp_path / "data" / "a.png",)), tmp_path / "data" / "a.png", 2).gt
    for seen in (trained, measured, (255 * pair.gt[0]).round().permute(1, 2, 0).numpy()):
        assert np.array_equal(seen[:, :24], pixels[:, :24, :3])
        assert (seen[:, 24:] == 255).all()


def test_a_grey_picture_is_measured_as_bench_does(tmp_path: Path) -> None:
    """As one channel: scaled to luma as if it were RGB, it would get 1.3 dB more."""
    path = tmp_path / "valid" / "g.png"
    path.parent.mkdir()
    PILImage.fromarray(picture(64, 72, 3)[..., 0]).save(path)
    (pair,), _ = load_pairs(path.parent, 2)
    generator = build({"arch": "bicubic", "scale": 2}, "test")
    metrics, missed = validate(generator, [pair], CPU)
    case = open_case(DataSet("g", (path,)), path, 2)
    result = Upscaler([generator], CPU, Precision.FP32, Tiling()).upscale(case.lr, 2).image.pixels
    values, _ = measure(case, result, 2, DEFAULT_PROTOCOL, quantities())
    assert metrics["psnr"] == pytest.approx(values["psnr"], abs=0.001)
    assert not missed


def test_validation_survives_what_memory_does_not_take_and_what_is_perfect(tmp_path: Path) -> None:
    class Greedy(Generator):
        radius = 1

        def enlarge(self, x: Tensor) -> Tensor:
            if x.max() == 1:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return x * float("nan") if x.max() == 0 else x

    greedy = Greedy(build({"arch": "bicubic", "scale": 1}, "test").config)
    white, grey, black = (torch.full((1, 3, 32, 48), level / 255) for level in (255, 128, 0))
    pairs = [Pair("white", white, white), Pair("black", black, black), Pair("grey", grey, grey)]
    metrics, missed = validate(greedy, pairs, CPU, tmp_path / "1.png")
    assert metrics["psnr"] == 100
    assert [text.partition(" with")[0] for text in missed] == [
        "white: cpu: not enough memory, also",
        "black: the network gives values that are not finite, even in float32",
    ]
    assert validate(greedy, pairs[:2], CPU, tmp_path / "2.png") == ({}, missed)


def test_part_of_a_line_in_the_log_is_no_reason_to_fail(pictures: Pictures, tmp_path: Path) -> None:
    run(recipe("steps=2"), pictures, tmp_path / "run")
    log = tmp_path / "run" / "log.jsonl"
    with log.open("a") as file:
        file.write('{"time": 17956')
    run(recipe("steps=2"), pictures, tmp_path / "run", resume=True)
    assert json.loads(log.read_text().splitlines()[-1])["event"] == "start"
    assert (tmp_path / "run" / "report.html").is_file()


def test_networks_of_another_run_are_not_tidied_up(pictures: Pictures, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(recipe("steps=4", "valid_every=1"), pictures, out)
    networks = sorted(out.glob("*.safetensors"))
    (out / "state.pt").unlink()
    with pytest.raises(ConfigError, match="holds networks of another run"):
        run(recipe("steps=2"), pictures, out)
    assert sorted(out.glob("*.safetensors")) == networks


def test_results_and_validation_pictures_in_the_folder_are_not_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "valid/v.png", "runs/r/previews/1.png"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        PILImage.fromarray(picture(80, 80)).save(tmp_path / "data" / name)
    overrides = [argument for text in (*SMALL, *SHORT, "steps=1") for argument in ("--set", text)]
    with pytest.raises(SystemExit) as caught:
        main(["train", "data", "--valid", "data/valid", "--out", "data/runs/r", *overrides])
    assert not caught.value.code
    start = json.loads((tmp_path / "data" / "runs" / "r" / "log.jsonl").read_text().splitlines()[0])
    assert start["pictures"] == 1


def test_what_was_skipped_is_tried_again_when_it_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    for name in ("a.png", os.fsdecode(b"caf\xe9.png")):
        PILImage.fromarray(picture(48, 48)).save(tmp_path / "data" / name)
    monkeypatch.setattr(
        data, "_load", lambda sizes, path: f"{path.name}: not now" if path.name == "a.png" else _load(sizes, path)
    )
    assert len(open_pictures(tmp_path / "data", 32).skipped) == 1
    monkeypatch.setattr(data, "_load", _load)
    assert len(open_pictures(tmp_path / "data", 32).skipped) == 1  # nothing has changed
    monkeypatch.setattr(data, "FORMATS", [*FORMATS, FORMATS[0]])  # a plug-in has come
    found = open_pictures(tmp_path / "data", 32)
    assert not found.skipped
    for decoded in (tmp_path / "cache").rglob("*.rgb"):
        decoded.unlink()
    assert open_pictures(tmp_path / "data", 32).digest == found.digest


def rates(state: Any, numbers: Any, *steps: int) -> list[float]:
    found = []
    for step in steps:
        state.step = step
        _set_rates(state, numbers)
        found.append(state.optimizer.param_groups[0]["lr"])
    return found


def test_the_rate_rises_then_falls_along_half_a_cosine() -> None:
    numbers = recipe("optim.lr=1.0", "optim.warmup=4", "steps=100", "optim.final=0.1")
    state = assemble(network(arch="compact", num_feat=4, num_conv=1), numbers, CPU)
    assert rates(state, numbers, 0)[0] == pytest.approx(0.2)
    assert rates(state, numbers, 50, 100) == pytest.approx([0.55, 0.1])
    state.rate = 0.5
    assert rates(state, numbers, 100) == pytest.approx([0.05])


def test_the_rate_falls_at_the_milestones() -> None:
    numbers = recipe("optim.lr=1.0", "optim.warmup=0", "optim.milestones=[10,20]", "optim.gamma=0.5")
    state = assemble(network(arch="compact", num_feat=4, num_conv=1), numbers, CPU)
    assert rates(state, numbers, 0, 9, 10, 19, 20) == pytest.approx([1, 1, 0.5, 0.5, 0.25])


def test_signals_are_what_they_were_after_a_run(pictures: Pictures, tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run(recipe("steps=1"), pictures, tmp_path / "run")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_picture_that_was_edited_is_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "data" / "a.bmp"  # of one size, whatever it shows
    path.parent.mkdir()
    digests = set()
    for seed in (0, 1):
        PILImage.fromarray(picture(40, 48, seed)).save(path)
        os.utime(path, (seed, 1000 + seed))
        opened = open_pictures(path.parent, 32)
        assert np.array_equal(opened.arrays[0], picture(40, 48, seed))
        digests.add(opened.digest)
    assert len(digests) == 2


def test_sixteen_bits_are_reduced_to_eight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    write_image(tmp_path / "data" / "a.png", Image(pixels=picture(40, 48).astype(np.uint16) * 257))
    assert np.array_equal(open_pictures(tmp_path / "data", 32).arrays[0], picture(40, 48))


def test_processes_degrade_their_crops_in_ways_of_their_own(
    pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = []

    def seen(gt: Tensor, scale: int, config: Any, random: torch.Generator) -> Tensor:
        seeds.append(random.initial_seed())
        return degrade(gt, scale, config, random)

    monkeypatch.setattr(data, "degrade", seen)
    made = [Batches(pictures, recipe("degradation.kind=blind"), rank).batch(0) for rank in (0, 1)]
    assert len(set(seeds)) == 2
    assert not torch.equal(made[0].gt, made[1].gt)


def test_pictures_are_taken_by_their_edges(pictures: Pictures) -> None:
    shares = Batches(pictures, recipe())._usual.shares
    assert shares.tolist() == pytest.approx([(array.shape[0] * array.shape[1]) ** 0.5 for array in pictures.arrays])
