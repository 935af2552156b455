"""The model card beside a network: what it is, how well it does, how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from upscale.train.data import Pictures
from upscale.train.recipe import Recipe, to_toml

UNITS = {"psnr": "dB, luma, scale pixels off each edge", "ssim": "the same pixels", "drift": "levels of 255"}


def card(path: Path, about: Mapping[str, Any], recipe: Recipe, pictures: Pictures, command: str) -> str:
    """Return Markdown about the network in ``path``; ``about`` is what its metadata say, ``command`` what made it."""
    hyper = ", ".join(f"{key} {value}" for key, value in recipe.generator.items() if key not in ("arch", "scale"))
    facts = {
        "architecture": f"`{recipe.generator['arch']}`" + (f", {hyper}" if hyper else ""),
        "scale": f"x{recipe.scale}",
        "trained": f"{about['step']} steps of {recipe.steps}, by {about['trained_by']}",
        "losses": ", ".join(f"{weight:g} {name}" for name, weight in recipe.losses.items())
        + (f", {recipe.gan.weight:g} adversarial ({recipe.gan.kind})" if recipe.gan else ""),
        "LR": "given with the pictures" if pictures.lrs is not None else recipe.degradation.kind,
        "started from": recipe.init or "random weights",
        "pictures": f"{len(pictures.arrays)}, {len(pictures.skipped)} skipped",
        "data digest": f"`{pictures.digest}`",
    }
    measured = [f"| {name} | {value:.4f} | {UNITS.get(name, '')} |" for name, value in about["metrics"].items()] or [
        "Not measured at this step."
    ]
    head = ["| metric | mean | |", "|---|--:|---|"] if about["metrics"] else []
    lines = [
        f"# {path.stem}",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {text} |" for name, text in facts.items()),
        "",
        f"Use it with `upscale photo.jpg -m {path.name}`.",
        "",
        "## Quality on the validation pictures",
        "",
        *head,
        *measured,
        "",
        "## How it was made",
        "",
        *(["```", command, "```", ""] if command else []),
        "with this recipe:",
        "",
        "```toml",
        to_toml(recipe).rstrip(),
        "```",
    ]
    return "\n".join(lines) + "\n"
