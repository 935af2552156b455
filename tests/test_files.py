from __future__ import annotations

import errno
import os
import signal
import subprocess
from pathlib import Path

import pytest
from PIL import Image as PILImage

from tests.conftest import killed_at, picture
from upscale.errors import DiskFull
from upscale.files import part_prefix, replacing, said_of, write_text


def test_a_name_appears_only_with_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    with replacing(path) as temporary:
        temporary.write_bytes(b"half")
        assert not path.exists()
        assert temporary.suffix == ".bin"
    assert path.read_bytes() == b"half"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_kill_in_the_middle_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    PILImage.fromarray(picture(500, 500)).save(tmp_path / "photo.png")
    command = killed_at("tile", 1, "photo.png", "-m", "bicubic", "-x", "4", "--tile", "64")
    done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.DEVNULL, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "photo_x4.png").exists()


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, fsync = tmp_path / "x.bin", os.fsync
    found: list[bool] = []

    def seen(file: int) -> None:
        found.append(path.exists())
        fsync(file)

    monkeypatch.setattr(os, "fsync", seen)
    with replacing(path) as temporary:
        temporary.write_bytes(b"whole")
    assert found == [False]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_quota_is_a_full_disk(tmp_path: Path, number: int) -> None:
    with pytest.raises(DiskFull, match="no room left"), said_of(tmp_path / "a.png"):
        raise OSError(number, os.strerror(number))


def test_names_that_are_not_utf8_can_be_written_of(tmp_path: Path) -> None:
    write_text(tmp_path / "a.html", "of " + os.fsdecode(b"caf\xe9"))
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == "of caf\\udce9"


def test_the_longest_names_can_be_written_and_no_two_share_a_part(tmp_path: Path) -> None:
    paths = [tmp_path / f"{'n' * 250}{index}.png" for index in range(2)]
    for path in paths:
        with replacing(path) as temporary:
            temporary.write_bytes(b"")
        assert path.exists()
    assert part_prefix(paths[0]) != part_prefix(paths[1])
