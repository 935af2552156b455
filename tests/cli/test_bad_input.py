"""The worst that a user can type or own: one clear line, the right exit code, nothing half-written."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from shutil import which

import pytest
import torch
from PIL import Image as PILImage

from tests.conftest import network, picture
from upscale.checkpoint import save_generator
from upscale.cli import main

Outcome = tuple[int, str, str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run the program in ``tmp_path``; return exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Outcome:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        streams = capsys.readouterr()
        assert "Traceback" not in streams.err
        return int(caught.value.code or 0), streams.out, streams.err

    return run


def save_picture(path: Path, height: int = 12, width: int = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PILImage.fromarray(picture(height, width)).save(path)
    return path


def bomb() -> bytes:
    """A PNG whose header promises 50000x50000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50000, 50000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


BAD_FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "text.png": (lambda: b"not a picture at all\n", "not an image"),
    "empty.png": (lambda: b"", "empty"),
    "bomb.png": (bomb, "megapixels"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_no_picture(run: Callable[..., Outcome], tmp_path: Path, name: str) -> None:
    content, fact = BAD_FILES[name]
    (tmp_path / name).write_bytes(content())
    code, out, err = run(name, "-m", "bicubic", "-x", "2")
    assert code == 1
    assert out == ""
    assert err.startswith(f"error: {name}: ")
    assert fact in err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_truncated_jpeg(run: Callable[..., Outcome], tmp_path: Path) -> None:
    whole = save_picture(tmp_path / "whole.jpg", 200, 200).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    code, _, err = run("cut.jpg", "-m", "bicubic")
    assert code == 1
    assert "cut.jpg: damaged or cut short" in err
    assert not (tmp_path / "cut_x4.jpg").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "fact"),
    [
        (["missing.jpg", "-m", "bicubic"], 1, "missing.jpg: no such file"),
        (["nothing-here", "-m", "bicubic"], 1, "no pictures in it"),
        (["ok.png", "-m", "compct"], 2, "unknown model 'compct'"),
        (["ok.png", "-m", "gone.pth"], 2, "gone.pth: no such checkpoint file"),
        (["ok.png", "-m", "bicubic", "-x", "0"], 2, "between 1 and 32"),
        (["ok.png", "-m", "bicubic", "-x", "33"], 2, "between 1 and 32"),
        (["ok.png", "-m", "bicubic", "-x", "abc"], 2, "'abc' is not a number"),
        (["ok.png", "-m", "bicubic", "-x", "1e400"], 2, "'1e400' is not a number"),
        (["ok.png", "-m", "bicubic", "--width", "1e400"], 2, "'1e400' is not a number"),
        (["ok.png", "-m", "bicubic", "-j", "²"], 2, "'²' is not a number"),
        (["ok.png", "-m", "bicubic", "-g", "²"], 2, "'²' is not a number"),
        (["watch", ".", "-o", "out", "--interval", "1e300"], 2, "--interval"),
        (["ok.png", "-m", "bicubic", "--tile", "7"], 2, "a tile of 7 is too small"),
        (["ok.png", "-m", "bicubic", "--tile", "wide"], 2, "'wide' is not a whole number"),
        (["ok.png", "-m", "bicubic", "--tile", "64", "--overlap", "40"], 2, "more than half"),
        (["ok.png", "-m", "bicubic", "--device", "tpu"], 2, "no such device"),
        (["ok.png", "-m", "bicubic", "--device", "cpu,tpu"], 2, "--device tpu: no such device"),
        (["ok.png", "-m", "bicubic", "-f", "docx"], 2, "cannot be written"),
        (["ok.png", "-m", "bicubic", "-f", "tga"], 2, "cannot be written"),
        (["ok.png", "-m", "bicubic", "-o", "ok.tga"], 2, "ok.tga: cannot write .tga"),
        (["ok.png", "-m", "bicubic", "-x", "2", "-o", "ok.png"], 1, "is an input"),
        (["ok.png", "-m", "bicubic", "-x", "2", "-o", "ok.png/out"], 1, "is a file"),
        (["ok.png", "other.png", "-m", "bicubic", "-o", "out.png"], 1, "several pictures"),
        (["--no-such-option"], 2, "No such option"),
    ],
)
def test_wrong_arguments(
    run: Callable[..., Outcome], tmp_path: Path, arguments: list[str], code: int, fact: str
) -> None:
    save_picture(tmp_path / "ok.png")
    save_picture(tmp_path / "other.png")
    (tmp_path / "nothing-here").mkdir()
    before = sorted(tmp_path.rglob("*"))
    actual, _, err = run(*arguments)
    assert actual == code
    assert fact in err
    assert sorted(tmp_path.rglob("*")) == before


