"""Several processes that train one network: each takes a batch of its own, gradients are averaged.

``torchrun --nproc-per-node N -m upscale train ...`` starts them; a process started otherwise is alone. When one is
lost, ``--max-restarts N`` starts all again, from what was saved last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from upscale.torchrun import own_place, shared_store

_BEGUN = "upscale/begun"


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    world: int = 1
    attempt: int = 0
    """How often ``torchrun`` started all again."""
    store: Any = None
    """The ``Store`` that the processes share; it outlives an attempt."""

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

    def begin(self) -> None:
        """Remember that the run has begun, for attempts that follow."""
        if self.store is not None:
            self.store.set(_BEGUN, "")

    @property
    def begun(self) -> bool:
        """Whether an earlier attempt began the run: what was saved is this run's, not that of another in its folder."""
        return self.attempt > 0 and bool(self.store.check([_BEGUN]))

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            dist.barrier()


def own_device(device: torch.device) -> torch.device:
    """Return the GPU of this process among those that share a machine; any device that was named stays."""
    place = own_place()
    if device.type != "cuda" or device.index is not None or place is None:
        return device
    own = torch.device("cuda", place.local_rank % torch.cuda.device_count())
    torch.cuda.set_device(own)  # or each would begin its exchanges on the first
    return own


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started, and leave them at the end."""
    place = own_place()
    if place is None:
        yield Ranks()
        return
    # What is imported later, by an optimizer, would take the group as the default of its functions and keep it: its
    # threads would run on into the end of the interpreter, which sometimes aborts for that.
    import torch.distributed.nn
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # public, but not marked so

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    # Under one name for all attempts, the processes would look for those of the attempt before.
    store = PrefixStore(f"upscale/{place.attempt}", shared_store())
    dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.world)
    try:
        yield Ranks(place.rank, place.world, place.attempt, shared_store())
    finally:
        dist.destroy_process_group()
