"""Several processes that share the pictures of one run: ``torchrun --nproc-per-node N -m upscale DIR -o OUT``.

Each begins with its share of the pixels and then takes what the others have not begun; the journal's claims keep
them apart, and the first one speaks for all. ``torchrun`` gives each one thread unless OMP_NUM_THREADS says otherwise.
It starts all again, up to ``--max-restarts`` times, when one is lost, which costs the pictures in work, and when the
first one ends with exit code 1 because pictures failed, which are then not tried again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from heapq import heapreplace
from math import prod

from upscale.batch.plan import Job
from upscale.torchrun import Place, own_place, shared_store


@dataclass(frozen=True, slots=True)
class Team(Place):
    """This process among those that share the work; by default it is alone."""

    @classmethod
    def joined(cls) -> Team:
        """Return the place that ``torchrun`` gave this process."""
        return cls(*astuple(own_place() or Place()))

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
        if shared_store().add(here, 1) == self.world:
            shared_store().set(all_here, "")
        shared_store().wait([all_here])

    def is_first_to(self, act: str) -> bool:
        """Return whether no process asked this of ``act`` before, in no attempt."""
        return self.alone or shared_store().add(f"upscale/{act}", 1) == 1


def _pixels(job: Job) -> int:
    return prod(job.size or (1, 1))
