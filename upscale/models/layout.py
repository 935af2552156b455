"""Names that tensors of one architecture have in the files of others."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    r"""How one author calls the tensors of an architecture.

    ``names`` maps regular expressions, each for whole names without ``.weight`` and the like, to our names; to None
    where we have no use for the tensor. ``{n}`` in an expression is the largest number that ``counter`` finds in any
    name, ``{n-1}`` and ``{n-2}`` are the ones below. In our names, a group is ``\1``, and ``#`` is the rank of the
    first group's number among all the numbers that the expression meets, from 0 (``#1``: from 1).

    >>> layout = Layout(author="x", names={r"block(\d+)": "body.#", "end": "conv_last"})
    >>> layout.translate(["block2.weight", "block4.weight", "end.bias"])
    {'block2.weight': 'body.0.weight', 'block4.weight': 'body.1.weight', 'end.bias': 'conv_last.bias'}
    """

    author: str
    names: Mapping[str, str | None]
    counter: str | None = None
    implies: Mapping[str, Any] = field(default_factory=dict)
    """Hyper-parameters that the tensors do not show, but the author's code says."""
    tells: Callable[[Mapping[str, Tensor]], Mapping[str, Any]] = lambda tensors: {}
    """Hyper-parameters that the values of the author's tensors show."""

    def translate(self, names: Collection[str]) -> dict[str, str | None] | None:
        """Return our name of each of ``names``; None if one of them is not of this layout."""
        rules = self._rules(names)
        found: list[tuple[int, re.Match[str]]] = []
        numbers: dict[int, set[int]] = {}  # by rule, what its first group meets
        for name in names:
            hit = next(((i, match) for i, (rule, _) in enumerate(rules) if (match := rule.fullmatch(name))), None)
            if hit is None:
                return None
            found.append(hit)
            if "#" in (rules[hit[0]][1] or ""):
                numbers.setdefault(hit[0], set()).add(int(hit[1][1]))
        translated: dict[str, str | None] = {}
        for i, match in found:
            ours = rules[i][1]
            if ours is not None and i in numbers:
                rank = sorted(numbers[i]).index(int(match[1]))
                ours = ours.replace("#1", str(rank + 1)).replace("#", str(rank))
            translated[match.string] = None if ours is None else match.expand(ours) + match["rest"]
        return translated

    def known(self, name: str) -> bool:
        """Return whether ``name`` could be of this layout."""
        return any(re.fullmatch(_with_rest(re.sub(r"\{n.*?\}", r"\\d+", text)), name) for text in self.names)

    def _rules(self, names: Collection[str]) -> list[tuple[re.Pattern[str], str | None]]:
        n = max((int(m[1]) for name in names if self.counter and (m := re.match(self.counter, name))), default=0)
        return [
            (re.compile(_with_rest(re.sub(r"\{n(-\d)?\}", lambda m: str(n + int(m[1] or 0)), theirs))), ours)
            for theirs, ours in self.names.items()
        ]


def _with_rest(pattern: str) -> str:
    return rf"{pattern}(?P<rest>(\.(weight|bias|running_mean|running_var|num_batches_tracked))?)"
