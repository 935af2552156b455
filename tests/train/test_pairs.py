"""LR and GT pictures that belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from tests.conftest import picture
from tests.train.conftest import recipe, run
from upscale.errors import InputError
from upscale.train.data import Batches, Pictures
from upscale.train.pairs import open_pairs


def save(path: Path, height: int, width: int, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = picture(height, width, seed)
    PILImage.fromarray(pixels).save(path)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """GT and LR of scale 2, whose LR is every second pixel; under the same name, with x2 and with _x2 after it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    gt, lr = tmp_path / "gt", tmp_path / "lr"
    for seed, (name, lr_name) in enumerate({"a": "a", "sub/b": "sub/bx2", "c": "c_x2"}.items()):
        save(gt / f"{name}.png", 41 + seed, 52, seed)
        with PILImage.open(gt / f"{name}.png") as image:
            pixels = np.asarray(image)[: (41 + seed) // 2 * 2 : 2, ::2]
        (lr / lr_name).parent.mkdir(parents=True, exist_ok=True)
        PILImage.fromarray(pixels).save(lr / f"{lr_name}.png")
    return gt, lr


def open_folders(folders: tuple[Path, Path], *overrides: str) -> Pictures:
    return open_pairs(*folders, recipe(*overrides))


def test_crops_of_both_are_the_same_place_in_the_same_orientation(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pictures = open_folders(folders)
    assert sorted(pictures.names) == ["a.png", "c.png", "sub/b.png"]
    batches = Batches(pictures, recipe("data.batch_size=8", "data.candidates=2"))
    seen = set()
    for step in range(3):
        batch = batches.batch(step)
        assert batch.lr.shape == (8, 3, 8, 8)
        for lr, gt in zip(batch.lr, batch.gt, strict=True):
            # Every second pixel, from one of the four corners: which one, the orientation decides.
            corners = [gt[:, y::2, x::2] for y in (0, 1) for x in (0, 1)]
            found = [index for index, corner in enumerate(corners) if torch.equal(corner, lr)]
            assert found
            seen.update(found)
    assert len(seen) == 4
    assert torch.equal(batches.batch(1).gt, Batches(pictures, batches.recipe).batch(1).gt)
    result, _ = run(recipe("steps=2"), pictures, tmp_path / "run")
    assert result.finished
    assert "| LR | given with the pictures |" in result.generator.with_suffix(".md").read_text(encoding="utf-8")


def test_what_does_not_match_is_named(folders: tuple[Path, Path]) -> None:
    gt, lr = folders
    save(gt / "lonely.png", 40, 40)
    with pytest.raises(InputError, match=r"lr: no LR for lonely\.png of .*gt") as caught:
        open_folders(folders)
    assert "0001x2.png" in str(caught.value.hint)
    save(lr / "lonely.png", 20, 20)
    save(lr / "stranger.png", 20, 20)
    with pytest.raises(InputError, match=r"gt: no GT for stranger of .*lr"):
        open_folders(folders)
    (lr / "stranger.png").unlink()
    save(lr / "lonelyx2.png", 20, 20)
    with pytest.raises(InputError, match=r"lonely\.png and lonelyx2\.png are both LR of lonely\.png"):
        open_folders(folders)
    (lr / "lonelyx2.png").unlink()
    open_folders(folders)
    save(gt / "lonely.bmp", 40, 40)
    with pytest.raises(InputError, match=r"lonely\.bmp and lonely\.png are one name to LR"):
        open_folders(folders)


def test_lr_may_lie_in_the_folder_of_gt(folders: tuple[Path, Path]) -> None:
    gt, lr = folders
    lr.rename(gt / "small")
    assert sorted(open_folders((gt, gt / "small")).names) == ["a.png", "c.png", "sub/b.png"]


def test_a_pair_of_another_scale_is_refused_before_anything_is_decoded(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    save(folders[1] / "a.png", 10, 13)
    monkeypatch.setattr("upscale.train.data.read_image", lambda path: pytest.fail("decoded"))
    with pytest.raises(InputError, match=r"a\.png: 13x10, but x2 of GT, 52x41, is 26x20"):
        open_folders(folders)


def test_a_pair_with_a_broken_half_is_skipped(folders: tuple[Path, Path]) -> None:
    (folders[1] / "a.png").write_text("not a picture")
    pictures = open_folders(folders)
    assert sorted(pictures.names) == ["c.png", "sub/b.png"]
    assert any("a.png: not an image" in text for text in pictures.skipped)
    for name in ("sub/bx2.png", "c_x2.png"):
        (folders[1] / name).write_text("not a picture")
    with pytest.raises(InputError, match="none of its 3 pictures can be used"):
        open_folders(folders)
