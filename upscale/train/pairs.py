"""Pairs of pictures, LR and GT, that were made elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from upscale.errors import InputError
from upscale.images import read_size
from upscale.train.data import Pictures, find_pictures, open_pictures
from upscale.train.recipe import Recipe


def open_pairs(
    folder: Path,
    lr_folder: Path,
    recipe: Recipe,
    on_picture: Callable[[int, int], None] | None = None,
    leaving: Collection[Path] = (),
) -> Pictures:
    """Decode the pictures of ``folder`` and those in ``lr_folder`` that belong to them, as ``open_pictures`` does.

    A pair has the same path in its folders, but for the suffix and for an ``x4`` (the scale) after the name of LR.

    Raises:
        InputError: pictures without a partner, sizes that are not apart by the scale, or no pair that can be used.
    """
    partners = match(folder, lr_folder, recipe.scale, leaving)
    for name, lr_name in partners.items():
        large, small = read_size(folder / name), read_size(lr_folder / lr_name)
        if large is not None and small is not None:  # a wrong scale is told without decoding a thousand pictures
            check_sizes(lr_folder / lr_name, large, small, recipe.scale)
    pictures = open_pictures(folder, recipe.data.gt_size, on_picture, [*leaving, lr_folder])
    reduced = open_pictures(lr_folder, recipe.data.gt_size // recipe.scale, on_picture, leaving)
    found = dict(zip(reduced.names, reduced.arrays, strict=True))
    used = [
        (name, array, found[partners[name]])
        for name, array in zip(pictures.names, pictures.arrays, strict=True)
        if partners[name] in found
    ]
    if not used:
        raise InputError(f"{lr_folder}: none of its pictures can be used", f"the first: {reduced.skipped[0]}")
    for name, array, lr in used:
        check_sizes(lr_folder / partners[name], array.shape[:2], lr.shape[:2], recipe.scale)
    names, arrays, lrs = zip(*used, strict=True)
    return replace(
        pictures,
        names=names,
        arrays=arrays,
        lrs=lrs,
        digest=f"{pictures.digest}+{reduced.digest}",
        skipped=[*pictures.skipped, *reduced.skipped],
    )


def match(folder: Path, lr_folder: Path, scale: int, leaving: Collection[Path] = ()) -> dict[str, str]:
    """Return the path of each LR picture in ``lr_folder`` by that of its GT in ``folder``, each below its folder.

    Raises:
        InputError: pictures without a partner, or with two.
    """
    names: dict[str, Path] = {}
    for path in find_pictures(folder, [*leaving, lr_folder]):
        other = names.setdefault(str(path.relative_to(folder).with_suffix("")), path)
        if other != path:
            raise InputError(f"{folder}: {other.name} and {path.name} are one name to LR", "remove one of them")
    partners: dict[str, str] = {}
    strangers = []
    for path in find_pictures(lr_folder, leaving):
        name = str(path.relative_to(lr_folder).with_suffix(""))
        stems = (name, name.removesuffix(f"_x{scale}"), name.removesuffix(f"x{scale}"))
        gt = next((names[stem] for stem in stems if stem in names), None)
        if gt is None:
            strangers.append(name)
            continue
        key = str(gt.relative_to(folder))
        if key in partners:
            raise InputError(f"{lr_folder}: {partners[key]} and {path.name} are both LR of {key}", "remove one of them")
        partners[key] = str(path.relative_to(lr_folder))
    single = [str(path.relative_to(folder)) for path in names.values() if str(path.relative_to(folder)) not in partners]
    hint = f"a pair has one name, or LR has x{scale} after it: 0001.png and 0001x{scale}.png"
    if single:
        raise InputError(f"{lr_folder}: no LR for {_listed(single)} of {folder}", hint)
    if strangers:
        raise InputError(f"{folder}: no GT for {_listed(strangers)} of {lr_folder}", hint)
    return partners


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def check_sizes(lr: Path, large: tuple[int, ...], small: tuple[int, ...], scale: int) -> None:
    """Raise InputError unless ``large`` is ``scale`` times ``small``, (height, width), but for what GT has over."""
    expected = (large[0] // scale, large[1] // scale)
    if small != expected:
        raise InputError(
            f"{lr}: {small[1]}x{small[0]}, but x{scale} of GT, {large[1]}x{large[0]}, is {expected[1]}x{expected[0]}",
            f"the recipe's scale is {scale}: --set generator.scale=N changes it",
        )
