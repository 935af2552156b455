"""Several processes that train one network: each takes its part of the batch, gradients are averaged.

``torchrun --nproc-per-node N -m upscale train ...`` starts them; a process started otherwise is alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that measures, logs and saves."""
        return self.rank == 0

    def average_gradients(self, network: nn.Module) -> None:
        """Replace the gradients of ``network`` by their mean over all processes, in one exchange."""
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        if self.world > 1:
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            dist.all_reduce(flat)
            pieces = torch.split(flat / self.world, [gradient.numel() for gradient in gradients])
            for gradient, piece in zip(gradients, pieces, strict=True):
                gradient.copy_(piece.view_as(gradient))

    def mean(self, values: Iterable[Tensor]) -> list[float]:
        """Return the mean of each scalar over all processes."""
        stacked = torch.stack([value.float() for value in values])
        if self.world > 1:
            dist.all_reduce(stacked)
        return [float(value) for value in stacked / self.world]

    def anyone(self, flag: bool) -> bool:
        """Tell whether ``flag`` is true in any process, so that all leave a loop in the same step."""
        if self.world == 1:
            return flag
        votes = torch.tensor(float(flag))
        dist.all_reduce(votes)
        return bool(votes)

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started, and leave them at the end."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Ranks()
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
