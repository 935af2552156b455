"""Files that hold weights, in any wrapping, and files that only claim to."""

from __future__ import annotations

import argparse
import collections
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from upscale.checkpoint import load_generator, read_metadata, save_generator
from upscale.errors import IncompatibleCheckpoint
from upscale.models import Generator, build
from upscale.statedict import read_state_dict

TINY = {"arch": "compact", "scale": 2, "num_feat": 4, "num_conv": 1}


@pytest.fixture
def tiny() -> Generator:
    """A network of six layers."""
    torch.manual_seed(0)
    generator = build(TINY, "tiny")
    generator.initialise()
    return generator.eval().requires_grad_(False)


WRAPPINGS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": lambda s: s,
    "params": lambda s: {"params": s},
    "params_ema": lambda s: {"params": {k: v + 1 for k, v in s.items()}, "params_ema": s},
    "state_dict": lambda s: {"state_dict": s, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}},
    "model": lambda s: {"model": s, "iteration": torch.tensor(5)},
    "generator": lambda s: {"generator": s, "discriminator": {"conv.weight": torch.ones(3)}},
    "netG": lambda s: {"netD": {"conv.weight": torch.ones(3)}, "netG": s},
    "g": lambda s: {"g": s},
    "module": lambda s: {f"module.{k}": v for k, v in s.items()},
    "compiled": lambda s: {"params": {f"_orig_mod.module.{k}": v for k, v in s.items()}},
    "averaged": lambda s: {"n_averaged": torch.tensor(7), **{f"module.{k}": v for k, v in s.items()}},
    "lightning": lambda s: {
        "state_dict": {**{f"discriminator.{k}": v for k, v in s.items()}, **{f"generator.{k}": v for k, v in s.items()}}
    },
    "ema-first": lambda s: {"model": {k: v + 1 for k, v in s.items()}, "ema": s},
    "generator_state_dict": lambda s: {
        "generator_state_dict": s,
        "discriminator_state_dict": {"a.weight": s["body.0.bias"]},
    },
    "a-module-around-it": lambda s: {"weights": {f"my_net.inner.{k}": v for k, v in s.items()}},
    "mmagic": lambda s: {
        "meta": {"time": "today"},
        "state_dict": {
            **{f"generator.{k}": v + 1 for k, v in s.items()},
            **{f"generator_ema.{k}": v for k, v in s.items()},
        },
    },
    "training-state": lambda s: {
        "epoch": 3,
        "best_psnr": np.float64(31.5),
        "args": argparse.Namespace(lr=1e-4, out=Path("runs/x")),
        "random": np.random.RandomState(0).get_state(),
        "log": collections.defaultdict(list, loss=[0.5]),
        "model": s,
    },
    "profiled": lambda s: {**s, "total_ops": torch.zeros(1), "body.0.total_params": torch.zeros(1)},
    "half": lambda s: {k: v.half() for k, v in s.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("legacy", [False, True])
def test_every_wrapping_is_undone(wrapping: str, legacy: bool, tiny: Generator, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    wrapped = WRAPPINGS[wrapping](tiny.state_dict())
    torch.save(wrapped, path, _use_new_zipfile_serialization=not legacy)
    loaded = load_generator(path)
    lr = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(loaded(lr), tiny(lr), atol=2e-3 if wrapping == "half" else 1e-6, rtol=0)


def test_zip_that_was_packed_again_with_deflate_is_read(tiny: Generator, tmp_path: Path) -> None:
    stored, deflated = tmp_path / "stored.pth", tmp_path / "deflated.pth"
    torch.save({"params": tiny.state_dict()}, stored)
    with zipfile.ZipFile(stored) as old, zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    assert load_generator(deflated).scale == 2
    whole = deflated.read_bytes()
    for cut in range(1, 60, 3):  # off the list of parts at its end
        deflated.write_bytes(whole[:-cut])
        with pytest.raises(IncompatibleCheckpoint):
            load_generator(deflated)


def test_a_file_that_holds_itself_is_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {"a": {}}
    content["a"]["b"] = content
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(IncompatibleCheckpoint, match="no state dict in it"):
        load_generator(tmp_path / "net.pth")


def test_a_file_is_what_it_contains_not_what_it_is_called(tiny: Generator, tmp_path: Path) -> None:
    save_generator(tmp_path / "net.safetensors", tiny, {"step": 5}, torch.float16)
    assert read_metadata(tmp_path / "net.safetensors")["step"] == 5
    (tmp_path / "net.safetensors").rename(tmp_path / "net.pth")
    assert load_generator(tmp_path / "net.pth").scale == 2


def test_given_network_is_not_guessed(tiny: Generator, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(tiny.state_dict(), path)
    assert load_generator(path, TINY).scale == 2
    with pytest.raises(IncompatibleCheckpoint, match="of another shape: body"):
        load_generator(path, {**TINY, "scale": 4})


def test_a_file_that_holds_the_same_again_and_again_is_read_once(tiny: Generator, tmp_path: Path) -> None:
    content: dict[str, Any] = {"params": tiny.state_dict()}
    for _ in range(60):  # twice as many ways to the network at each
        content = {"a": content, "b": content}
    torch.save(content, tmp_path / "net.pth")
    assert load_generator(tmp_path / "net.pth").scale == tiny.scale


def test_names_of_many_parts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleCheckpoint, match="of no known architecture"):
        load_generator(saved({"a." * 3000 + "weight": torch.ones(3)}, tmp_path))


def test_weights_that_are_not_real_numbers_are_refused(tiny: Generator, tmp_path: Path) -> None:
    whole = {name: value.to(torch.int8) for name, value in tiny.state_dict().items()}
    with pytest.raises(IncompatibleCheckpoint, match=r"not real numbers: body\.0\.weight"):
        load_generator(saved(whole, tmp_path))


def test_metadata_of_others_under_our_key_is_left_alone(tiny: Generator, tmp_path: Path) -> None:
    save_file(tiny.state_dict(), tmp_path / "net.safetensors", {"upscale": "by 4"})
    assert read_metadata(tmp_path / "net.safetensors") == {}


def saved(tensors: dict[str, Tensor], folder: Path) -> Path:
    torch.save(tensors, folder / "x.pth")
    return folder / "x.pth"


def test_unknown_network_is_named_with_the_nearest_and_what_is_foreign(tiny: Generator, tmp_path: Path) -> None:
    odd = {**tiny.state_dict(), "attention.query.weight": torch.ones(4)}
    with pytest.raises(IncompatibleCheckpoint, match=r"nearest is compact, which has no attention\.query\.weight"):
        load_generator(saved(odd, tmp_path))
    with pytest.raises(IncompatibleCheckpoint, match="its tensors are called blob"):
        load_generator(saved({"blob": torch.ones(3)}, tmp_path))
    cut = dict(list(tiny.state_dict().items())[2:])
    with pytest.raises(IncompatibleCheckpoint, match="compact"):
        load_generator(saved(cut, tmp_path))


def test_denoiser_that_looks_like_an_old_esrgan_is_not_taken_for_one(tmp_path: Path) -> None:
    dncnn = {"model.0.weight": torch.ones(64, 1, 3, 3), "model.0.bias": torch.ones(64)}
    dncnn |= {f"model.{i}.weight": torch.ones(64, 64, 3, 3) for i in range(2, 38, 2)}
    dncnn |= {"model.38.weight": torch.ones(1, 64, 3, 3)}
    with pytest.raises(IncompatibleCheckpoint, match="of no known architecture"):
        load_generator(saved(dncnn, tmp_path))


def test_pickled_module_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    for content in (torch.nn.Conv2d(3, 3, 3), {"epoch": 1, "model": torch.nn.Conv2d(3, 3, 3)}):
        torch.save(content, path)
        with pytest.raises(
            IncompatibleCheckpoint, match=r"holds Python objects \(torch\.nn\.modules\.conv\.Conv2d\)"
        ) as caught:
            load_generator(path)
        assert "torch.save(network.state_dict()" in str(caught.value.hint)


def test_torchscript_is_refused_as_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("net/code/__torch__.py", "class Net(Module): ...")
    with pytest.raises(IncompatibleCheckpoint, match="a TorchScript program"):
        load_generator(path)


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def evil_pickle(path: Path) -> None:
    torch.save({"params": {"body.0.weight": Evil()}}, path)


def evil_bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Evil()))


