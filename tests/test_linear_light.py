from __future__ import annotations

import torch

from upscale.imaging import BandResizer


def reduced(image: torch.Tensor, *, linear_light: bool, step: int) -> torch.Tensor:
    height, width = image.shape[1:]
    resizer = BandResizer(height, width, height // 2, width // 2, linear_light=linear_light)
    return torch.cat([rows for top in range(0, height, step) for rows in resizer.push(image[:, top : top + step])], 1)


def test_half_of_the_light_is_level_188() -> None:
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    checkers = ((x + y) % 2).float().expand(3, -1, -1)
    for linear_light, level in ((True, 187.5), (False, 127.5)):
        inside = 255 * reduced(checkers, linear_light=linear_light, step=64)[:, 8:-8, 8:-8]
        assert torch.allclose(inside, torch.tensor(level), atol=0.1)


def test_flat_colours_stay_and_bands_do_not_matter() -> None:
    flat = torch.tensor([0.0, 0.3, 1.0])[:, None, None].expand(3, 200, 40)
    assert torch.allclose(reduced(flat, linear_light=True, step=200), flat[:, :100, :20], atol=1e-5)
    noise = torch.rand(3, 200, 40, generator=torch.Generator().manual_seed(0))
    whole, banded = (reduced(noise, linear_light=True, step=step) for step in (200, 7))
    assert torch.allclose(whole, banded, atol=1e-5)


def test_enlarging_is_not_touched() -> None:
    noise = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0))
    results = []
    for linear_light in (False, True):
        resizer = BandResizer(20, 20, 30, 30, linear_light=linear_light)
        results.append(torch.cat(list(resizer.push(noise)), 1))
    assert torch.equal(*results)
