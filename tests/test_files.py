from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from PIL import Image as PILImage

from tests.conftest import killed_at, picture
from upscale.files import replacing


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
