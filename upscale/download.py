"""From a URL to a file that is whole: resumed, retried, from mirrors, and checked before it gets its name."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from filelock import BaseFileLock, FileLock

from upscale import __version__
from upscale.errors import ChecksumMismatch, DownloadFailed

OnBytes = Callable[[int, int | None], None]
"""Is told how many bytes are here, and of how many, where that is known."""

LOCAL = ("localhost", "127.0.0.1", "::1")
REDIRECTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """When to try again, and when to give up."""

    attempts: int = 5
    """For each mirror; an attempt that came further than all before it does not count."""
    pause: float = 1.0
    """Seconds before the second attempt; it doubles with each."""
    longest_pause: float = 60.0
    timeout: float = 30.0
    """Seconds without an answer."""
    slowest: float = 1024.0
    """Bytes a second, over ``timeout``; a connection below it is given up and opened anew."""


def download(
    urls: Sequence[str],
    target: Path,
    *,
    sha256: str | None,
    size: int | None,
    on_bytes: OnBytes | None = None,
    patience: Patience | None = None,
) -> None:
    """Fetch one of ``urls``, mirrors in order of preference, to ``target``.

    The name ``target`` comes into being when its ``size`` and ``sha256`` are right, as far as they are given. What a
    broken connection leaves is kept beside it and completed by the next attempt, or the next run; without ``sha256``,
    by the next attempt only, if the server says that it has the same file. Of several processes, one downloads and the
    others wait for it.

    Raises:
        DownloadFailed: no mirror gave the file; the message says what each did.
        ChecksumMismatch: a mirror gave another file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with lock(target):
        if target.is_file():  # another process was faster
            return
        fetch = _Fetch(target, sha256, size, on_bytes, patience or Patience())
        fetch.check_room()
        failures: list[DownloadFailed | ChecksumMismatch] = []
        for url in urls:
            try:
                fetch.mirror(url)
                return
            except (DownloadFailed, ChecksumMismatch) as error:
                failures.append(error)
        if len(failures) == 1:
            raise failures[0]
        raise DownloadFailed(
            f"{target.name}: none of {len(failures)} addresses gave it; "
            + "; ".join(failure.message for failure in failures),
            failures[0].hint,
        )


def lock(target: Path) -> BaseFileLock:
    """Return the lock of the one that fetches ``target``, who may take it twice."""
    return FileLock(target.with_name(f".{target.name}.lock"), is_singleton=True)


