"""Jobs -> files: pictures are read, enlarged and written at the same time, and one's failure is its alone.

One thread reads ahead, the caller's runs the network, or one for each device if there are several, and a few write. At
most ``READ_AHEAD`` pictures wait for the network and as many results as there are writers wait for the disk, so memory
is bounded by a few pictures. Results are reported in the order of the jobs.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Semaphore
from typing import Protocol

from upscale.ahead import ahead
from upscale.batch.journal import Entry, Journal, Source, output_state
from upscale.batch.plan import Job
from upscale.batch.results import Settings, Written, copy, encode, keep_time, make_folder, stream
from upscale.batch.team import Team
from upscale.device import told_of_memory
from upscale.engine import Upscaled, Upscaler
from upscale.errors import DiskFull, InputError, OutOfMemory, UpscaleError
from upscale.files import exists, said_of
from upscale.images import LARGE, Image, can_stream, check_size, decode, format_of, held_by, read_size

READ_AHEAD = 2
_LESS = "close other programs, or give -j 1"
_POLL = 0.2  # seconds between looks at a picture that another run works on


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A picture that was written."""

    job: Job
    size: tuple[int, int]
    """Height and width."""
    result: Upscaled | None
    """How; None: it was large enough already and copied, or another process of the team did it. Its image is gone."""
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A picture that needed no work, and why."""

    job: Job
    reason: str
    kept: bool = False
    """Whether there is work, but somebody changed the result since it was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A picture that could not be done, and why."""

    job: Job
    error: UpscaleError
    earlier: bool = False
    """In an earlier run; it was not tried again."""


Ended = Done | Skipped | Failed


class OnJobTile(Protocol):
    """Is told of every tile."""

    def __call__(self, job: Job, done: int, total: int) -> None:
        """Take note that ``done`` of the ``total`` tiles of ``job`` are finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """A picture that was read, and is claimed if there is a journal."""

    job: Job
    image: Image
    source: Source
    journal: Journal | None


_Read = _Ready | Done | Skipped | Failed | None
"""A picture, or what became of it before; None: another run works on it."""


def run(
    jobs: Sequence[Job],
    upscalers: Sequence[Upscaler],
    settings: Settings,
    *,
    on_tile: OnJobTile,
    on_end: Callable[[Ended], None],
    writers: int = 2,
    retry_failed: bool = False,
    redo: bool = False,
    team: Team | None = None,
    first: Future[Image] | None = None,
) -> None:
    """Do ``jobs`` with ``upscalers`` of one network, one for each device; ``on_end`` is told of the end of each job.

    What the journal of a folder of results says to be done, from the same content and with the same settings, is not
    done again, and a result that was changed since is left; what another run works on comes last. ``retry_failed``: try
    what failed before again, but nothing that was done, by whatever settings. ``redo``: do everything else, whatever
    the journal said at the beginning. With a ``team``, what the others do is reported as done, too. ``first``: the
    first of ``jobs``, whose decoding was begun before the network was there; a journal would have to be asked for it.

    Raises:
        DiskFull: no room for a result; nothing is begun any more, what was begun is finished.
    """
    team = team or Team()
    with ExitStack() as stack:
        journals = {root: Journal(root) for root in dict.fromkeys(job.root for job in jobs) if root is not None}
        for journal in journals.values():
            journal.begin()
            stack.callback(journal.close)
        team.meet()  # so that all agree on what was done before
        stages = _Stages(
            upscalers, settings, journals, on_tile, writers, retry_failed=retry_failed, redo=redo, shared=not team.alone
        )
        if first is not None:
            stages.begun[jobs[0]] = first
        stack.callback(stages.close)
        elsewhere = _flow(team.order(jobs), stages, on_end)
        stages.wait = True
        _flow(elsewhere, stages, on_end)


def _flow(jobs: Sequence[Job], stages: _Stages, on_end: Callable[[Ended], None]) -> list[Job]:
    """Take ``jobs`` through the stages; return those that another run works on."""
    elsewhere: list[Job] = []
    pending: deque[Future[Ended]] = deque()
    for job, ready in ahead(stages.reader, stages.read, jobs, READ_AHEAD):
        if ready is None:
            elsewhere.append(job)
            continue
        pending.append(stages.begin(ready))
        while pending and pending[0].done():
            on_end(pending.popleft().result())
        if stages.full is not None:
            break
    while pending:
        on_end(pending.popleft().result())
    if stages.full is not None:
        raise stages.full
    return elsewhere


