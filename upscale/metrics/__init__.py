"""How near a picture is to another, under a protocol that has a name."""

from upscale.metrics.color import ciede2000, srgb_to_lab
from upscale.metrics.fidelity import METRICS, Metric, ms_ssim, psnr, ssim
from upscale.metrics.perceptual import LPIPS, FeatureDistance
from upscale.metrics.protocols import PROTOCOLS, Protocol, prepare

__all__ = [
    "LPIPS",
    "METRICS",
    "PROTOCOLS",
    "FeatureDistance",
    "Metric",
    "Protocol",
    "ciede2000",
    "ms_ssim",
    "prepare",
    "psnr",
    "srgb_to_lab",
    "ssim",
]
