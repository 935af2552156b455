"""``upscale models``, each command on a small network of its own."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import network
from upscale import store
from upscale.catalog import known, user_file, write_user
from upscale.checkpoint import load_generator, read_metadata, save_generator
from upscale.cli import main
from upscale.models import network_of

Command = Callable[[Sequence[str]], tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the program in this process; give its exit code, its output and its errors."""

    def run(arguments: Sequence[str]) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        captured = capsys.readouterr()
        code = caught.value.code
        return (code if isinstance(code, int) else 0), captured.out, captured.err

    return run


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that is empty."""
    monkeypatch.setenv("UPSCALE_HOME", str(tmp_path / "home"))
    known.cache_clear()
    return tmp_path / "home"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A checkpoint of a small network."""
    path = tmp_path / "tiny.safetensors"
    save_generator(path, network(arch="compact", scale=2, num_feat=4, num_conv=1), {}, torch.float32)
    return path


def fetched(file: Path) -> str:
    """Add a network as if it had been fetched, and return its name."""
    content = file.read_bytes()
    row = {"summary": "tiny", "license": "CC-BY-NC-4.0", "url": ["https://a.example/tiny.safetensors"], "scale": 2}
    write_user({"tiny": {**row, "sha256": store.sha256(file), "bytes": len(content)}})
    place = store.place(known().entries["tiny"])
    assert place is not None
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return "tiny"


def test_list_shows_every_network_and_its_state(command: Command, file: Path) -> None:
    fetched(file)
    code, out, _ = command(["models", "list"])
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 1 + len(known().entries)
    assert lines[0].split() == ["name", "family", "scale", "architecture", "size", "licence", "speed", "state", "for"]
    (anime,) = [line for line in lines if line.startswith("realesrgan-x4plus-anime ")]
    assert anime.split()[1:9] == ["-", "x4", "rrdbnet", "17.9", "MB", "BSD-3-Clause", "medium", "to"]
    assert [line.split()[0] for line in lines if line.split()[1] == "compact-photo"] == [
        "compact-x4-photo",
        "compact-x2-photo",
    ]
    (tiny,) = [line for line in lines if line.startswith("tiny ")]
    assert "here" in tiny


def test_list_as_json_and_for_commercial_use(command: Command, file: Path) -> None:
    fetched(file)
    rows = [json.loads(line) for line in command(["models", "list", "--json", "--commercial"])[1].splitlines()]
    assert {"realesrgan-x4plus", "bicubic"} <= {row["name"] for row in rows}
    assert not {"tiny", "4x-ultrasharp"} & {row["name"] for row in rows}


@pytest.mark.parametrize(
    ("license_", "listed"),
    [
        ("MIT", True),
        ("CC-BY-NC-SA-4.0", False),
        ("cc_by_nc_4", False),
        ("for non-commercial use", False),
        ("unknown", False),
    ],
)
def test_licences_for_commercial_use(command: Command, license_: str, listed: bool) -> None:
    write_user({"mine": {"summary": "mine", "license": license_, "url": ["https://a.example/x.pth"]}})
    out = command(["models", "list", "--json", "--commercial"])[1]
    assert ("mine" in [json.loads(line)["name"] for line in out.splitlines()]) == listed


def test_scales_as_far_as_they_are_known(command: Command) -> None:
    write_user({"mine": {"summary": "mine", "license": "MIT", "url": ["https://a.example/x.pth"]}})
    rows = [json.loads(line) for line in command(["models", "list", "--json"])[1].splitlines()]
    found = {row["name"]: row["scale"] for row in rows}
    assert [found[name] for name in ("compact-x4", "bicubic", "squeezenet", "mine")] == ["x4", "any", "-", "?"]


def test_info_of_a_file_says_how_it_is_built(command: Command, file: Path) -> None:
    code, out, _ = command(["models", "info", str(file)])
    assert code == 0
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert facts["arch"] == "compact"
    assert facts["num_feat"] == "4"
    assert facts["sha256"] == store.sha256(file)
    assert facts["parameters"] == "712"


def test_info_of_what_is_not_here_says_where_it_is(command: Command) -> None:
    out = command(["models", "info", "4x-ultrasharp"])[1]
    assert "to fetch" in out
    assert "not for commercial use" in out
    assert "https://" in out


