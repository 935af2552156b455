"""What ``torchrun`` tells each of the processes that it starts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process is among those of its run; by default it is alone."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    """Among those of this machine."""
    attempt: int = 0
    """How often all were started again, after one was lost or ended with an error."""


def own_place() -> Place | None:
    """Return the place of this process, None if ``torchrun`` did not start it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT")
    return Place(*(int(os.environ[name]) for name in names))


@cache
def shared_store() -> Any:
    """Return what all processes of the run can read and write (torch.distributed.Store); it outlives an attempt."""
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://"))
    return store
