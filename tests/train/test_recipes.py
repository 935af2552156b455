"""Every recipe that comes with the package, on tiny networks and tiny pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.parametrize import is_parametrized

from tests.conftest import picture
from upscale.errors import ConfigError, IncompatibleCheckpoint, UsageError
from upscale.losses import GAN_LOSSES
from upscale.models import build_discriminator
from upscale.models.features import EXTRACTORS
from upscale.train.data import Batches, Pictures
from upscale.train.loop import train
from upscale.train.ranks import Ranks
from upscale.train.recipe import Recipe, load_recipe, to_toml
from upscale.train.start import fresh, objective
from upscale.train.step import Objective, train_step

NAMES = sorted(path.stem for path in (Path(__file__).parents[2] / "upscale/train/recipes").glob("*.toml"))
TINY: dict[str, dict[str, Any]] = {
    "srcnn": {"num_feat": 8, "num_map": 4},
    "espcn": {"num_feats": (8, 4)},
    "vdsr": {"num_feat": 8, "num_conv": 2},
    "compact": {"num_feat": 8, "num_conv": 2},
    "srresnet": {"num_feat": 8, "num_block": 1},
    "rrdbnet": {"num_feat": 8, "num_block": 1, "num_grow_ch": 4},
}


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    """Two pictures in memory."""
    return Pictures(["a", "b"], [picture(120, 130, 1), picture(100, 140, 2)], "digest", [])


@pytest.fixture(scope="module")
def extractor_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random weights of each feature extractor; of VGG-19 only what the tests reach."""
    folder = tmp_path_factory.mktemp("extractors")
    torch.manual_seed(0)
    files = {}
    for name, layer in (("vgg19", "conv2_2"), ("squeezenet", "fire9")):
        files[name] = folder / f"{name}.pth"
        torch.save(EXTRACTORS[name]([layer]).state_dict(), files[name])
    return files


def tiny(name: str, files: dict[str, Path], *overrides: str) -> Recipe:
    """The recipe ``name`` with its own losses, degradation and schedule, on a small network and small crops."""
    recipe = load_recipe(
        name, ["init=", "steps=20", "log_every=1", "valid_every=20", "data.batch_size=2", "data.large=0", *overrides]
    )
    generator = {"arch": recipe.generator["arch"], "scale": recipe.scale, **TINY[recipe.generator["arch"]]}
    discriminator: dict[str, Any] | None = None
    if recipe.discriminator is not None:
        discriminator = {"arch": recipe.discriminator["arch"], "num_feat": 4}
        if discriminator["arch"] == "vgg":
            discriminator["gt_size"] = 8 * recipe.scale
    layers = {"conv1_2": 0.5, "conv2_2": 1.0} if recipe.perceptual.extractor == "vgg19" else recipe.perceptual.layers
    return replace(
        recipe,
        init=None,
        generator=generator,
        discriminator=discriminator,
        data=replace(recipe.data, gt_size=8 * recipe.scale),
        perceptual=replace(recipe.perceptual, file=str(files[recipe.perceptual.extractor]), layers=layers),
    )


def run(recipe: Recipe, pictures: Pictures, out: Path, *, resume: bool = False) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    train(
        recipe, pictures, [], out, torch.device("cpu"), resume=resume, on_event=lambda event: events.append(dict(event))
    )
    return [event for event in events if event["event"] == "step"]


def state(out: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(out / "state.pt", weights_only=True)
    return loaded


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_trains(name: str, pictures: Pictures, extractor_files: dict[str, Path], tmp_path: Path) -> None:
    recipe = tiny(name, extractor_files)
    events = run(recipe, pictures, tmp_path / "run")
    assert len(events) == 20
    expected = {*recipe.losses, "gradient"}
    if recipe.gan is not None:
        expected |= {"adversarial", "discriminator", "real_logits", "fake_logits"}
    for event in events:
        assert expected <= event.keys()
        assert all(np.isfinite(event[term]) for term in expected)
    final = state(tmp_path / "run")
    assert final["skipped_in_a_row"] == 0
    start = tmp_path / "start"
    run(replace(recipe, steps=1, optim=replace(recipe.optim, lr=1e-30)), pictures, start)
    for part in ("generator", "discriminator"):
        if final[part] is not None:
            before, after = state(start)[part], final[part]
            moved = [key for key in after if not torch.equal(before[key], after[key])]
            assert any(key.endswith(("weight", "original")) for key in moved), part


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_survives_being_written_out(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(recipe), encoding="utf-8")
    assert load_recipe(str(path)) == recipe


def test_a_recipe_with_odd_texts_survives_being_written_out(tmp_path: Path) -> None:
    odd = 'C:\\ü "\N{GRINNING FACE}"\n\t\x00\x7f'
    recipe = load_recipe("esrgan")
    recipe = replace(
        recipe,
        init=odd,
        perceptual=replace(recipe.perceptual, file=odd),
    )
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(recipe), encoding="utf-8")
    assert load_recipe(str(path)) == recipe


