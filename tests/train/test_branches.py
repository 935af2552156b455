"""Branches that are trained, and the one convolution that is saved."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.conftest import network
from tests.train.conftest import CPU, losses, recipe, run
from upscale.checkpoint import load_generator, read_metadata
from upscale.errors import UsageError
from upscale.train.branches import Branches, add_branches, without_branches
from upscale.train.data import Pictures
from upscale.train.saving import averaged, load_state
from upscale.train.start import hold


@pytest.mark.parametrize(("inputs", "outputs"), [(5, 5), (3, 7)])
def test_the_folded_kernel_is_the_sum_of_the_branches(inputs: int, outputs: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, dtype=torch.float64)
    branches = Branches(layer, 2).double()
    for parameter in branches.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, inputs, 9, 8, dtype=torch.float64)
    expected = layer(x) + F.conv2d(F.conv2d(x, branches.before), branches.after, padding=1)
    if inputs == outputs:
        assert branches.gain is not None
        expected = expected + branches.gain[:, None, None] * x
    torch.testing.assert_close(F.conv2d(x, branches(layer.weight), layer.bias, padding=1), expected)


@pytest.mark.parametrize("arch", ["compact", "srresnet", "rrdbnet"])
def test_a_network_starts_as_without_and_folds_to_its_own_architecture(arch: str) -> None:
    small = {"num_feat": 4, **({"num_conv": 2} if arch == "compact" else {"num_block": 1})}
    plain = network(arch=arch, scale=4, **small).double()
    branched = copy.deepcopy(plain)
    add_branches(branched, 2)
    branched.double()
    x = torch.rand(1, 3, 7, 6, dtype=torch.float64)
    torch.testing.assert_close(branched(x), plain(x))
    for name, parameter in branched.named_parameters():
        if "parametrizations" in name:
            parameter.data += 0.05 * torch.randn_like(parameter)
    folded = without_branches(branched)
    assert folded.state_dict().keys() == plain.state_dict().keys()
    assert not torch.allclose(folded(x), plain(x))
    torch.testing.assert_close(folded(x), branched(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["muon", "adam"])
def test_a_run_with_branches_saves_a_plain_network_and_resumes(pictures: Pictures, tmp_path: Path, kind: str) -> None:
    numbers = recipe("branches=2", f"optim.kind={kind}", "steps=12", "valid_every=4")
    result, events = run(numbers, pictures, tmp_path / "run")
    saved = load_generator(result.generator)
    assert read_metadata(result.generator)["network"]["arch"] == "compact"
    state = load_state(numbers, tmp_path / "run", CPU)
    kernel = averaged(state).state_dict()["body.2.weight"]
    torch.testing.assert_close(saved.state_dict()["body.2.weight"], kernel, rtol=1e-3, atol=1e-3)
    branches = [layer for layer in state.generator.modules() if isinstance(layer, Branches)]
    assert len(branches) == 4
    assert all(bool(layer.after.any()) for layer in branches), "they have learnt"
    assert losses(events) != losses(run(recipe("steps=12", f"optim.kind={kind}"), pictures, tmp_path / "plain")[1])


def test_only_features_that_pass_on_lr_are_held() -> None:
    generator = network(arch="compact", num_feat=8, num_conv=2).requires_grad_(True)
    add_branches(generator, 1)  # as many inner channels as outputs
    held = generator.passing()["body.2"]
    hold(generator)
    branches = generator.get_submodule("body.2.parametrizations.weight.0")
    assert isinstance(branches, Branches)
    branches.after.data.normal_()
    generator(torch.rand(1, 3, 6, 6)).square().mean().backward()
    assert branches.before.grad is not None
    assert branches.before.grad.flatten(1).any(1).all()
    assert branches.after.grad is not None
    learning = branches.after.grad.flatten(1).any(1)
    assert learning.tolist() == [False] * held + [True] * (8 - held)


def test_fewer_than_no_branches() -> None:
    with pytest.raises(UsageError, match="branches is -1"):
        recipe("branches=-1")