def test_cuda_without_cuda(run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    save_picture(tmp_path / "ok.png")
    code, _, err = run("ok.png", "-m", "bicubic", "--device", "cuda")
    assert code == 1
    assert "--device cuda" in err
    assert "hint: `upscale doctor`" in err


def test_a_misspelt_model_is_guessed(run: Callable[..., Outcome], tmp_path: Path) -> None:
    save_picture(tmp_path / "ok.png")
    _, _, err = run("ok.png", "-m", "bicubik")
    assert "did you mean 'bicubic'?" in err


ROOT = os.geteuid() == 0


RIGHTS = "-dac_override,-dac_read_search"
WITHOUT = ["setpriv", f"--bounding-set={RIGHTS}", f"--inh-caps={RIGHTS}"] if ROOT else []
locks = pytest.mark.skipif(ROOT and which("setpriv") is None, reason="root may do everything; setpriv would forbid it")


def run_locked_out(tmp_path: Path, right: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program without the rights of root; ``right`` is what the folder ``locked`` must deny."""
    if subprocess.run([*WITHOUT, "test", right, "locked"], cwd=tmp_path, check=False).returncode == 0:
        pytest.skip("this user may do everything")
    command = [*WITHOUT, sys.executable, "-m", "upscale", *arguments, "-m", "bicubic", "-x", "2"]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)


@locks
def test_a_folder_without_permission(tmp_path: Path) -> None:
    save_picture(tmp_path / "ok.png")
    (tmp_path / "locked").mkdir(mode=0o555)
    done = run_locked_out(tmp_path, "-w", "ok.png", "-o", "locked/")
    assert done.returncode == 1
    assert done.stderr.startswith("error: locked: no permission to write")
    (tmp_path / "locked").chmod(0o755)
    save_picture(tmp_path / "locked" / "in.png")
    (tmp_path / "locked").chmod(0o555)
    done = run_locked_out(tmp_path, "-w", "locked/in.png", "ok.png")
    assert (done.returncode, done.stdout) == (1, "ok_x2.png\n")
    assert "1 done, 1 failed\n  locked/in.png  locked: no permission to write" in done.stderr


@locks
def test_a_subfolder_that_cannot_be_read_is_told_and_the_others_are_done(tmp_path: Path) -> None:
    save_picture(tmp_path / "a" / "ok.png")
    (tmp_path / "a" / "locked").mkdir(mode=0)
    (tmp_path / "locked").mkdir(mode=0)
    done = run_locked_out(tmp_path, "-r", "a", "-o", "b")
    assert done.returncode == 1
    assert done.stdout == "b/ok.png\n"
    assert "a/locked: Permission denied" in done.stderr
    assert "1 done, 1 failed" in done.stderr
    assert run_locked_out(tmp_path, "-r", "locked").stderr == "error: locked: Permission denied\n"


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch pwned",)


def test_a_checkpoint_with_code_in_it_is_refused(run: Callable[..., Outcome], tmp_path: Path) -> None:
    save_picture(tmp_path / "ok.png")
    torch.save({"params": Evil()}, tmp_path / "zipped.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Evil()))
    for name, fact in (("zipped.pth", "could run code"), ("plain.pth", "not a readable checkpoint")):
        code, _, err = run("ok.png", "-m", name)
        assert code == 1
        assert err.startswith("error: ")
        assert fact in err
    assert not (tmp_path / "pwned").exists()


def test_a_checkpoint_that_does_not_fit(run: Callable[..., Outcome], tmp_path: Path) -> None:
    save_picture(tmp_path / "ok.png")
    tensors = network(arch="compact", num_feat=8, num_conv=2).state_dict()
    del tensors["body.2.bias"]
    torch.save(tensors, tmp_path / "short.pth")
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    (tmp_path / "noise.pth").write_bytes(b"\x00\x01\x02" * 99)
    (tmp_path / "noise.safetensors").write_bytes(b"\x00\x01\x02" * 99)
    for name, fact in (
        ("short.pth", "missing: body.2.bias"),
        ("other.pth", "no known architecture"),
        ("noise.pth", "not a readable checkpoint"),
        ("noise.safetensors", "not a readable checkpoint"),
    ):
        code, _, err = run("ok.png", "-m", name)
        assert code == 1
        assert fact in err, name


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 50)])
@pytest.mark.parametrize("arch", ["bicubic", "compact", "rrdbnet"])
def test_tiny_pictures_are_done(run: Callable[..., Outcome], tmp_path: Path, size: tuple[int, int], arch: str) -> None:
    save_picture(tmp_path / "tiny.png", *size)
    model = "bicubic"
    if arch != "bicubic":
        small = {"num_feat": 8, "num_conv": 2} if arch == "compact" else {"num_feat": 8, "num_block": 1}
        save_generator(tmp_path / "net.safetensors", network(arch=arch, scale=2, **small), {}, torch.float16)
        model = "net.safetensors"
    code, out, _ = run("tiny.png", "-m", model, "-x", "2")
    assert code == 0
    assert out.strip() == "tiny_x2.png"
    with PILImage.open(tmp_path / "tiny_x2.png") as result:
        assert result.size == (2 * size[1], 2 * size[0])


@pytest.mark.parametrize(
    "name",
    [
        "a b.png",
        'it\'s "x".png',
        "[a] (1).png",
        "日本語 #1 [x].png",
        "🙂.png",
        "-dash.png",
        "12:100:30.png",
        "t\tb.png",
    ],
)
def test_any_name(run: Callable[..., Outcome], tmp_path: Path, name: str) -> None:
    try:
        save_picture(tmp_path / name)
    except OSError:
        pytest.skip("no name on this system")
    result = name.replace(".png", "_x2.png")
    assert run("-m", "bicubic", "-x", "2", "--dry-run", "--", name)[1] == f"{name} 10x12 -> {result} 20x24\n"
    assert run("-m", "bicubic", "-x", "2", "--", name)[:2] == (0, f"{result}\n")
    assert (tmp_path / result).exists()
    assert run("compare", "--", name, name)[1].splitlines()[-1].startswith(f"1: {name} ")


def test_a_bad_file_does_not_stop_a_folder(run: Callable[..., Outcome], tmp_path: Path) -> None:
    for name in ("a.png", "sub/b.jpg", "sub/deep/c.webp"):
        save_picture(tmp_path / "in" / name)
    (tmp_path / "in" / "bad.png").write_text("text")
    (tmp_path / "in" / "notes.txt").write_text("text")
    code, out, err = run("in", "-m", "bicubic", "-x", "2")
    assert code == 1
    results = (path.relative_to(tmp_path) for path in (tmp_path / "in_x2").rglob("*") if path.is_file())
    done = sorted(str(path) for path in results if ".upscale" not in path.parts)
    assert done == ["in_x2/a.png", "in_x2/sub/b.jpg", "in_x2/sub/deep/c.webp"]
    assert len(out.splitlines()) == 3
    assert "3 done, 1 failed" in err
    assert "bad.png: not an image" in err


def test_a_name_that_is_taken_does_not_stop_the_others(run: Callable[..., Outcome], tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c/a.png"):
        save_picture(tmp_path / name)
    (tmp_path / "a_x2.png").write_text("precious")
    code, out, err = run("a.png", "b.png", "-m", "bicubic", "-x", "2")
    assert (code, out) == (1, "b_x2.png\n")
    assert "1 done, 1 failed\n  a.png  a_x2.png: exists already\n" in err
    code, out, err = run("a.png", "b.png", "c/a.png", "-o", "out", "-m", "bicubic", "-x", "2")
    assert (code, out) == (1, "out/b.png\n")
    assert "1 done, 2 failed\n  a.png    would become out/a.png, and so would c/a.png\n" in err
    assert (tmp_path / "a_x2.png").read_text() == "precious"


def test_nothing_is_replaced_without_force(run: Callable[..., Outcome], tmp_path: Path) -> None:
    save_picture(tmp_path / "ok.png")
    (tmp_path / "ok_x2.png").write_text("precious")
    code, _, err = run("ok.png", "-m", "bicubic", "-x", "2")
    assert code == 1
    assert "exists already" in err
    assert (tmp_path / "ok_x2.png").read_text() == "precious"
    assert run("ok.png", "-m", "bicubic", "-x", "2", "--force")[0] == 0
    with PILImage.open(tmp_path / "ok_x2.png") as result:
        assert result.size == (20, 24)