def test_all_losses_but_the_adversarial_one_see_sharpened_gt(
    pictures: Pictures, extractor_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny("realesrgan", extractor_files)
    batch = Batches(pictures, recipe).batch(0)
    assert batch.sharp is not None
    assert float((batch.sharp - batch.gt).abs().max()) > 0.02
    assert Batches(pictures, tiny("compact-photo", extractor_files)).batch(0).sharp is None
    seen: dict[str, Any] = {}

    def l1(sr: torch.Tensor, gt: torch.Tensor) -> torch.Tensor:
        seen["l1"] = gt
        return torch.nn.functional.l1_loss(sr, gt)

    state = fresh(recipe, torch.device("cpu"))
    assert state.discriminator is not None
    looked_at: list[torch.Tensor] = []
    state.discriminator.register_forward_hook(lambda module, inputs, output: looked_at.append(inputs[0]))
    goal = Objective(losses={"l1": (1.0, l1)}, gan=GAN_LOSSES["vanilla"], gan_weight=0.1)
    train_step(state, batch, goal)
    assert torch.equal(seen["l1"], batch.sharp)
    assert any(torch.equal(image, batch.gt) for image in looked_at)
    assert not any(torch.equal(image, batch.sharp) for image in looked_at)


def test_losses_see_every_phase_of_the_picture(
    pictures: Pictures, extractor_files: dict[str, Path], tmp_path: Path
) -> None:
    """Strided networks that always begin at the same pixel would print their grid into the results."""
    photo, plain = tiny("compact-photo", extractor_files), tiny("compact", extractor_files)
    seen: list[tuple[int, int]] = []
    judged: list[tuple[int, int]] = []

    def l1(sr: torch.Tensor, gt: torch.Tensor) -> torch.Tensor:
        seen.append((int(gt[0, 0, 0, 0]), int(gt[0, 1, 0, 0])))
        return torch.nn.functional.l1_loss(sr, gt)

    assert objective(plain, torch.device("cpu"), Ranks()).shift == 0
    goal = replace(objective(photo, torch.device("cpu"), Ranks()), losses={"l1": (1.0, l1)})
    started, batch = fresh(photo, torch.device("cpu")), Batches(pictures, photo).batch(0)
    batch.gt[:, 0] = torch.arange(batch.gt.shape[-2])[:, None]  # each pixel says where it is
    batch.gt[:, 1] = torch.arange(batch.gt.shape[-1])
    assert started.discriminator is not None
    started.discriminator.register_forward_pre_hook(
        lambda _, inputs: judged.append((int(inputs[0][0, 0, 0, 0]), int(inputs[0][0, 1, 0, 0])))
    )
    for step in range(40):
        train_step(started, batch, goal)
        assert judged.count(seen[step]) >= 2  # GT, for the generator and for the discriminator
    assert {top for top, _ in seen} == {left for _, left in seen} == set(range(9))


@pytest.mark.parametrize("name", ["srgan", "esrgan"])
def test_without_its_adversarial_weight_a_gan_trains_the_same_generator(
    name: str, pictures: Pictures, extractor_files: dict[str, Path], tmp_path: Path
) -> None:
    gan = tiny(name, extractor_files, "gan.weight=0.0")
    run(gan, pictures, tmp_path / "gan")
    run(replace(gan, gan=None, discriminator=None), pictures, tmp_path / "psnr")
    with_gan, without = state(tmp_path / "gan")["generator"], state(tmp_path / "psnr")["generator"]
    assert all(torch.equal(with_gan[key], without[key]) for key in without)


def test_texture_is_asked_for_as_much_as_the_recipe_says_where_lr_is_degraded(
    pictures: Pictures, extractor_files: dict[str, Path]
) -> None:
    weights = [f"losses.{name}=0" for name in ("colour", "reduced", "grid", "blocks", "comb", "excess")]
    recipe = tiny("compact-photo", extractor_files, "degradation.clean=0.5", "degradation.texture=0.25", *weights)
    made = [Batches(pictures, recipe).batch(step) for step in range(12)]
    assert {batch.texture for batch in made} == {0.25, 1.0}
    bicubic = replace(recipe, degradation=replace(recipe.degradation, kind="bicubic"))
    for step, batch in enumerate(made):
        assert torch.equal(batch.lr, Batches(pictures, bicubic).batch(step).lr) == (batch.texture == 1)

    goal = objective(recipe, torch.device("cpu"), Ranks())
    weight, perceptual = goal.losses["perceptual"]
    less = replace(
        goal, losses={**goal.losses, "perceptual": (0.25 * weight, perceptual)}, gan_weight=0.25 * goal.gan_weight
    )
    gradients = [
        float(train_step(fresh(recipe, torch.device("cpu")), made[0]._replace(texture=share), numbers)["gradient"])
        for share, numbers in ((0.25, goal), (1.0, less), (1.0, goal))
    ]
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-4)
    assert gradients[0] != pytest.approx(gradients[2], rel=1e-3)

    steps = []
    for share in (0.25, 1.0):
        state = fresh(recipe, torch.device("cpu"))
        assert state.discriminator is not None
        state.optimizer_d = torch.optim.SGD(state.discriminator.parameters(), 1.0)
        before = [parameter.detach().clone() for parameter in state.discriminator.parameters()]
        train_step(state, made[0]._replace(texture=share), goal)
        steps.append([new - old for new, old in zip(state.discriminator.parameters(), before, strict=True)])
    torch.testing.assert_close([4 * part for part in steps[0]], steps[1], rtol=1e-3, atol=1e-6)