class _TryAgain(Exception):
    """What happened may not happen again; ``wait`` is what the server asks for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _Fetch:
    """One file on its way."""

    def __init__(
        self, target: Path, sha256: str | None, size: int | None, on_bytes: OnBytes | None, patience: Patience
    ) -> None:
        self.target, self.sha256, self.size = target, sha256, size
        self.on_bytes, self.patience = on_bytes, patience
        self.part = target.with_name(f".{target.name}.part")
        self.etag = ""
        """Of the file without sha256 whose part is here; empty where it cannot be told from others."""

    def check_room(self) -> None:
        """Raise DownloadFailed if there is no room for what is not here yet."""
        folder, missing = self.target.parent, (self.size or 0) - (self._here() if self.sha256 else 0)
        free = shutil.disk_usage(folder).free
        if missing > free:
            raise DownloadFailed(
                f"{folder}: {free / 2**20:.0f} MiB free, {missing / 2**20:.0f} needed",
                "make room, or set UPSCALE_HOME",
            )

    def mirror(self, url: str) -> None:
        """Fetch ``url``, as often as patience allows."""
        if self.sha256 is None:  # nothing would tell the file from what an earlier run or another mirror left
            self.part.unlink(missing_ok=True)
        attempt, furthest, self.etag = 0, self._here(), ""
        resumed = furthest > 0
        while True:
            try:
                self._attempt(url)
                self._finish(url)
                return
            except _TryAgain as error:
                attempt = attempt + 1 if self._here() <= furthest else 1
                furthest = max(furthest, self._here())
                if attempt >= self.patience.attempts:
                    kept = ": what is here already is kept" if self.sha256 else ""
                    raise DownloadFailed(f"{url}: {error}", f"try again later{kept}") from error
                pause = max(self.patience.pause * 2 ** (attempt - 1), error.wait)
                time.sleep(min(pause, self.patience.longest_pause))
            except ChecksumMismatch:
                self.part.unlink(missing_ok=True)
                if not resumed:
                    raise
                resumed, furthest = False, 0  # the part of an earlier run may have been of another file
            except OSError as error:
                raise DownloadFailed(
                    f"{self.part}: {error.strerror or error}", "make room, or set UPSCALE_HOME"
                ) from error

    def _attempt(self, url: str) -> None:
        """Add to the part what is missing, or as much of it as comes."""
        start = self._here() if self.sha256 or self.etag else 0
        if self.size is not None and start >= self.size:
            return
        with _answer(url, start, self.etag, self.patience.timeout) as answer:
            if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                self.part.unlink(missing_ok=True)
                raise _TryAgain("the server has less than is here already")
            _check_status(answer)
            if "text/html" in answer.headers.get("content-type", ""):
                raise DownloadFailed(f"{url}: gives a web page, not weights", "open it in a browser, to see why")
            resumes, etag = answer.status_code == httpx.codes.PARTIAL_CONTENT, answer.headers.get("etag", "")
            if resumes and not answer.headers.get("content-range", "").startswith(f"bytes {start}-"):
                raise _TryAgain("the server resumes at another place")
            if resumes and self.etag not in ("", etag):
                raise _TryAgain("the server resumes another file")
            self.etag = etag if self.sha256 is None and etag.startswith('"') else ""  # a weak one is of several files
            start = start if resumes else 0
            length = answer.headers.get("content-length")
            total = start + int(length) if length and length.isdigit() else self.size
            if None not in (self.size, total) and total != self.size:
                raise DownloadFailed(
                    f"{url}: gives {total} bytes, expected {self.size}",
                    "look for the file's new address",
                )
            self._receive(url, answer, start, total)

    def _receive(self, url: str, answer: httpx.Response, done: int, total: int | None) -> None:
        began, first = time.monotonic(), done
        try:
            with self.part.open("ab" if done else "wb") as file:
                for chunk in answer.iter_raw():
                    file.write(chunk)
                    done += len(chunk)
                    if self.size is not None and done > self.size:
                        break
                    if self.on_bytes is not None:
                        self.on_bytes(done, total)
                    elapsed = time.monotonic() - began
                    if elapsed > self.patience.timeout:
                        if (done - first) / elapsed < self.patience.slowest:
                            raise _TryAgain("the connection is all but standing still")
                        began, first = time.monotonic(), done
        except httpx.HTTPError as error:
            raise _TryAgain(f"the connection broke ({type(error).__name__})") from error
        if self.size is not None and done > self.size:
            self.part.unlink()
            raise DownloadFailed(f"{url}: gives more than {self.size} bytes", "look for the file's new address")
        if total is not None and done < total:
            raise _TryAgain(f"the connection ended after {done} of {total} bytes")

    def _finish(self, url: str) -> None:
        """Give the part its name, if it is what it should be."""
        with self.part.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if self.sha256 is not None and actual != self.sha256:
            raise ChecksumMismatch(
                f"{url}: gives a file of sha256 {actual}, expected {self.sha256}; it was removed",
                "the file was replaced, or someone interferes: do not use it",
            )
        self.part.replace(self.target)

    def _here(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0


@contextlib.contextmanager
def _answer(url: str, start: int, etag: str, timeout: float) -> Iterator[httpx.Response]:
    """Yield the answer to a request for ``url`` from byte ``start`` of ``etag`` on, behind all redirections."""
    headers = {"User-Agent": f"upscale/{__version__}", "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={start}-"} if start else {}
    headers |= {"If-Range": etag} if start and etag else {}
    here = url
    try:
        whole = httpx.Client(timeout=timeout, headers=headers)  # proxies and certificates: as the environment says
    except (ImportError, ValueError, OSError, httpx.InvalidURL) as error:
        raise DownloadFailed(
            f"{url}: the proxy or the certificates that the environment names cannot be used: {error}",
            "look at HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE",
        ) from error
    with whole as client:
        for _ in range(REDIRECTS):
            try:
                check_address(here, url)
                answer = client.send(client.build_request("GET", here), stream=True)
            except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
                raise DownloadFailed(
                    f"{here}: is no address, or leads to none: {error}", "look where it comes from"
                ) from error
            except httpx.HTTPError as error:
                raise _TryAgain(f"no connection ({str(error) or type(error).__name__})") from error
            try:
                if answer.next_request is None:
                    yield answer
                    return
                here = str(answer.next_request.url)
            finally:
                answer.close()
    raise DownloadFailed(f"{url}: redirects without end", "open it in a browser, and use where it leads")


def check_address(url: str, origin: str) -> None:
    """Refuse ``url``, to which ``origin`` led, unless it is https, or this machine asked for this machine.

    Raises:
        DownloadFailed: anyone on the way could change what it gives.
        httpx.InvalidURL, UnicodeError: not an address.
    """
    parts = httpx.URL(url)  # as the client reads it
    local = parts.host in LOCAL and httpx.URL(origin).host in LOCAL
    if parts.scheme == "https" or (parts.scheme == "http" and local):
        return
    via = "" if url == origin else f"{origin} leads to "
    raise DownloadFailed(f"{via}{url}: not https, so anyone on the way could change it", "use an https:// address")


def _check_status(answer: httpx.Response) -> None:
    status = answer.status_code
    if answer.is_success:
        return
    told = f"the server answers {status} {answer.reason_phrase}"
    if status in (408, 425, 429) or status >= 500:
        wait = answer.headers.get("retry-after", "")
        raise _TryAgain(told, float(wait) if wait.isdigit() else 0.0)
    raise DownloadFailed(f"{answer.url}: {told}", "the file is gone or needs a login: look for its new address")
