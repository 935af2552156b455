"""The shipped weights.toml, the user's own, and what a model's name means."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from upscale import store
from upscale.catalog import Catalog, WeightsEntry, known, own, read, shipped, user_file, write_user
from upscale.errors import ConfigError, UnknownWeights, UsageError
from upscale.models import build

ENTRIES = shipped().entries


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that is empty."""
    monkeypatch.setenv("UPSCALE_HOME", str(tmp_path / "home"))
    known.cache_clear()
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("content", "fault"),
    [(b"garbage = [", ": cannot be read"), (b"\xff", ": cannot be read"), (b"x = 1", r"\.x: is 1, not the table")],
)
def test_a_damaged_file_is_named(home: Path, content: bytes, fault: str) -> None:
    home.mkdir()
    (home / "weights.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"weights\.toml" + fault):
        known()


@pytest.mark.parametrize("name", ENTRIES)
def test_row_is_complete(name: str) -> None:
    entry = ENTRIES[name]
    assert entry.summary
    assert entry.license
    if entry.url or entry.file:
        assert entry.sha256 is not None
        assert len(entry.sha256) == 64
        assert entry.bytes
        assert entry.scale or not entry.generator
    assert all(url.startswith("https://") and not url.endswith(".zip") for url in entry.url)  # nothing is unpacked
    assert entry.sibling is None or ENTRIES[entry.sibling].network == entry.network
    assert entry.commercial == ("not for commercial use" not in entry.summary)


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.network])
def test_row_builds_with_the_scale_it_states(name: str) -> None:
    entry = ENTRIES[name]
    assert entry.network is not None
    with torch.device("meta"):
        generator = build(entry.network, name)
    if entry.scale is not None:
        assert generator.scale == entry.scale
    if entry.bytes and entry.network["arch"] in ("compact", "rrdbnet"):
        parameters = sum(p.numel() for p in generator.parameters())
        assert min(abs(entry.bytes / (width * parameters) - 1) for width in (2, 4)) < 0.05


def test_places_on_disk_differ() -> None:
    places = [store.place(entry) for entry in ENTRIES.values() if entry.url]
    assert len(set(places)) == len(places)


def test_user_s_own_tables_are_added_and_taken_out(home: Path) -> None:
    write_user({'mine "quoted"': {"summary": "ü", "license": "MIT", "url": ["https://a.example/x.pth"], "bytes": 5}})
    (entry,) = known().find('mine "quoted"')
    assert (entry.summary, entry.url, entry.bytes) == ("ü", ("https://a.example/x.pth",), 5)
    assert "realesrgan-x4plus" in known().entries
    write_user({'mine "quoted"': None})
    assert known().entries.keys() == ENTRIES.keys()
    assert (home / "weights.toml").read_text() == ""


def test_what_a_user_adds_is_read_back_as_it_was(home: Path) -> None:
    odd = 'C:\\ü "\N{GRINNING FACE}"\n\t\x00\x7f'
    network = {"arch": "rrdbnet", "scale": 4, "odd key": odd, "parts": (1, 2), "norm": False, "rate": 1e-5}
    table = {"summary": odd, "license": odd, "network": network, "scale": 4, "url": (odd, "b"), "speed": None}
    write_user({odd: table})
    write_user({"next": {"summary": "s", "license": "MIT"}})  # the file is written anew from what was read
    (entry,) = known().find(odd)
    assert entry.network == {**network, "parts": [1, 2]}
    assert (entry.summary, entry.license, entry.url, entry.speed) == (odd, odd, (odd, "b"), None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": "4"},  # as an index elsewhere may have it
        {"sibling": "nobody"},
        {"summary": "\udcff"},  # of a path that is not UTF-8
    ],
)
def test_what_would_make_the_catalogue_unreadable_is_refused_and_the_file_stays(
    home: Path, wrong: dict[str, str]
) -> None:
    facts = {"summary": "s", "license": "MIT"}
    write_user({"a": {**facts}})
    before = (home / "weights.toml").read_bytes()
    with pytest.raises(ConfigError):
        write_user({"b": {**facts, **wrong}})
    assert (home / "weights.toml").read_bytes() == before
    assert [path.name for path in home.glob("[!.]*")] == ["weights.toml"]
    assert "a" in known().entries


def test_one_url_stands_for_a_list_of_one(tmp_path: Path) -> None:
    path = tmp_path / "weights.toml"
    path.write_text('[a]\nsummary = "s"\nlicense = "MIT"\nurl = "https://a.example/x"\n')
    assert read(path).entries["a"].url == ("https://a.example/x",)


