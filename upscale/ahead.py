"""Work that threads do ahead of who needs it, but not further than memory allows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], most: int
) -> Iterator[tuple[Item, Result]]:
    """Yield each of ``items`` with what ``work`` makes of it, in order; at most ``most`` of them wait to be taken."""
    coming: deque[tuple[Item, Future[Result]]] = deque()
    for item in items:
        coming.append((item, pool.submit(work, item)))
        if len(coming) > most:
            first, future = coming.popleft()
            yield first, future.result()
    while coming:
        first, future = coming.popleft()
        yield first, future.result()
