"""Networks one after the other, and over eight orientations."""

from __future__ import annotations

import pytest
import torch

from upscale.models import Chain, Generator, SelfEnsemble, build
from upscale.models.base import note, read_notes


def network(seed: int, **config: object) -> Generator:
    torch.manual_seed(seed)
    generator = build({"arch": "compact", "scale": 2, "num_feat": 4, "num_conv": 1, **config}, "test")
    generator.initialise()
    return generator.eval().requires_grad_(False)


LR = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(0))


def test_chain_is_one_network_after_the_other() -> None:
    first, second = network(0), network(1, scale=3)
    chain = Chain([first, second])
    assert chain.scale == 6
    torch.testing.assert_close(chain(LR), second(first(LR).clamp(0, 1)))


def test_chain_sees_as_far_as_its_parts_together() -> None:
    first, second = network(0, num_conv=3), network(1, num_conv=2)
    chain = Chain([first, second])
    assert chain.radius == 5 + 2  # four pixels of the second are two of the first
    lr = torch.rand(1, 3, 4, 25)
    changed = lr.clone()
    changed[..., 12] = 1 - changed[..., 12]
    moved = torch.nonzero((chain(changed) - chain(lr)).abs().amax((0, 1, 2)) > 1e-9)[:, 0]
    assert moved.min() >= 4 * (12 - chain.radius)
    assert moved.max() < 4 * (12 + chain.radius + 1)


def test_chain_takes_sizes_that_suit_every_part() -> None:
    x2 = build({"arch": "rrdbnet", "scale": 2, "num_feat": 4, "num_block": 1, "num_grow_ch": 2}, "test")
    x1 = build({"arch": "rrdbnet", "scale": 1, "num_feat": 4, "num_block": 1, "num_grow_ch": 2}, "test")
    assert (x2.multiple_of, x1.multiple_of) == (2, 4)
    assert Chain([x2, x1]).multiple_of == 2
    assert Chain([x1, x2]).multiple_of == 4
    assert Chain([network(0), x1]).multiple_of == 2


def test_chain_that_ends_in_interpolation_reaches_any_scale() -> None:
    chain = Chain([network(0), build({"arch": "bicubic"}, "test")])
    assert chain.any_scale
    assert chain.at_scale(5).scale == 6
    assert chain.at_scale(5)(LR).shape == (1, 3, 72, 96)


def test_self_ensemble_turns_with_the_picture() -> None:
    ensemble = SelfEnsemble(network(0))
    sr = ensemble(LR)
    assert not torch.allclose(network(0)(LR), sr, atol=1e-4)
    torch.testing.assert_close(ensemble(LR.flip(-1)), sr.flip(-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(ensemble(torch.rot90(LR, 1, (-2, -1))), torch.rot90(sr, 1, (-2, -1)), atol=1e-5, rtol=0)


def test_self_ensemble_of_a_symmetric_network_is_that_network() -> None:
    bicubic = build({"arch": "bicubic", "scale": 3}, "test")
    torch.testing.assert_close(SelfEnsemble(bicubic)(LR), bicubic(LR), atol=1e-5, rtol=0)
    assert SelfEnsemble(bicubic).at_scale(2).scale == 2


def test_parts_keep_their_edges_in_float32() -> None:
    ensemble = SelfEnsemble(network(0))
    ensemble.to_precision(torch.bfloat16)
    kinds = {name: parameter.dtype for name, parameter in ensemble.named_parameters()}
    assert kinds["parts.0.body.0.weight"] is torch.float32
    assert kinds["parts.0.body.2.weight"] is torch.bfloat16
    assert ensemble(LR).dtype is torch.float32


@pytest.mark.parametrize("value", [False, 0.25, 3, "prelu-each"])
def test_note_is_read_as_it_was_written(value: object) -> None:
    name = note("x", value)
    assert "." not in name
    assert read_notes([name, "body.0.weight"]) == {"x": value}
