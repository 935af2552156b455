from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pytest

from upscale.config import parse, toml_key, toml_lines
from upscale.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner:
    kind: Literal["a", "b"] = "a"
    rate: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Outer:
    steps: int
    name: str | None = None
    inner: Inner = field(default_factory=Inner)
    milestones: tuple[int, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    flag: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}, must be at least 1")


def test_what_is_written_out_parses_back() -> None:
    value = Outer(steps=3, name="x", inner=Inner(kind="b"), milestones=(1, 2), weights={"l1": 0.5}, flag=True)
    assert parse(Outer, asdict(value), "t") == value


def test_an_integer_serves_as_float() -> None:
    assert parse(Outer, {"steps": 1, "inner": {"rate": 2}, "weights": {"l1": 1}}, "t").inner.rate == 2.0


ODD = [
    "",
    "a \"b\" 'c'",
    "C:\\x\\new",
    "two\nlines\r\n",
    "\ttab",
    "ü \N{GRINNING FACE}",
    "\ud7ff\ue000\uffff",
    "# = [a] {b}",
]


@pytest.mark.parametrize("text", [*ODD, *map(chr, range(0x20)), "\x7f", "\x85", "\u2028"], ids=ascii)
def test_any_text_is_written_so_that_toml_has_it_back(text: str) -> None:
    table = {"value": text, "list": [text, text], text: {text: text}}
    assert tomllib.loads("\n".join(toml_lines(table))) == table
    assert tomllib.loads(f"[{toml_key(text)}]\na = 1\n") == {text: {"a": 1}}


@pytest.mark.parametrize(
    "value",
    [True, False, 0, -(10**30), 0.1, 1e-300, 1e22, -0.5, float("inf"), [], [[1], ["a"]], {}, {"a": {"b c": [True]}}],
    ids=repr,
)
def test_any_value_is_written_so_that_toml_has_it_back(value: object) -> None:
    (found,) = tomllib.loads("\n".join(toml_lines({"value": value}))).values()
    assert (type(found), found) == (type(value), value)


def test_tuples_are_arrays_and_none_is_left_out() -> None:
    assert toml_lines({"a": (1, 2.0), "b": None, "c": {"d": None, "e-f": "g"}}) == ["a = [1, 2.0]", 'c = { e-f = "g" }']


def test_text_that_no_toml_file_can_hold_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'/x/\\udcff.pth': is not UTF-8"):
        toml_lines({"file": "/x/\udcff.pth"})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"stepz": 1}, "t: unknown key 'stepz'"),
        ({}, "t: missing key 'steps'"),
        ({"steps": "3"}, "t.steps: expected int, got '3'"),
        ({"steps": True}, "t.steps: expected int, got True"),
        ({"steps": 0}, "t: steps is 0, must be at least 1"),
        ({"steps": 1, "inner": {"kind": "c"}}, "t.inner.kind: expected one of 'a', 'b', got 'c'"),
        ({"steps": 1, "inner": 3}, "t.inner: expected a table, got 3"),
        ({"steps": 1, "milestones": 3}, "t.milestones: expected an array, got 3"),
        ({"steps": 1, "milestones": [1, "x"]}, "t.milestones[1]: expected int, got 'x'"),
        ({"steps": 1, "weights": {"l1": "a"}}, "t.weights.l1: expected float, got 'a'"),
    ],
)
def test_a_wrong_table_is_named(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Outer, table, "t")
    assert caught.value.message == message


def test_the_nearest_key_is_suggested() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Outer, {"step": 1}, "t")
    assert caught.value.hint == "did you mean 'steps'?"
