"""What a GPU would be given: the tensors of every operation are on one device.

The device "meta" computes shapes and no values, so this needs no GPU; it stands for one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.conftest import network, picture
from upscale import engine, inference
from upscale.device import ROOMY, VERY_ROOMY, assembly_device, default_tile
from upscale.engine import Upscaler
from upscale.images import Image, Pixels
from upscale.options import Measure, Precision, Target, Tiling

GPU, CPU = torch.device("meta"), torch.device("cpu")
COPY = torch.ops.aten.copy_.default
CONFIGS: list[dict[str, Any]] = [
    {"arch": "compact", "scale": 4, "num_feat": 8, "num_conv": 2},
    {"arch": "rrdbnet", "scale": 4, "num_feat": 8, "num_block": 1, "num_grow_ch": 4},
    {"arch": "rrdbnet", "scale": 2, "num_feat": 8, "num_block": 1, "num_grow_ch": 4},
    {"arch": "srresnet", "scale": 4, "num_feat": 8, "num_block": 1},
    {"arch": "edsr", "scale": 4, "num_feat": 8, "num_block": 1},
    {"arch": "srgan", "scale": 4, "num_feat": 8, "num_block": 1},
    {"arch": "span", "scale": 4, "num_feat": 8},
    {"arch": "espcn", "scale": 3},
    {"arch": "bicubic"},
]


class OneDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses what a GPU would refuse: tensors of two devices in one operation that is no copy."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.dim()]
        devices = {tensor.device for tensor in tensors}
        assert len(devices) < 2 or func is COPY, f"{func}: {devices}"
        if func is COPY and len(devices) == 2:
            return args[0]  # "meta" has no values to copy
        if kwargs.get("device") == CPU and GPU in devices:
            return torch.zeros(args[0].shape)
        return func(*args, **kwargs)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Return a list of where the rows are that become bytes, once an upscaler has run."""
    found: list[torch.device] = []

    def to_array(rows: Tensor, dtype: np.dtype[Any]) -> Pixels:
        found.append(rows.device)
        return np.zeros((*rows.shape[1:], 3), dtype)

    monkeypatch.setattr(inference, "_checked", lambda sr: sr[0].clamp(0, 1))
    monkeypatch.setattr(engine, "to_array", to_array)
    return found


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config['arch']}{config.get('scale', '')}")
@pytest.mark.parametrize("roomy", [True, False])
def test_tensors_of_an_operation_are_on_one_device(
    given: list[torch.device], monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], roomy: bool
) -> None:
    monkeypatch.setattr(engine, "assembly_device", lambda device: device if roomy else CPU)
    cases = (
        (None, np.uint8, Tiling(size=64)),
        (Target.parse("2.5"), np.uint16, Tiling(size=64, overlap=16)),
        (Target.parse("200", Measure.LONG), np.uint8, Tiling(size=64, overlap=4)),
    )
    for target, dtype, tiling in cases:
        upscaler = Upscaler([network(**config)], GPU, Precision.FP16, tiling)
        with OneDevice():  # type: ignore[no-untyped-call]
            upscaler.upscale(Image(pixels=picture(70, 90).astype(dtype), grayscale=dtype == np.uint16), target)
    assert set(given) == {GPU if roomy else CPU}


@pytest.mark.parametrize("place", ["zeros", "cat"])  # a row of tiles, and what a resize keeps of the one before
def test_a_full_gpu_leaves_putting_together_to_the_cpu(
    given: list[torch.device], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    function: Callable[..., Tensor] = getattr(torch, place)

    def full(*arguments: Any, **options: Any) -> Tensor:
        made = function(*arguments, **options)
        if made.device == GPU and made.dim() == 3 and given:  # once some rows are done
            raise torch.OutOfMemoryError("out of memory")
        return made

    monkeypatch.setattr(engine, "assembly_device", lambda device: device)
    monkeypatch.setattr(torch, place, full)
    for config in CONFIGS:
        given.clear()
        upscaler = Upscaler([network(**config)], GPU, Precision.FP16, Tiling(size=64))
        done: list[tuple[int, int]] = []
        with OneDevice():  # type: ignore[no-untyped-call]
            made = upscaler.upscale(
                Image(pixels=picture(200, 70)), Target.parse("2.5"), lambda *tile, to=done: to.append(tile)
            )
        assert made.tiles == done[-1][0] == done[-1][1]  # those before the failure do not count twice
        assert upscaler.assembly == given[-1] == CPU
        assert given[0] == GPU


def test_strips_of_half_precision_take_the_memory_of_float32() -> None:
    full, half = (default_tile(CPU, precision, streams=True) for precision in (Precision.FP32, Precision.BF16))
    assert half**2 == pytest.approx(2 * full**2, rel=0.05)


def test_tiles_are_larger_on_a_gpu_with_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    free = VERY_ROOMY
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
    cuda = torch.device("cuda")
    for streams in (False, True):
        free = VERY_ROOMY
        assert default_tile(cuda, Precision.FP16, streams=streams) == 1024
        free -= 1
        assert (
            default_tile(cuda, Precision.FP16, streams=streams)
            == default_tile(torch.device("mps"), Precision.FP16, streams=streams)
            == 512
        )
    free = VERY_ROOMY
    upscaler = Upscaler([network(arch="compact", num_feat=8, num_conv=2)], GPU, Precision.FP16, Tiling())
    assert upscaler._geometry(upscaler.generators[4])[0] == 512


def test_a_gpu_puts_together_where_it_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    free = ROOMY
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
    cuda = torch.device("cuda")
    assert assembly_device(cuda) == cuda
    free -= 1
    assert assembly_device(cuda) == assembly_device(CPU) == assembly_device(torch.device("mps")) == CPU
