"""The options ``--features`` and ``--lpips``, and the distances that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from upscale.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from upscale.metrics import LPIPS, FeatureDistance

Features = Annotated[str | None, typer.Option(metavar="FILE", help="SqueezeNet for the unweighted feature distance.")]
Lpips = Annotated[
    tuple[str, str] | None,
    typer.Option(metavar="BACKBONE LINEAR", help="Weights of LPIPS: torchvision's network, its calibration."),
]


def distances(features: str | None, lpips: tuple[str, str] | None) -> tuple[FeatureDistance | None, LPIPS | None]:
    """Return the distances that ``--features`` and ``--lpips`` name, None where they are not given."""
    from upscale.metrics import LPIPS, FeatureDistance

    return (
        None if features is None else FeatureDistance(_weights(features)),
        None if lpips is None else LPIPS(*map(_weights, lpips)),
    )


def _weights(name: str) -> dict[str, Tensor]:
    from upscale import store
    from upscale.catalog import known
    from upscale.statedict import read_state_dict

    entry = known().find(name)[0]
    path = store.locate(entry)
    if path is None:
        raise UsageError(f"{name}: has no weights", "name a file with those of a feature extractor")
    return read_state_dict(path)
