"""Pictures in folders, and in what these link to."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from upscale.errors import InputError
from upscale.images import pictures_in

links = pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")


def touch(*paths: Path) -> list[Path]:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return list(paths)


def test_subfolders_are_looked_into_but_for_hidden_ones_and_one_that_is_left_out(tmp_path: Path) -> None:
    a, b, _, _, c = touch(*(tmp_path / name for name in ("a.png", "b/b.JPG", ".h/h.png", ".h.png", "out/c.png")))
    touch(tmp_path / "note.txt", tmp_path / "b" / "._b.jpg")
    assert pictures_in(tmp_path) == [a, b, c]
    assert pictures_in(tmp_path, leaving=[tmp_path / "out"]) == [a, b]
    assert pictures_in(tmp_path, leaving=[tmp_path]) == [a, b, c]
    assert pictures_in(tmp_path, recursive=False) == [a]


@links
def test_a_link_to_a_folder_is_followed_and_one_that_leads_back_is_not(tmp_path: Path) -> None:
    folder, album = tmp_path / "holiday", tmp_path / "album"
    a, b = touch(folder / "a.png", album / "deep" / "b.png")
    (folder / "album").symlink_to(album)
    (folder / "again").symlink_to(album / "deep")
    (album / "deep" / "round").symlink_to(folder)
    (album / "up").symlink_to(tmp_path)
    (folder / "self").symlink_to(".")
    (folder / "gone").symlink_to("nowhere")
    assert pictures_in(folder) == [a, folder / "again" / b.name, folder / "album" / "deep" / b.name]


@links
def test_a_link_to_a_picture_that_is_gone_is_told_of(tmp_path: Path) -> None:
    (a,) = touch(tmp_path / "a.png")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "round.png").symlink_to("round.png")
    (tmp_path / "gone").symlink_to("nowhere")
    assert pictures_in(tmp_path) == [a, tmp_path / "gone.png", tmp_path / "round.png"]


@links
def test_a_folder_is_found_through_a_link_to_it(tmp_path: Path) -> None:
    touch(tmp_path / "real" / "sub" / "a.png")
    (tmp_path / "link").symlink_to("real")
    assert pictures_in(tmp_path / "link") == [tmp_path / "link" / "sub" / "a.png"]


def test_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none: No such file"):
        pictures_in(tmp_path / "none")