class _Stages:
    """What happens to one picture in each of the three places, from the journal's question to its last note."""

    def __init__(
        self,
        upscalers: Sequence[Upscaler],
        settings: Settings,
        journals: Mapping[Path, Journal],
        on_tile: OnJobTile,
        writers: int,
        *,
        retry_failed: bool,
        redo: bool,
        shared: bool,
    ) -> None:
        self.settings = settings
        self.journals = journals
        self.on_tile = on_tile
        self.retry_failed = retry_failed
        self.redo = redo
        self.shared = shared
        self.wait = False
        """Whether to wait for pictures that another run works on."""
        self.begun: dict[Job, Future[Image]] = {}
        """Pictures that are being decoded already."""
        self.full: DiskFull | None = None
        """That there is no room for a result: nothing is begun any more."""
        self.reader = ThreadPoolExecutor(1)
        # The caller's thread runs a single network, so that Ctrl-C ends it at once.
        self.networks = ThreadPoolExecutor(len(upscalers)) if len(upscalers) > 1 else None
        self.writer = ThreadPoolExecutor(writers)
        self.idle: SimpleQueue[Upscaler] = SimpleQueue()
        for upscaler in upscalers:
            self.idle.put(upscaler)
        self.room = Semaphore(len(upscalers) + writers)  # for pictures that were read and are not yet written
        self.closed = False

    def close(self) -> None:
        """End the threads; a network stops after its tile."""
        self.closed = True
        for pool in (self.reader, self.networks, self.writer):
            if pool is not None:
                pool.shutdown(cancel_futures=True)

    def read(self, job: Job) -> _Read:
        """Read the picture of ``job`` unless there is no need to; None: another run works on it."""
        journal = None if job.root is None else self.journals[job.root]
        claimed = False
        source = Source(job.source, ())
        try:
            source = Source.of(job.source)
            if journal is not None:
                ended = self._known(job, source, journal)
                if ended is not None:
                    return ended
                while not journal.claim(job.output):
                    if not self.wait:
                        return None
                    time.sleep(_POLL)
                claimed = True
                journal.refresh()  # it may have been done between the question and the claim
                journal.tidy(job.output)
                ended = self._known(job, source, journal)
                if ended is None and not self.redo and exists(job.output) and not journal.made(job.output):
                    ended = Skipped(job=job, reason="was changed since it was made", kept=True)
                if ended is not None:
                    journal.release(job.output)
                    return ended
            begun = self.begun.pop(job, None)
            with told_of_memory(str(job.source), _LESS):
                image = decode(source.read(), str(job.source)) if begun is None else begun.result()
            return _Ready(job=job, image=image, source=source, journal=journal)
        except UpscaleError as error:
            return self._failed(job, error, journal if claimed else None, source)
        except OSError as error:
            said = InputError(f"{error.filename or job.source}: {error.strerror or error}")
            return self._failed(job, said, journal if claimed else None, source, passing=True)

    def _known(self, job: Job, source: Source, journal: Journal) -> Ended | None:
        """Return how ``job`` ended before, None if there is something to do."""
        entry = journal.find(job.output)
        new = entry is not None and journal.is_new(entry)
        if self.retry_failed and not new and journal.has_done(job.source, job.output):
            return Skipped(job=job, reason="was done before")
        if self.redo and not new:
            return None
        if entry is not None and entry.settings == self.settings.key and source.is_that_of(entry):
            if entry.status == "failed" and (new or not self.retry_failed):
                error = UpscaleError(f"{job.source}: {entry.error}", entry.hint)
                return Failed(job=job, error=error, earlier=not new)
            if entry.status == "done" and entry.output_state == output_state(job.output):
                return self._by_another(job, entry) if new else Skipped(job=job, reason="unchanged")
        return None

    def _by_another(self, job: Job, entry: Entry) -> Ended:
        """Return how ``job`` ended that another process has done meanwhile."""
        if not self.shared:
            return Skipped(job=job, reason="another run has done it")
        return Done(job=job, size=read_size(job.output) or (0, 0), result=None, notices=entry.notices)

    def begin(self, ready: _Ready | Ended) -> Future[Ended]:
        """Enlarge and write a picture, once there is room for it in memory."""
        if not isinstance(ready, _Ready):
            return _finished(ready)
        self.room.acquire()
        ended: Future[Ended] = Future()
        ended.add_done_callback(lambda _: self.room.release())
        if self.networks is None:
            self._run(ready, ended)
        else:
            self.networks.submit(self._run, ready, ended)
        return ended

    def _run(self, ready: _Ready, ended: Future[Ended]) -> None:
        """Run an idle network on a picture and hand the result to a writer; ``ended`` is told of the end."""
        upscaler = self.idle.get()
        try:
            self._enlarge(ready, upscaler).add_done_callback(lambda inner: _pass_on(inner, ended))
        except Exception as error:
            ended.set_exception(error)
        finally:
            self.idle.put(upscaler)

    def _enlarge(self, ready: _Ready, upscaler: Upscaler) -> Future[Ended]:
        """Run the network on a picture and hand the result to a writer; a very large one is written as it comes."""
        job, target = ready.job, self.settings.target
        on_tile = partial(self._on_tile, job)
        try:
            image = held_by(format_of(job.output), ready.image)
            ready = replace(ready, image=image)
            height, width = target.size(*image.pixels.shape[:2])
            if all(target.is_reached(*frame.pixels.shape[:2]) for frame in image.frames):
                if self.settings.skip_large:
                    return _finished(self._skipped(ready, "is large enough already"))
                return self.writer.submit(self._write, ready, partial(copy, job, image, self.settings))
            check_size(str(job.output), format_of(job.output), height, width)  # before the network works for nothing
            if height * width * 3 * image.pixels.itemsize > LARGE and can_stream(job.output, image):
                return _finished(self._write(ready, partial(stream, job, image, self.settings, upscaler, on_tile)))
            with told_of_memory(str(job.source), _LESS):
                result = upscaler.upscale(image, target, on_tile)
        except UpscaleError as error:
            return _finished(self._failed(job, error, ready.journal, ready.source))
        return self.writer.submit(self._write, ready, partial(encode, job, result, self.settings))

    def _on_tile(self, job: Job, done: int, total: int) -> None:
        if self.closed:
            raise CancelledError
        self.on_tile(job, done, total)

    def _skipped(self, ready: _Ready, reason: str) -> Skipped:
        if ready.journal is not None:
            ready.journal.release(ready.job.output)
        return Skipped(job=ready.job, reason=reason)

    def _write(self, ready: _Ready, write: Callable[[], Written]) -> Ended:
        """Write a result and note it in the journal."""
        job, journal = ready.job, ready.journal
        height, width = self.settings.target.size(*ready.image.pixels.shape[:2])
        try:
            with said_of(job.output), told_of_memory(str(job.source), _LESS):
                if journal is not None:
                    journal.note(journal.entry(job.output, "begun", ready.source, self.settings.key))
                make_folder(job.output.parent)
                result, said = write()
                notices = ready.image.notices + said
                keep_time(job)
                if journal is not None:
                    entry = journal.entry(job.output, "done", ready.source, self.settings.key)
                    seconds = 0.0 if result is None else round(result.seconds, 3)
                    state = output_state(job.output) or ()
                    journal.note(
                        replace(entry, notices=notices, pixels=height * width, output_state=state, seconds=seconds)
                    )
                    journal.release(job.output)
        except UpscaleError as error:
            return self._failed(job, error, journal, ready.source)
        if result is not None:
            gone = replace(result.image, pixels=result.image.pixels[:0].copy(), alpha=None, following=())
            result = replace(result, image=gone)
        return Done(job=job, size=(height, width), result=result, notices=notices)

    def _failed(
        self, job: Job, error: UpscaleError, journal: Journal | None, source: Source, *, passing: bool = False
    ) -> Failed:
        """Note a failure, ``passing`` if another try may not repeat it, and give up the claim."""
        if isinstance(error, DiskFull):
            self.full = error
        if journal is not None:
            if not isinstance(error, DiskFull):
                passing = passing or isinstance(error, OutOfMemory)
                # What failed with no settings, every run tries again.
                entry = journal.entry(job.output, "failed", source, "" if passing else self.settings.key)
                reason = error.message.removeprefix(f"{job.source}: ")  # standard input has another path each time
                with suppress(OSError):  # a full disk: it is told all the same, and tried again by the next run
                    journal.note(replace(entry, error=reason, hint=error.hint))
            journal.release(job.output)
        return Failed(job=job, error=error)


def _pass_on(inner: Future[Ended], ended: Future[Ended]) -> None:
    try:
        ended.set_result(inner.result())
    except Exception as error:
        ended.set_exception(error)


def _finished(ended: Ended) -> Future[Ended]:
    future: Future[Ended] = Future()
    future.set_result(ended)
    return future