def test_added_file_has_a_name_of_its_own(command: Command, file: Path) -> None:
    code, out, _ = command(["models", "add", str(file), "--name", "mine", "--license", "MIT"])
    assert code == 0
    assert out.startswith("mine: compact, x2, sha256 ")
    (entry,) = known().find("mine")
    assert (entry.scale, entry.license, entry.file) == (2, "MIT", str(file))
    assert command(["models", "verify", "mine"])[0] == 0
    file.write_bytes(file.read_bytes()[:-4] + b"\1\2\3\4")
    code, _, err = command(["models", "verify"])
    assert code == 1
    assert "mine should have" in err
    assert "hint: put it back, or `upscale models remove mine`" in err
    away = file.rename(file.with_name("elsewhere.safetensors"))
    code, _, err = command(["models", "verify", "mine"])
    assert code == 1
    assert "the weights of mine are missing\nhint: put it back" in err
    away.rename(file)
    assert command(["models", "remove", "mine"])[1] == "mine: name forgotten\n"
    assert file.exists()
    assert "mine" not in known().entries


def test_a_file_is_added_again_under_its_name_and_removed_by_it_alone(
    command: Command, file: Path, tmp_path: Path
) -> None:
    assert command(["models", "add", str(file)])[0] == 0
    code, out, _ = command(["models", "add", str(file), "--license", "MIT"])
    assert (code, out[:5], known().entries["tiny"].license) == (0, "tiny:", "MIT")
    other = tmp_path / "other" / file.name
    other.parent.mkdir()
    other.write_bytes(file.read_bytes())
    assert command(["models", "add", str(other)])[0] == 2
    assert command(["models", "remove", str(other)])[1] == "tiny: nothing to remove\n"
    assert "tiny" in known().entries


def test_added_name_does_not_hide_another(command: Command, file: Path) -> None:
    code, _, err = command(["models", "add", str(file), "--name", "bicubic"])
    assert code == 2
    assert "is the name of another network" in err
    assert not user_file().exists()


def test_added_file_takes_no_other_name_away(command: Command, file: Path, tmp_path: Path) -> None:
    write_user({"tiny": {"summary": "another", "license": "MIT", "url": ["https://a.example/x.pth"]}})
    mine = known().entries["tiny"]
    assert command(["models", "add", str(file), "--name", "tiny2"])[0] == 0
    assert known().entries["tiny"] == mine
    assert known().entries["tiny2"].file == str(file)


def test_name_that_a_url_had_until_it_was_added_is_gone(command: Command, file: Path) -> None:
    fetched(file)
    assert command(["models", "add", "https://a.example/tiny.safetensors", "--name", "mine"])[0] == 0
    assert "tiny" not in known().entries
    place = store.place(known().entries["mine"])
    assert place is not None
    assert [path for path in store.folder().iterdir() if path.suffix != ".lock"] == [place]


def test_networks_with_hyper_parameters_can_be_given_another_name(command: Command) -> None:
    assert command(["models", "add", "compact-x2", "--name", "mine"])[0] == 0
    assert known().entries["mine"].network == {"arch": "compact", "scale": 2}
    assert [entry.name for entry in known().find("compact")] == ["compact-x4", "compact-x2"]


def test_fetch_of_what_is_here_fetches_nothing(command: Command, file: Path) -> None:
    name = fetched(file)
    assert command(["models", "fetch", name, "bicubic"])[:2] == (0, "tiny: here\nbicubic: here\n")


def test_an_address_that_is_gone_does_not_keep_the_others(command: Command, file: Path) -> None:
    fetched(file)
    row = {"summary": "s", "license": "MIT", "url": ["ftp://a.example/x.pth"], "sha256": "0" * 64}
    write_user({"gone": row})
    code, out, err = command(["models", "fetch", "gone", "tiny"])
    assert (code, out) == (1, "tiny: here\n")
    assert err.startswith("error: gone: ftp://a.example/x.pth: not https")


def test_removed_file_is_gone(command: Command, file: Path) -> None:
    name = fetched(file)
    place = store.place(known().entries[name])
    assert place is not None
    assert command(["models", "remove", name])[1] == "tiny: 0.0 MB freed, name forgotten\n"
    assert not place.exists()
    assert command(["models", "remove", "realesrgan-x4plus"])[1] == "realesrgan-x4plus: nothing to remove\n"


