from __future__ import annotations

import pytest
import torch

from upscale.train.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (16, 16)])
def test_orthogonalise_keeps_singular_vectors_and_levels_singular_values(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape)
    u, _, vt = torch.linalg.svd(matrices, full_matrices=False)
    result = orthogonalise(matrices)
    in_their_basis = u.mT @ result @ vt.mT
    diagonal = in_their_basis.diagonal(dim1=1, dim2=2)
    assert float(diagonal.min()) > 0.5
    assert float(diagonal.max()) < 1.3
    assert float((in_their_basis - torch.diag_embed(diagonal)).abs().max()) < 1e-3


def test_vectors_follow_adam() -> None:
    torch.manual_seed(0)
    start = torch.randn(7)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    muon, adam = Muon([ours], lr=0.01), torch.optim.Adam([theirs], lr=0.01, betas=(0.9, 0.99))
    for step in range(5):
        for parameter, optimizer in ((ours, muon), (theirs, adam)):
            parameter.grad = parameter.detach() * (step + 1) - 0.3
            optimizer.step()
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_a_matrix_reaches_its_target() -> None:
    torch.manual_seed(0)
    target = torch.randn(6, 5, 3, 3)
    parameter = torch.nn.Parameter(torch.zeros_like(target))
    optimizer = Muon([parameter], lr=0.2)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / 300)
        optimizer.zero_grad()
        (parameter - target).square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert float((parameter - target).abs().max().detach()) < 0.05
