"""The commands as a user types them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from upscale import store
from upscale.catalog import known, write_user
from upscale.checkpoint import save_generator
from upscale.cli import main
from upscale.images import Image, read_image, write_image
from upscale.metrics.perceptual import BACKBONES
from upscale.models import build


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder ``hr`` with two pictures."""
    hr = tmp_path / "hr"
    hr.mkdir()
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        coarse = rng.integers(60, 200, (6, 8, 3), np.uint8)
        write_image(hr / f"{name}.png", Image(pixels=coarse.repeat(8, 0).repeat(8, 1)))
    return hr


def call(*arguments: object) -> int:
    """Run the program, return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def result(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    lines = capsys.readouterr().out.strip().splitlines()
    found: dict[str, Any] = json.loads(lines[-1])
    assert all(json.loads(line)["protocol"] == "y" for line in lines[:-1])
    return found


def test_protocols_are_explained_with_their_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("bench", "--protocol", "list") == 0
    text = capsys.readouterr().out
    for name in ("y ", "rgb ", "edsr ", "edsr-div2k ", "opencv-y ", "none "):
        assert f"\n{name}" in "\n" + text
    assert text.count("as in ") == 6


def test_several_scales_may_follow_one_option(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("bench", folder, "-m", "bicubic", "-m", "lanczos", "-x", "2", "3", "4", "--json") == 0
    found = result(capsys)
    means = [(row["scale"], row["model"]) for row in found["summaries"]]
    assert means == [(scale, model) for scale in (2, 3, 4) for model in ("bicubic", "lanczos")]
    assert len(found["rows"]) == 12


def test_json_says_how_it_was_made(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    network = build({"arch": "compact", "scale": 2, "num_feat": 4, "num_conv": 1}, "tiny")
    save_generator(tmp_path / "tiny.safetensors", network, {}, torch.float32)
    assert call("bench", folder, "-m", tmp_path / "tiny.safetensors", "-x", 2, "--json") == 0
    about = result(capsys)["about"]
    assert about["protocol"] == "y"
    assert len(about["models"]["tiny"][0]) == 64
    assert about["data"]["hr"]["pictures"] == 2
    assert {"torch", "python", "upscale", "device", "precision", "system", "lr"} <= about.keys()


def test_networks_that_the_user_added_are_measured_when_they_are_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UPSCALE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("UPSCALE_OFFLINE", "1")
    known.cache_clear()
    torch.manual_seed(0)
    file, url = tmp_path / "tiny.safetensors", "https://a.example/net.safetensors"
    save_generator(
        file, build({"arch": "compact", "scale": 2, "num_feat": 4, "num_conv": 1}, "tiny"), {}, torch.float32
    )
    facts = {"summary": "s", "license": "MIT", "sha256": store.sha256(file)}
    write_user({"mine": {**facts, "file": str(file)}, "net": {**facts, "url": [url]}})
    pinned = store.place(known().entries["net"])
    assert pinned is not None
    pinned.parent.mkdir()
    pinned.write_bytes(file.read_bytes())
    try:
        assert call("bench", folder, "-m", "mine", "-m", url, "-x", 2, "--json") == 0
    finally:
        known.cache_clear()
    assert result(capsys)["about"]["models"] == {"mine": [store.sha256(file)], "net": [store.sha256(file)]}


def test_by_default_all_networks_that_come_along_are_measured_and_no_others(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UPSCALE_HOME", str(tmp_path / "home"))
    known.cache_clear()
    write_user({"mine": {"summary": "s", "license": "MIT", "network": {"arch": "bicubic"}}})
    try:
        assert call("bench", folder, "-x", 2, "--json") == 0
    finally:
        known.cache_clear()
    models = list(result(capsys)["about"]["models"])
    assert models == ["compact", "compact-photo", "nearest", "bilinear", "bicubic", "lanczos", "wiener"]


def test_the_table_names_protocol_and_missing_weights(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("bench", folder, "-m", "bicubic", "-x", 2) == 0
    text = capsys.readouterr().out
    assert "hr x2, means, protocol y" in text
    assert "LPIPS: Zhang et al. 2018, with its published weights: no weights" in text
    assert "features: unweighted distance of SqueezeNet's features; not LPIPS" in text


def test_weights_of_extractors_fill_their_columns(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    layers = BACKBONES["squeeze"].build().state_dict()
    torch.save({f"features.{key}": value for key, value in layers.items()}, tmp_path / "net.pth")
    widths = BACKBONES["squeeze"].channels
    torch.save({f"lin{i}.model.1.weight": torch.rand(1, n, 1, 1) for i, n in enumerate(widths)}, tmp_path / "lin.pth")
    options = ("--features", tmp_path / "net.pth", "--lpips", tmp_path / "net.pth", tmp_path / "lin.pth")
    assert call("bench", folder, "-m", "bicubic", "-x", 2, *options, "--json") == 0
    means = result(capsys)["summaries"][0]["means"]
    assert 0 < means["features"] < 2
    assert means["lpips"] > 0


def test_files_are_written_and_carry_the_protocol(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    arguments = ("--protocol", "rgb", "--csv", out / "r.csv", "--report", out / "r.html")
    assert call("bench", folder, "-m", "bicubic", "-x", 2, *arguments) == 0
    rows = list(csv.DictReader((out / "r.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["protocol"], row["image"]) for row in rows] == [("rgb", "one"), ("rgb", "two")]
    assert 10 < float(rows[0]["psnr"]) < 60
    assert "means, protocol rgb" in (out / "r.html").read_text(encoding="utf-8")
    assert sorted(path.name for path in out.iterdir()) == ["r.csv", "r.html"]
    (out / "r.csv").write_text("notes", encoding="utf-8")
    assert call("bench", folder, "-m", "bicubic", "-x", 2, "--csv", out / "r.csv") == 1
    assert (out / "r.csv").read_text(encoding="utf-8") == "notes"
    assert call("bench", folder, "-m", "bicubic", "-x", 2, "--csv", out / "r.csv", "--force") == 0
    assert (out / "r.csv").read_text(encoding="utf-8").startswith("protocol")


def test_baseline_passes_equal_runs_and_stops_a_regression(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("bench", folder, "-m", "lanczos", "-x", 2)
    assert call(*command, "--json") == 0
    text = capsys.readouterr().out
    path = tmp_path / "base.json"
    path.write_text(text, encoding="utf-8")
    assert call(*command, "--baseline", path) == 0
    assert "kept " in capsys.readouterr().err

    earlier = json.loads(text.strip().splitlines()[-1])
    with monkeypatch.context() as patched:
        patched.setattr("upscale.bench.quality.run", None)  # what cannot be compared is told before any measuring
        assert call("bench", folder, "-m", "bicubic", "-x", 2, "--baseline", path) == 1
    assert "has hr x2 lanczos, this run has not" in capsys.readouterr().err

    earlier["summaries"][0]["means"]["psnr"] += 0.05
    path.write_text(json.dumps(earlier), encoding="utf-8")
    assert call(*command, "--baseline", path) == 1
    assert "worse  hr x2 lanczos psnr" in capsys.readouterr().err


def test_blends_and_sequences_are_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blend = "compact-x2:0.5,compact-x2:0.5"
    assert call("bench", folder, "-m", blend, "-m", "compact-x2", "-m", "bicubic+compact-x2", "--json") == 0
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    means = {row["model"]: row["means"]["psnr"] for row in found["summaries"] if row["scale"] == 2}
    assert means[blend] == pytest.approx(means["compact-x2"], abs=0.01) != means["bicubic+compact-x2"]
    assert [len(hashes) for hashes in found["about"]["models"].values()] == [2, 1, 1]


def test_a_failed_picture_ends_with_exit_code_1_and_its_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "three.png").write_bytes(b"no picture")
    assert call("bench", folder, "-m", "bicubic", "-x", 2) == 1
    captured = capsys.readouterr()
    assert "2 of 3" in captured.out
    assert "hr x2 three bicubic:" in captured.err


def test_speed_is_timed_for_every_tile_and_size(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("bench", folder, "-m", "bicubic", "-x", 2, "--speed", "--size", 16, "--size", 24, "--json")
    options = ("--device", "cpu", "--precision", "fp32", "--tile", 64, "--tile", 96)
    assert call(*command, *options) == 0
    timings = result(capsys)["timings"]
    assert [(t["tile"], t["size"]) for t in timings] == [(64, 16), (64, 24), (96, 16), (96, 24)]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-m", "bicubic", "--protocol", "yy"], 2, "--protocol: no 'yy'"),
        (["-m", "bicubic", "-x", "two"], 2, "--scale"),
        (["-m", "bicubic", "-x", "99"], 2, "99 is not between"),
        (["-m", "bicubix"], 2, "unknown model 'bicubix'"),
        (["nowhere", "-m", "bicubic"], 1, "nowhere: no such folder"),
        (["-m", "bicubic", "--report", "no/such/r.html"], 2, "there is no folder"),
        (["-m", "bicubic", "--baseline", "none.json"], 1, "none.json"),
    ],
)
def test_slips_are_explained_before_any_work(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("bench", *arguments) == code
    assert message in capsys.readouterr().err


def test_compare_measures_both_against_the_reference(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = folder / "one.png", folder / "two.png"
    assert call("compare", one, two, one, "--json", "--report", tmp_path / "c.html") == 0
    same, other = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (same["PSNR"], same["dE2000"]) == ("inf", 0)
    assert other["PSNR"] < 40
    assert 'id="sliders"' in (tmp_path / "c.html").read_text(encoding="utf-8")


def test_compare_refuses_two_sizes(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "small.png", Image(pixels=np.zeros((5, 6, 3), np.uint8)))
    assert call("compare", folder / "one.png", tmp_path / "small.png") == 1
    assert "small.png: 6x5, but" in capsys.readouterr().err


def test_check_writes_its_heat_map_and_gates(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large, source = tmp_path / "large.png", folder / "one.png"
    write_image(large, Image(pixels=read_image(source).pixels.repeat(2, 0).repeat(2, 1)))
    assert call("check", large, source, "--heat", tmp_path / "heat.png", "--json", "--least", 20) == 0
    assert json.loads(capsys.readouterr().out)["scale"] == 2
    assert read_image(tmp_path / "heat.png").pixels.shape == (48, 64, 3)
    assert call("check", large, source, "--least", 90) == 1
    assert call("check", large, source, "--least", "nan") == 1
    before = source.read_bytes()
    assert call("check", large, source, "--heat", source) == 1
    assert call("compare", source, source, "--report", source, "--force") == 1
    assert source.read_bytes() == before
    other = folder / "two.png"
    before = other.read_bytes()
    assert call("check", large, source, "--heat", other) == 1
    assert call("compare", source, source, "--report", other) == 1
    assert other.read_bytes() == before
    assert call("compare", source, source, "--report", tmp_path / "page.png") == 2
    assert call("check", large, source, "--report", tmp_path / "page.png") == 2
    assert call("check", large, source, "--heat", other, "--force") == 0
    assert other.read_bytes() != before
