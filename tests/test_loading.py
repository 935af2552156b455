"""What ``load`` makes of a model's name: sequences, blends, siblings, ensembles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from upscale.catalog import known, write_user
from upscale.checkpoint import save_generator
from upscale.errors import IncompatibleCheckpoint, UnknownWeights
from upscale.images import Image
from upscale.loading import load
from upscale.models import Generator, build
from upscale.options import Precision, Target

PICTURE = Image(pixels=np.random.default_rng(0).integers(0, 256, (12, 15, 3), np.uint8))


def network(seed: int, **config: object) -> Generator:
    torch.manual_seed(seed)
    generator = build({"arch": "compact", "scale": 2, "num_feat": 4, "num_conv": 1, **config}, "test")
    generator.initialise()
    generator.get_submodule("body.4").weight.data.mul_(30)  # type: ignore[operator]
    return generator.eval().requires_grad_(False)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Two like networks, one unlike, and one that keeps the size."""
    monkeypatch.setenv("UPSCALE_HOME", str(tmp_path / "home"))
    known.cache_clear()
    networks = {"a": network(0), "b": network(1), "wide": network(2, num_feat=5), "same": network(3, scale=1)}
    for name, generator in networks.items():
        save_generator(tmp_path / f"{name}.safetensors", generator, {}, torch.float32)
    return {name: str(tmp_path / f"{name}.safetensors") for name in networks}


def run(model: str, **options: object) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    upscaler = load(model, precision=Precision.FP32, **options)  # type: ignore[arg-type]
    return np.asarray(upscaler.upscale(PICTURE).image.pixels, np.float64)


def test_blend_of_a_network_with_itself_is_that_network(files: dict[str, str]) -> None:
    assert np.array_equal(run(f"{files['a']}:0.3,{files['a']}:0.7"), run(files["a"]))


def test_blend_goes_from_one_network_to_the_other(files: dict[str, str]) -> None:
    a, b = run(files["a"]), run(files["b"])
    near, far = (run(f"{files['a']}:{share},{files['b']}:{1 - share}") for share in (0.9, 0.1))
    assert np.array_equal(run(f"{files['a']}:1,{files['b']}:0"), a)
    assert np.abs(near - a).mean() < np.abs(far - a).mean()
    assert np.abs(far - b).mean() < np.abs(near - b).mean()


def test_unlike_networks_do_not_blend(files: dict[str, str]) -> None:
    with pytest.raises(IncompatibleCheckpoint, match="a, wide: not built alike"):
        run(f"{files['a']}:0.5,{files['wide']}:0.5")


def test_families_blend_at_the_scales_that_both_have() -> None:
    both, rest = load("compact:0.5,compact-photo:0.5"), load("compact-x4:0.5,compact-x4-photo:0.5")
    assert set(both.generators) == {2, 4}
    assert np.array_equal(both.upscale(PICTURE).image.pixels, rest.upscale(PICTURE).image.pixels)
    photo = known().entries["compact-x4-photo"]
    write_user({"mine": {"summary": "", "license": "MIT", "file": str(photo.path), "family": "own", "scale": 4}})
    one = load("compact:0.5,own:0.5")
    assert set(one.generators) == {4}
    assert np.array_equal(one.upscale(PICTURE).image.pixels, rest.upscale(PICTURE).image.pixels)


def test_one_network_after_the_other(files: dict[str, str]) -> None:
    assert run(f"{files['same']}+{files['a']}").shape == (24, 30, 3)
    assert run(f"{files['a']}+{files['b']}").shape == (48, 60, 3)
    assert not np.array_equal(run(f"{files['same']}+{files['a']}"), run(files["a"]))


def test_strength_mixes_a_network_with_its_sibling(files: dict[str, str]) -> None:
    facts = {"summary": "", "license": "MIT"}
    write_user({"one": {**facts, "file": files["a"], "sibling": "two"}, "two": {**facts, "file": files["b"]}})
    assert np.array_equal(run(known().mixed("one", 1.0)), run(files["a"]))
    assert np.array_equal(run(known().mixed("two", 0.0)), run(files["b"]))
    assert np.array_equal(run(known().mixed("one", 0.4)), run(f"{files['a']}:0.4,{files['b']}:0.6"))


def test_ensemble_is_the_mean_over_orientations(files: dict[str, str]) -> None:
    turned = Image(pixels=np.ascontiguousarray(np.rot90(PICTURE.pixels)))
    upscaler = load(files["a"], precision=Precision.FP32, tta=True)
    one, other = (upscaler.upscale(image).image.pixels.astype(int) for image in (PICTURE, turned))
    assert np.abs(np.rot90(one) - other).max() <= 1
    assert not np.array_equal(one, run(files["a"]))


def test_luma_network_runs_at_the_scale_that_is_asked_for(tmp_path: Path) -> None:
    srcnn = build({"arch": "srcnn", "num_feat": 4, "num_map": 3}, "test")
    srcnn.initialise()
    path = tmp_path / "srcnn.safetensors"
    save_generator(path, srcnn, {}, torch.float32)
    upscaler = load(str(path))
    assert upscaler.upscale(PICTURE, Target.parse("3")).image.pixels.shape == (36, 45, 3)


def test_what_enlarges_nothing_is_refused() -> None:
    with pytest.raises(UnknownWeights, match="enlarges nothing"):
        load("vgg19")
    with pytest.raises(UnknownWeights, match="enlarges nothing"):
        known().scale("compact+vgg19")  # told before anything is fetched
