"""Turn TOML tables into frozen dataclasses, strictly: unknown keys and wrong types are errors. Write TOML and JSON."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union

from upscale.errors import ConfigError

T = TypeVar("T")


def parse(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """Make a ``cls`` of ``table``; ``where`` names the file and the table in error messages.

    Nested tables become nested dataclasses, arrays tuples; an integer is accepted where a float is expected.

    Raises:
        ConfigError: an unknown or missing key, or a value of the wrong type or outside what ``cls`` accepts.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    for key in table:
        if key not in fields:
            raise ConfigError(f"{where}: unknown key {key!r}", did_you_mean(key, fields))
    values = {key: _convert(hints[key], value, f"{where}.{key}") for key, value in table.items()}
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise ConfigError(f"{where}: missing key {name!r}")
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def toml_lines(table: Mapping[str, object]) -> list[str]:
    """Return a line of TOML ``key = value`` for each item of ``table``; None, which TOML lacks, is left out.

    Raises:
        ConfigError: a text that no TOML file can hold.
    """
    return [f"{toml_key(key)} = {_toml(value)}" for key, value in table.items() if value is not None]


def toml_key(key: str) -> str:
    """Return ``key`` as TOML has keys and names of tables, in quotes where it needs them."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key)


def for_json(value: Any) -> Any:
    """Return ``value`` with ``"inf"`` and ``"nan"`` in place of the numbers that JSON has no words for."""
    if isinstance(value, Mapping):
        return {key: for_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [for_json(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def within(name: str, value: float, least: float, most: float = sys.float_info.max) -> None:
    """Raise ValueError if ``value``, which is called ``name``, is not a number from ``least`` to ``most``."""
    if not least <= value <= most:  # NaN is nowhere
        limits = f"from {least:g} to {most:g}" if most < sys.float_info.max else f"at least {least:g}"
        raise ValueError(f"{name} is {value}, must be {limits}")


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return a hint that names the known word nearest to ``word``, or None if nothing is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else None


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        options = [a for a in args if a is not type(None)]
        return None if value is None else _convert(options[0], value, where)
    if origin is Literal:
        if value not in args:
            expected = ", ".join(repr(a) for a in args)
            raise ConfigError(f"{where}: expected one of {expected}, got {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: expected an array, got {value!r}")
        return tuple(_convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected a table, got {value!r}")
        return parse(typing.cast(type[Any], hint), value, where)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected a table, got {value!r}")
        return {key: _convert(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where}: expected {hint.__name__}, got {value!r}")
    return value


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _toml_string(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(toml_lines(value)) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    raise TypeError(f"no TOML for {value!r}")


def _toml_string(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # a path in another encoding; TOML has no escape for its bytes
        raise ConfigError(f"{text!a}: is not UTF-8, as TOML files are", "rename it") from error
    # TOML's escapes are JSON's, but it knows no surrogate pairs, and DEL is a control character, too.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
