"""The options ``--features`` and ``--lpips``, and the distances that they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from upscale.errors import UsageError

if TYPE_CHECKING:
    from upscale.metrics import LPIPS, FeatureDistance

Features = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="SqueezeNet 1.1, for the unweighted feature distance; squeezenet fetches one."),
]
Lpips = Annotated[
    tuple[str, str] | None,
    typer.Option(metavar="BACKBONE LINEAR", help="Weights of LPIPS: torchvision's network, its calibration."),
]


def distances(features: str | None, lpips: tuple[str, str] | None) -> tuple[FeatureDistance | None, LPIPS | None]:
    """Return the distances that ``--features`` and ``--lpips`` name, None where they are not given."""
    from upscale.checkpoint import read_classifier
    from upscale.metrics import LPIPS, FeatureDistance
    from upscale.statedict import read_state_dict

    return (
        None if features is None else FeatureDistance(read_classifier(_file(features))),
        None if lpips is None else LPIPS(*(read_state_dict(_file(name)) for name in lpips)),
    )


def _file(name: str) -> Path:
    from upscale import store
    from upscale.catalog import known

    entry = known().find(name)[0]
    path = store.locate(entry)
    if path is None:
        raise UsageError(f"{name}: has no weights", "name a file with those of a feature extractor")
    return path
