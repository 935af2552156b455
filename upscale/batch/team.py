"""Several processes that share the pictures of one run: ``torchrun --nproc-per-node N -m upscale DIR -o OUT``.

Each begins with its share of the pixels and then takes what the others have not begun; the journal's claims keep
them apart, and the first one speaks for all. ``torchrun`` gives each one thread unless OMP_NUM_THREADS says otherwise.
It starts all again, up to ``--max-restarts`` times, when one is lost, which costs the pictures in work, and when the
first one ends with exit code 1 because pictures failed, which are then not tried again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from heapq import heapreplace
from math import prod
from typing import Any

from upscale.batch.plan import Job


@dataclass(frozen=True, slots=True)
class Team:
    """This process among those that share the work; by default it is alone."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    """Among those of this machine."""
    attempt: int = 0
    """How often ``torchrun`` started all again, after one was lost or said that pictures failed."""

    @classmethod
    def joined(cls) -> Team:
        """Return the place that ``torchrun`` gave this process."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls()
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT")
        return cls(*(int(os.environ[name]) for name in names))

    @property
    def alone(self) -> bool:
        """Whether nobody shares the work."""
        return self.world == 1

    def order(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Return ``jobs`` in the order of this process: its share, then those of the others, the largest first."""
        if self.alone:
            return jobs
        largest_first = sorted(jobs, key=_pixels, reverse=True)
        loads = [(0, rank) for rank in range(self.world)]  # a heap: each picture goes to whom has least to do
        own = set()
        for job in largest_first:
            load, rank = loads[0]
            heapreplace(loads, (load + _pixels(job), rank))
            if rank == self.rank:
                own.add(job)
        return sorted(largest_first, key=lambda job: job not in own)

    def meet(self) -> None:
        """Wait until every process is here."""
        if self.alone:
            return
        here, all_here = (f"upscale/{self.attempt}/{what}" for what in ("here", "all"))  # the store outlives an attempt
        if _store().add(here, 1) == self.world:
            _store().set(all_here, "")
        _store().wait([all_here])

    def is_first_to(self, act: str) -> bool:
        """Return whether no process asked this of ``act`` before, in no attempt."""
        return self.alone or _store().add(f"upscale/{act}", 1) == 1


@cache
def _store() -> Any:
    """Return what all processes of the run can read and write (torch.distributed.Store)."""
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://"))
    return store


def _pixels(job: Job) -> int:
    return prod(job.size or (1, 1))
