"""Which device, which precision, and how large a tile suits them."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path

import torch

from upscale.errors import DeviceUnavailable, OutOfMemory, UsageError
from upscale.options import Precision

ROOMY = 8 << 30
"""Bytes of free memory of a GPU from which on it has room for rows of a result beside a network."""
VERY_ROOMY = 24 << 30
"""The same for tiles that are twice as high and wide as usual: RRDBNet takes 10 GB for one."""
_REUSED = 1 << 29
"""Bytes up to which a block of memory is used again: what layers make of a tile is smaller; pictures may be larger."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
DTYPES = {Precision.FP16: torch.float16, Precision.BF16: torch.bfloat16, Precision.FP32: torch.float32}


def devices_of(names: str) -> list[str]:
    """Return the devices that ``names`` means: ``all`` GPUs, or those with commas between them.

    They are names for ``resolve_device``; without a GPU, all is one, ``auto``.
    """
    if names == "all":
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["auto"]
    return [name.strip() for name in names.split(",")]


def resolve_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` into a device that is there.

    Raises:
        UsageError: an unknown name.
        DeviceUnavailable: a device that this machine or this PyTorch does not have.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise DeviceUnavailable(
                f"--device {name}: {why_not_cuda()}", "`upscale doctor`, without --device, says what would help"
            )
        if (device.index or 0) >= torch.cuda.device_count():
            raise DeviceUnavailable(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA device(s)")
        return device
    if device.type == "mps":
        if not torch.backends.mps.is_available():
            raise DeviceUnavailable("--device mps: this machine has no Apple GPU", "use --device auto")
        return device
    raise UsageError(
        f"--device {name}: no such device",
        "use auto, cpu, cuda, cuda:N or mps; for pictures also all, or several: cuda:0,cuda:1",
    )


def why_not_cuda() -> str:
    """Return why CUDA cannot be used, in words."""
    if torch.version.cuda is None and getattr(torch.version, "hip", None) is None:
        return f"this PyTorch ({torch.__version__}) is built without CUDA"
    return "PyTorch has CUDA but finds no GPU or driver"


def describe(device: torch.device) -> str:
    """Return what ``device`` is, in words."""
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        return f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB"
    if device.type == "mps":
        return "Apple GPU"
    return f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"


def advice(device: torch.device) -> list[str]:
    """Return why ``device`` and its precision are not faster ones, and the command that would change it."""
    if device.type != "cpu":
        return []
    remarks = []
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        remarks.append("a GPU is there but not chosen: use --device auto")
    elif _has_nvidia_gpu() and torch.version.cuda is None:
        remarks.append(
            f"there is an NVIDIA GPU, but {why_not_cuda()}; install one with it, on Linux:"
            " pip install --force-reinstall torch; elsewhere take the command from pytorch.org"
        )
    elif _has_nvidia_gpu():
        remarks.append("there is an NVIDIA GPU, but its driver does not answer: update it, then run nvidia-smi")
    else:
        remarks.append("no GPU was found, so the CPU is used")
    if not has_native_bf16():
        remarks.append("this CPU has no native bf16 (AVX512-BF16, AMX), so float32 is used, about half as fast")
    if _gains_by_ncnn() and not _has_ncnn():
        remarks.append("without ncnn, the bundled networks take a third longer: pip install ncnn")
    cores = os.cpu_count() or 1
    if torch.get_num_threads() < cores // 2:
        remarks.append(f"only {torch.get_num_threads()} of {cores} processors are used: export OMP_NUM_THREADS={cores}")
    return remarks


def _has_nvidia_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()


def resolve_precision(precision: Precision, device: torch.device) -> Precision:
    """Turn ``auto`` into fp16 on a GPU, bf16 on a CPU that multiplies bf16 natively, fp32 elsewhere."""
    if precision is not Precision.AUTO:
        return precision
    if device.type in ("cuda", "mps"):
        return Precision.FP16
    return Precision.BF16 if has_native_bf16() else Precision.FP32


def has_native_bf16() -> bool:
    """Tell whether this CPU multiplies bf16 in hardware; emulated, it is many times slower than float32."""
    if platform.machine() in ("arm64", "aarch64"):
        return platform.system() == "Linux" and "bf16" in _cpu_flags()
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


def winograd_pays(device: torch.device) -> bool:
    """Tell whether float32 convolutions are to be ncnn's on ``device``."""
    return device.type == "cpu" and _gains_by_ncnn() and _has_ncnn()


def _gains_by_ncnn() -> bool:
    """Tell whether ncnn is the faster one; of wider vectors than AVX2's, this was not measured."""
    return torch.backends.cpu.get_cpu_capability() == "AVX2"


@cache
def _has_ncnn() -> bool:
    try:
        import_module("ncnn")
    except (ImportError, OSError):  # it is not for every system, and an accelerator only
        return False
    return True


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""


def whole_float32(device: torch.device) -> None:
    """Have convolutions on ``device`` take float32 as it is, for the process.

    cuDNN would round it to ten bits of fraction, too few for pictures of 16 bits and for LR that training makes.
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False


def reuse_memory(device: torch.device) -> None:
    """Have memory that tensors on the CPU let go of serve the next ones, for the process.

    glibc gives blocks of more than 32 MB back to the system, which fills each with zeros before it hands it out again:
    up to a third of a network's time.
    """
    if device.type == "cpu" and sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _REUSED)
            mallopt(_M_TRIM_THRESHOLD, 2 * _REUSED)


def default_tile(device: torch.device, precision: Precision, *, streams: bool) -> int:
    """Return the edge of a tile in LR pixels that suits ``device``.

    On a CPU larger tiles only leave the cache; on a GPU they fill the chip, as far as its memory goes. Where a network
    ``streams``, so that tiles need not share rows, small ones cost nothing on a CPU.
    """
    if device.type == "cpu":
        if not streams:
            return 384
        return 224 if precision is Precision.FP32 else 320  # twice the pixels, in as many bytes
    return 1024 if _free(device) >= VERY_ROOMY else 512


def assembly_device(device: torch.device) -> torch.device:
    """Return where the tiles that ``device`` computes are put together: on a GPU with much free memory, itself."""
    return device if _free(device) >= ROOMY else torch.device("cpu")


def _free(device: torch.device) -> int:
    """Return the bytes of free memory of a GPU whose driver tells."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


@contextmanager
def told_of_memory(what: str, way_out: str) -> Iterator[None]:
    """Raise OutOfMemory for ``what``, with ``way_out``, where the block runs out of memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"{what}: not enough memory for it", way_out) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether ``error`` says that the device's memory does not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        text in str(error)
        for text in (
            "can't allocate memory",
            "out of memory",
            "not enough memory",
            "could not create a primitive",  # oneDNN's words for it
            "STATUS_ALLOC_FAILED",  # cuBLAS's and cuDNN's, of what they need for themselves
        )
    )