def test_a_sibling_is_here_or_in_the_shipped_catalogue(home: Path) -> None:
    facts = {"summary": "s", "license": "MIT"}
    write_user({"a": {**facts, "sibling": "realesr-general-x4v3"}, "b": {**facts, "sibling": "a"}})
    assert known().mixed("b", 0.5) == "b:0.5,a:0.5"
    table = '[a]\nsummary = "s"\nlicense = "MIT"\nsibling = "realesr-general"\n'
    (home / "weights.toml").write_text(table, encoding="utf-8")
    known.cache_clear()
    with pytest.raises(ConfigError, match=r"weights.toml.a.sibling: unknown model 'realesr-general'") as caught:
        known()
    assert caught.value.hint == "did you mean 'realesr-general-x4v3'?"


def named(*names: str) -> Catalog:
    def row(name: str) -> WeightsEntry:
        scale = 2 if name == "b" else 4
        facts = {
            "summary": "",
            "network": None,
            "license": "MIT",
            "scale": scale,
            "sibling": "b" if name == "a" else None,
        }
        return WeightsEntry(name=name, **facts)  # type: ignore[arg-type]

    return Catalog({name: row(name) for name in names})


def shares(catalog: Catalog, model: str) -> list[list[tuple[str, float]]]:
    stages = catalog.stages(model)
    return [[(part.entries[0].name, part.share) for part in stage] for stage in stages]


def test_names_sequences_and_blends() -> None:
    catalog = named("a", "b", "a+b")
    assert shares(catalog, "a") == [[("a", 1.0)]]
    assert shares(catalog, "b+a") == [[("b", 1.0)], [("a", 1.0)]]
    assert shares(catalog, "a+b") == [[("a+b", 1.0)]]  # a name goes before an expression
    assert shares(catalog, "a:0.75,b:0.25") == [[("a", 0.75), ("b", 0.25)]]
    assert shares(catalog, catalog.mixed("a", 0.25)) == [[("a", 0.25), ("b", 0.75)]]
    assert catalog.mixed("b", 0.25) == catalog.mixed("a", 0.25)  # either name will do
    assert catalog.scale("b+a") == 8
    assert catalog.scale("a") == 4


def test_a_blend_has_the_scales_that_its_parts_share() -> None:
    catalog = named("a", "b")
    entries = {
        name: replace(entry, family="ab", scale=scale)
        for (name, entry), scale in zip(catalog.entries.items(), (4, 2), strict=True)
    }
    catalog = Catalog(entries)
    assert (catalog.scale("ab:0.5,b:0.5"), catalog.scales("ab:0.5,b:0.5")) == (2, {2})
    assert (catalog.scale("ab"), catalog.scales("ab")) == (4, {2, 4})


def test_file_whose_name_looks_like_an_expression_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a+b:0.5,c.pth"
    path.touch()
    assert shares(named("a"), str(path)) == [[("a+b:0.5,c", 1.0)]]
    assert named("a").scale(str(path)) is None


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("a:0.7,b:0.7", UsageError, "add up to 1"),
        ("a:nan,b:1", UsageError, "add up to 1"),
        ("a+nothing", UnknownWeights, "unknown model 'nothing'"),
        ("realesrgan", UnknownWeights, "unknown model"),
        ("x/y.pth", UnknownWeights, "no such checkpoint file"),
        ("https://[::1/x.pth", UnknownWeights, "not an address"),
    ],
)
def test_slips_are_named(model: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        named("a", "b").stages(model)


def test_only_a_network_with_a_sibling_has_a_strength() -> None:
    with pytest.raises(UsageError, match="c has no sibling"):
        named("a", "b", "c").mixed("c", 0.5)
    with pytest.raises(UsageError, match="only a single network"):
        named("a", "b").mixed("a+b", 0.5)
    with pytest.raises(UnknownWeights, match="unknown model"):
        named("a", "b").mixed("d", 0.5)


@pytest.mark.parametrize(("strong", "mild"), [("s", None), (None, "m"), ("s", "m")])
def test_the_name_stands_for_a_network_without_family(strong: str | None, mild: str | None) -> None:
    facts: dict[str, Any] = {"summary": "", "network": None, "license": "MIT", "scale": 4}
    a = WeightsEntry(name="a", family=strong, sibling="b", **facts)
    b = WeightsEntry(name="b", family=mild, **facts)
    mixed = Catalog({"a": a, "b": b}).mixed(strong or mild or "", 0.25)
    assert mixed == f"{strong or 'a'}:0.25,{mild or 'b'}:0.75"


def test_what_several_add_at_once_is_all_there(home: Path) -> None:
    names = [f"net{index}" for index in range(12)]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: write_user({name: {"summary": name, "license": "MIT", "file": "/a.pth"}}), names))
    assert sorted(own().entries) == sorted(names)
    assert user_file().parent == home