def zip_bomb(path: Path) -> None:
    torch.save({"a.weight": torch.zeros(4)}, path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data/1", "w") as file:
        for _ in range(100):
            file.write(bytes(1 << 20))


def long_header(path: Path) -> None:
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 1 << 30) + b'{"a":')
        file.truncate(1 << 30)  # sparse


def many_keys(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(dict.fromkeys(range(1_000_000)), protocol=2))
        archive.writestr("archive/version", "3\n")


def many_keys_legacy(path: Path) -> None:
    magic = [pickle.dumps(value, protocol=2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    path.write_bytes(b"".join(magic) + pickle.dumps(dict.fromkeys(range(1_000_000)), protocol=2))


def many_keys_in_header(path: Path) -> None:
    names = {f"{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(200_000)}
    header = json.dumps(names, separators=(",", ":")).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def many_parts(path: Path) -> None:
    path.write_bytes(b"PK\3\4" + bytes(100) + b"PK\6\6" + bytes(28) + struct.pack("<Q", 10**7) + b"PK\5\6" + bytes(18))


def endless_view(path: Path) -> None:
    torch.save({"body.0.weight": torch.zeros(1).expand(1 << 20, 1 << 20)}, path)


MALICIOUS: dict[str, tuple[Callable[[Path], None], str]] = {
    "pickle": (evil_pickle, "could run code"),
    "bare-pickle": (evil_bare_pickle, "could run code|not a readable"),
    "zip-bomb": (zip_bomb, "claims 100 MiB in"),
    "header-of-a-gigabyte": (long_header, "claims a header of 1024 MiB"),
    "many-keys": (many_keys, "claims more objects"),
    "many-keys-legacy": (many_keys_legacy, "claims more objects"),
    "many-keys-safetensors": (many_keys_in_header, "claims 200000 tensors|claims a header"),
    "many-parts": (many_parts, "claims 10000000 parts"),
    "endless-view": (endless_view, "claims tensors larger than the file"),
}


@pytest.mark.parametrize("kind", MALICIOUS)
def test_malicious_file_is_refused_with_little_memory(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write, message = MALICIOUS[kind]
    path = tmp_path / "net.pth"
    write(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(IncompatibleCheckpoint, match=message) as caught:
        load_generator(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB
    assert caught.value.hint
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>Please log in</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "pointer of Git LFS"),
        (b"\x89PNG\r\n", "not a readable checkpoint"),
        (b"PK\3\4 and then nothing", "not a readable checkpoint"),
        (b"\x80\2}q\0.", "not a readable checkpoint|no state dict"),
        (struct.pack("<Q", 40) + b'{"cut', "not a readable checkpoint"),
    ],
)
def test_other_files_are_told_what_they_are(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    with pytest.raises(IncompatibleCheckpoint, match=message):
        load_generator(path)


def test_truncated_files_are_refused_wherever_they_end(tiny: Generator, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    for legacy in (False, True):
        torch.save(tiny.state_dict(), path, _use_new_zipfile_serialization=not legacy)
        whole = path.read_bytes()
        for part in (0.1, 0.5, 0.9, 0.99):
            path.write_bytes(whole[: int(part * len(whole))])
            with pytest.raises(IncompatibleCheckpoint):
                load_generator(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleCheckpoint, match="No such file"):
        read_state_dict(tmp_path / "none.pth")
    with pytest.raises(IncompatibleCheckpoint, match="Is a directory"):
        read_state_dict(tmp_path)


def test_safetensors_without_a_network_in_it(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file({"x": torch.ones(2)}, path)
    assert read_metadata(path) == {}
    with pytest.raises(IncompatibleCheckpoint, match="of no known architecture"):
        load_generator(path)


def test_file_named_on_the_command_line_is_run(tiny: Generator, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"params": tiny.state_dict()}, path)
    Image.new("RGB", (9, 7), "teal").save(tmp_path / "in.png")
    command = [
        sys.executable,
        "-m",
        "upscale",
        str(tmp_path / "in.png"),
        "-m",
        str(path),
        "-o",
        str(tmp_path / "o.png"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    with Image.open(tmp_path / "o.png") as out:
        assert out.size == (18, 14)
