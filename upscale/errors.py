"""Everything a user can cause or repair.

::

    UpscaleError                     message: the place and the fact;  hint: the way out
    ├── InputError
    │   ├── UnreadableImage          not an image, truncated, or larger than the pixel limit
    │   ├── UnsupportedFormat        no row in FORMATS for this suffix, no plug-in, or too large for it
    │   └── OutputExists             two inputs with one output, or a file that --force would replace
    ├── DiskFull                     no room for a result: what is done stays, nothing more is begun
    ├── ConfigError                  a TOML file or --set that does not parse into its dataclass
    ├── WeightsError
    │   ├── UnknownWeights           neither a name in the catalogue nor a file; a UsageError, too
    │   ├── DownloadFailed           no connection, a refusal, the wrong thing, or no room on the disk
    │   ├── ChecksumMismatch         a file whose sha256 is not the one that the catalogue states
    │   └── IncompatibleCheckpoint   missing, unexpected or misshapen keys, the first few of each
    ├── DeviceError
    │   ├── DeviceUnavailable        --device cuda without CUDA
    │   └── OutOfMemory              also at the smallest tile
    ├── UsageError                   an option's value that makes no sense; exit code 2 where all others give 1
    ├── NonFiniteOutput              NaN or inf even in float32
    └── Diverged                     training that came to nothing, also at lower rates

Anything else that is raised is a bug and keeps its traceback.
"""

from __future__ import annotations


class UpscaleError(Exception):
    """An error that the user can act on: ``message`` says the place and the fact, ``hint`` the way out."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(UpscaleError):
    """An input, or the output asked for it, cannot be used."""


class UnreadableImage(InputError):
    """Not an image, truncated, or larger than the pixel limit."""


class UnsupportedFormat(InputError):
    """No row in FORMATS for this suffix, its plug-in is not installed, or a picture too large for the format."""


class OutputExists(InputError):
    """Two inputs with one output, or a file that ``--force`` would replace."""


class DiskFull(UpscaleError):
    """No room for a result on its disk."""


class ConfigError(UpscaleError):
    """A TOML table that does not parse into its dataclass."""


class WeightsError(UpscaleError):
    """A network's file cannot be used."""


class DownloadFailed(WeightsError):
    """Weights that could not be fetched: no connection, a refusal, the wrong thing, or no room on the disk."""


class ChecksumMismatch(WeightsError):
    """A file whose sha256 is not the one that the catalogue states."""


class IncompatibleCheckpoint(WeightsError):
    """Not a checkpoint of a known architecture, or one with missing, unexpected or misshapen keys."""


class DeviceError(UpscaleError):
    """The device cannot do what was asked of it."""


class DeviceUnavailable(DeviceError):
    """A device that is not on this machine or that this PyTorch cannot reach."""


class OutOfMemory(DeviceError):
    """Not enough memory, also at the smallest tile."""


class UsageError(UpscaleError):
    """An option's value that makes no sense."""


class UnknownWeights(WeightsError, UsageError):
    """Neither a name in the catalogue nor a file."""


class NonFiniteOutput(UpscaleError):
    """A network gave NaN or infinity even in float32."""


class Diverged(UpscaleError):
    """Training whose weights or gradients are not finite, also at lower learning rates."""