def test_a_gan_run_resumes_bit_for_bit(
    pictures: Pictures, extractor_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny("compact-photo", extractor_files, "optim.warmup=2")
    whole = run(recipe, pictures, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("upscale.train.loop._interruptible", StopsAfter(10))
        first = run(recipe, pictures, tmp_path / "half")
    second = run(recipe, pictures, tmp_path / "half", resume=True)
    assert len(first) == len(second) == 10
    for name in ("l1_luma", "perceptual", "adversarial", "discriminator"):
        assert [event[name] for event in first + second] == [event[name] for event in whole]
    for part in ("generator", "discriminator"):
        a, b = state(tmp_path / "whole")[part], state(tmp_path / "half")[part]
        assert all(torch.equal(a[key], b[key]) for key in a)


class StopsAfter:
    """Stands in for the signal handler: asks for a stop once it has been looked at ``count`` times."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self) -> StopsAfter:
        return self

    def __enter__(self) -> StopsAfter:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_a_perceptual_loss_without_weights_is_an_error_before_any_work(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSCALE_OFFLINE", "1")
    recipe = replace(load_recipe("compact-photo"), init=None)
    with pytest.raises(ConfigError, match="needs the weights of squeezenet"):
        run(recipe, pictures, tmp_path / "run")
    assert not (tmp_path / "run" / "state.pt").exists()


def test_weights_of_another_extractor_are_refused(
    pictures: Pictures, extractor_files: dict[str, Path], tmp_path: Path
) -> None:
    recipe = tiny("compact-photo", extractor_files)
    recipe = replace(recipe, perceptual=replace(recipe.perceptual, file=str(extractor_files["vgg19"])))
    with pytest.raises(IncompatibleCheckpoint, match="missing"):
        run(recipe, pictures, tmp_path / "run")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("gan.kind=wgan", "expected one of 'vanilla'"),
        ("perceptual.layers.conv9_9=1.0", "has no layer 'conv9_9'"),
        ("degradation.kind=blur", "expected one of 'bicubic', 'blind'"),
        ("optim.betas=[0.9]", "needs two numbers"),
        ("data.gt_size=8", "gt_size 8 is too small: networks that judge"),
    ],
)
def test_a_wrong_number_is_named(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_recipe("esrgan", [override])


def test_a_misspelt_recipe_is_guessed() -> None:
    with pytest.raises(UsageError, match="unknown recipe 'compact-foto'") as caught:
        load_recipe("compact-foto")
    assert "did you mean 'compact-photo'?" in str(caught.value.hint)


def test_a_discriminator_may_stand_still() -> None:
    assert load_recipe("compact-photo", ["gan.lr=0"]).rate_d == 0
    assert load_recipe("esrgan").rate_d == load_recipe("esrgan").optim.lr


@pytest.mark.parametrize("norm", ["batch", "spectral"])
def test_a_patch_discriminator_judges_places(norm: str) -> None:
    torch.manual_seed(0)
    judge = build_discriminator({"arch": "patch", "num_feat": 4, "norm": norm}, "test")
    assert judge(torch.rand(2, 3, 64, 48)).shape == (2, 1, 6, 4)
    assert any(isinstance(layer, torch.nn.BatchNorm2d) for layer in judge.modules()) == (norm == "batch")
    if norm == "spectral":
        for parameter in judge.parameters():
            parameter.data *= 100
        judge(torch.rand(2, 3, 64, 48))  # power iterations
        layers = [layer for layer in judge.modules() if isinstance(layer, torch.nn.Conv2d) and is_parametrized(layer)]
        steepest = [float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) for layer in layers]
        assert steepest == pytest.approx([1.0] * 3, abs=0.1)


def test_a_gan_needs_a_discriminator() -> None:
    with pytest.raises(UsageError, match="go together"):
        load_recipe("compact", ["gan.kind=vanilla", "gan.weight=1.0"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("data.batch_size=0", "data.batch_size is 0, must be at least 1"),
        ("data.candidates=0", "data.candidates is 0"),
        ("data.gt_size=0", "data.gt_size is 0"),
        ("seed=-1", "seed is -1"),
        ("losses={}", "losses has none"),
        ("losses.l1_luma=nan", "losses.l1_luma is nan"),
        ("losses.l1_luma=-1", "losses.l1_luma is -1"),
        ("generator.scale=0", "generator.scale is 0"),
        ("generator.scale=four", "generator.scale is 'four'"),
        ("optim.lr=nan", "optim.lr is nan"),
        ("optim.lr=-1", "optim.lr is -1"),
        ("optim.warmup=-1", "optim.warmup is -1"),
        ("optim.final=-3", "optim.final is -3"),
        ("optim.clip=0", "optim.clip is 0"),
        ("optim.betas=[2,3]", "optim.betas are [2.0, 3.0]"),
        ("ema_decay=2", "ema_decay is 2"),
        ("degradation.clean=2", "degradation.clean is 2"),
        ("degradation.first.resize=[1]", "resize is"),
        ("degradation.first.sigma=[0,0]", "sigma is"),
        ("degradation.second.jpeg=[0,0]", "jpeg is"),
        ("degradation.first.factor=[0,0]", "factor is"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(change: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe("compact", [change])
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("compact", "generator.num_feat=0", "generator.num_feat: 0 is too small"),
        ("compact", "generator.num_conv=-1", "generator.num_conv: -1 is too small"),
        ("compact", "generator.arch=resnet", "generator.arch: expected one of"),
        ("compact", "generator={arch='bicubic'}", "generator.arch 'bicubic' has nothing that could be trained"),
        ("srcnn", "generator.kernels=[9,-1,5]", "generator: "),
        ("esrgan", "discriminator.arch=[1]", "discriminator.arch: expected one of"),
        ("rrdbnet", "generator.scale=2", "data.gt_size 34 is not a multiple of 4, as this network needs"),
    ],
)
def test_networks_that_cannot_be_are_refused(name: str, change: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe(name, [change, *(["data.gt_size=34"] if name == "rrdbnet" else [])])
    assert said in caught.value.message


def test_a_recipe_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes(b"steps = 4\xff")
    with pytest.raises(ConfigError, match=r"recipe\.toml: .*utf-8"):
        load_recipe(str(tmp_path / "recipe.toml"))