def test_bundle_goes_to_another_home(
    command: Command, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched(file)
    assert command(["models", "add", str(file), "--name", "mine", "--license", "MIT"])[0] == 0
    archive = tmp_path / "weights.zip"
    assert command(["models", "bundle", str(archive)])[1].startswith(f"{archive}: 2 networks")
    assert len(zipfile.ZipFile(archive).namelist()) == 3
    assert "--force" in command(["models", "bundle", str(archive)])[2]
    content = file.read_bytes()
    file.write_bytes(b"trained on since")
    code, out, err = command(["models", "add", str(archive)])
    assert (code, out, file.read_bytes()) == (1, "", b"trained on since")
    assert "mine should have" in err
    file.unlink()
    assert command(["models", "add", str(archive)])[1] == "tiny: here\nmine: here\n"
    assert store.place(known().entries["mine"]) in list(store.folder().iterdir())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UPSCALE_HOME", "other")
    known.cache_clear()
    for _ in range(2):  # the second time, all of it is known
        assert command(["models", "add", str(archive)])[:2] == (0, "tiny: here\nmine: here\n")
    mine = known().entries["mine"]
    for entry in (known().entries["tiny"], mine):
        path = store.locate(entry, offline=True)
        assert path is not None
        assert path.read_bytes() == content
    assert mine.license == "MIT"
    assert "freed, name forgotten" in command(["models", "remove", "mine"])[1]
    assert len(list(store.folder().iterdir())) == 1


def test_a_bundle_holds_siblings_in_any_order_or_none(
    command: Command, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"summary": "", "license": "MIT", "file": str(file), "sha256": store.sha256(file)}
    write_user({"a": {**facts, "sibling": "b"}, "b": facts})
    for number, names in enumerate((["a", "b"], ["a"])):
        archive = tmp_path / f"{number}.zip"
        assert command(["models", "bundle", str(archive), *names])[0] == 0
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("UPSCALE_HOME", str(tmp_path / str(number)))
            known.cache_clear()
            assert command(["models", "add", str(archive)])[1] == "".join(f"{name}: here\n" for name in names)
            assert known().entries["a"].sibling == ("b" if "b" in names else None)
        known.cache_clear()
    (tmp_path / "n.bin").write_bytes(b"1")
    (tmp_path / "n.param").write_text("graph")
    write_user({"n": {**facts, "file": str(tmp_path / "n.bin"), "sha256": None}})
    assert "n: is in two files" in command(["models", "bundle", str(tmp_path / "n.zip"), "n"])[2]


def test_a_bundle_does_not_change_what_a_name_means(
    command: Command, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "weights.zip"
    command(["models", "add", str(file), "--name", "mine"])
    command(["models", "bundle", str(archive)])
    command(["models", "remove", "mine"])
    command(["models", "add", "compact-x2", "--name", "mine"])
    before = user_file().read_bytes()
    code, _, err = command(["models", "add", str(archive)])
    assert code == 1
    assert "another network is called mine here" in err
    assert user_file().read_bytes() == before
    with zipfile.ZipFile(archive, "w") as empty:
        empty.writestr("other.txt", "text")
    assert "no network in it that is known here" in command(["models", "add", str(archive)])[2]


def test_a_bundle_of_nothing_or_with_another_name_is_refused(command: Command, tmp_path: Path) -> None:
    code, _, err = command(["models", "bundle", str(tmp_path / "a.zip")])
    assert code == 1
    assert "no network that was fetched or added is here" in err
    assert command(["models", "bundle", "compact"])[0] == 2
    assert not list(tmp_path.glob("*.zip"))


def test_an_export_keeps_what_is_known_of_a_network(command: Command, tmp_path: Path) -> None:
    target = tmp_path / "x4.safetensors"
    assert command(["models", "export", "compact-x4", "-o", str(target)])[0] == 0
    path = store.locate(known().entries["compact-x4"])
    assert path is not None
    assert read_metadata(target) == read_metadata(path)
    assert "recipe" in read_metadata(target)
    blend = "compact-x4:0.5,compact-x4-photo:0.5"
    assert command(["models", "export", blend, "-o", str(target), "--force"])[0] == 0
    assert read_metadata(target)["blend"] == blend


@pytest.mark.parametrize("name", ["a+b", "my/net", "x:1", ""])
def test_names_that_mean_something_else_are_refused(command: Command, file: Path, name: str) -> None:
    assert command(["models", "add", str(file), "--name", name])[0] == 2


def test_an_export_that_fails_leaves_what_was_there(command: Command, tmp_path: Path) -> None:
    target = tmp_path / "mine.safetensors"
    target.write_bytes(b"precious")
    code, _, err = command(["models", "export", "bicubic", "-o", str(target), "--force"])
    assert code == 2
    assert "no weights" in err
    assert target.read_bytes() == b"precious"


def test_an_export_replaces_no_network_that_it_reads(command: Command, file: Path) -> None:
    before = file.read_bytes()
    for model in (str(file), f"{file}:0.5,compact-x2:0.5", fetched(file)):
        place = store.place(known().find(model)[0]) if model == "tiny" else file
        code, _, err = command(["models", "export", model, "-o", str(place), "--force"])
        assert (code, "is an input; it will not be replaced" in err) == (1, True)
    assert file.read_bytes() == before


@pytest.mark.parametrize("name", ["x.safetensors", "x.onnx"])
def test_a_file_that_cannot_be_written_is_told_by_its_own_name(
    command: Command, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name == "x.onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")

    def refuse(path: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    monkeypatch.setattr(Path, "write_text", refuse)
    monkeypatch.setattr(torch.onnx, "export", lambda core, lr, path, **_: refuse(path))
    code, _, err = command(["models", "export", str(file), "-o", str(tmp_path / name)])
    assert (code, err) == (1, f"error: {tmp_path / name}: cannot be written: Permission denied\n")
    code, _, err = command(["models", "add", str(file), "--name", "mine"])
    assert (code, err) == (1, f"error: {user_file()}: cannot be written: Permission denied\n")


@pytest.mark.parametrize("fp16", [False, True])
def test_exported_safetensors_is_the_same_network(command: Command, file: Path, tmp_path: Path, fp16: bool) -> None:
    target = tmp_path / "out.safetensors"
    code, out, _ = command(["models", "export", str(file), "-o", str(target), *(["--fp16"] if fp16 else [])])
    assert code == 0
    assert "within" in out
    assert network_of(load_generator(target)) == network_of(load_generator(file))
    code, _, err = command(["models", "export", str(file), "-o", str(target)])
    assert code == 1
    assert "--force" in err


@pytest.mark.parametrize("arch", ["compact", "rrdbnet", "srgan", "span", "edsr", "espcn"])
def test_exported_onnx_gives_the_same_picture(arch: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from upscale.export import export_onnx

    facts: dict[str, Any] = {} if arch == "espcn" else {"num_feat": 4}
    facts |= {"num_block": 1} if arch in ("rrdbnet", "srgan", "edsr") else {}
    facts |= {"norm": False} if arch == "span" else {}  # or results of untrained weights are in the tens
    generator = network(arch=arch, scale=2, **facts)
    path = tmp_path / "net.onnx"
    assert export_onnx(generator, path, half=True) < 0.02
    assert export_onnx(generator, path, half=False) < 1e-4
    session = onnxruntime.InferenceSession(path)
    lr = torch.rand(2, generator.channels[0], 10, 14)
    (sr,) = session.run(["sr"], {"lr": lr.numpy()})
    torch.testing.assert_close(torch.from_numpy(sr), generator.enlarge(lr), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["models", "info", "nothing"], 2, "unknown model 'nothing'"),
        (["models", "export", "bicubic", "-o", "x.bin"], 2, "not a file to export to"),
        (["models", "export", "compact-x4", "-o", "nowhere/x.onnx"], 2, "there is no folder nowhere"),
        (["models", "export", "bicubic+lanczos", "-o", "x.onnx"], 2, "more than one network"),
        (["models", "export", "bicubic", "-o", "x.onnx"], 2, "interpolates to any scale"),
        (["models", "add", "bicubic"], 2, "has no file"),
        (["models", "add", "b.zip", "--name", "mine"], 2, "a bundle brings names"),
        (["models", "add", "nothing.zip"], 1, "nothing.zip: no such file"),
        (["models", "frobnicate"], 2, "No such command"),
    ],
)
def test_slips(command: Command, arguments: list[str], code: int, message: str) -> None:
    found, _, err = command(arguments)
    assert (found, message in err) == (code, True), err


def test_help_names_the_commands(command: Command) -> None:
    code, out, _ = command(["models"])
    assert code == 0
    assert all(name in out for name in ("list", "info", "fetch", "add", "remove", "verify", "export", "bundle"))
