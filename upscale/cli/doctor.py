"""``upscale doctor``."""

from __future__ import annotations

import platform
import time

from upscale import __version__
from upscale.cli import console
from upscale.cli.arguments import Device


def doctor(
    device: Device = "auto",
) -> None:
    """Say which device and precision will be used, why not a faster one, and what would change it."""
    import numpy as np
    import torch

    from upscale import store
    from upscale.catalog import user_file
    from upscale.device import advice, describe, resolve_device, resolve_precision
    from upscale.images import Image
    from upscale.loading import load
    from upscale.options import Precision

    chosen = resolve_device(device)
    precision = resolve_precision(Precision.AUTO, chosen)
    upscaler = load(device=device)
    edge = 256
    noise = np.random.default_rng(0).integers(0, 256, (edge, edge, 3), np.uint8)
    upscaler.upscale(Image(pixels=noise))  # the first run also loads kernels
    began = time.perf_counter()
    upscaler.upscale(Image(pixels=noise))
    seconds = time.perf_counter() - began
    rows = [
        ("upscale", __version__),
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        ("pytorch", torch.__version__),
        ("device", f"{chosen} ({describe(chosen)})"),
        ("precision", precision.value),
        ("speed", f"{edge**2 / 1e6 / seconds:.2f} megapixels a second in, with the default model"),
        ("networks", f"{store.folder()}, those that were fetched; UPSCALE_HOME moves it"),
        ("names", f"{user_file()}, those of your own; moved likewise"),
    ]
    for name, value in rows:
        console.line(f"{name:<10} {value}")
    for remark in advice(chosen):
        console.line(f"{'advice':<10} {remark}")
