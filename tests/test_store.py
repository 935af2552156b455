"""The store, against a server that does everything wrong that servers do."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from upscale import store
from upscale.catalog import WeightsEntry, known, own, user_file, write_user
from upscale.cli.models import prepare
from upscale.download import Patience, check_address, download
from upscale.errors import ChecksumMismatch, DiskFull, DownloadFailed, UnknownWeights, WeightsError
from upscale.files import part_prefix

DATA = b"\x80\2" + bytes(range(256)) * 1999 + bytes(254)  # half a megabyte
SHA256 = hashlib.sha256(DATA).hexdigest()
QUICK = Patience(attempts=5, pause=0.01, timeout=1.0)


@dataclass
class Server:
    """A server whose answers are a list of functions, used in turn; the last one stays."""

    url: str
    answers: list[Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=list)
    requests: list[str | None] = field(default_factory=list)
    """The Range header of each request."""


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append(self.headers.get("Range"))
            answer = state.answers.pop(0) if len(state.answers) > 1 else state.answers[0]
            answer(self)

        def log_message(self, *args: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *args: object) -> None:
            pass  # clients hang up on us on purpose

    http = Quiet(("127.0.0.1", 0), Handler)
    state = Server(f"http://127.0.0.1:{http.server_port}/net.pth")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the store that is empty."""
    monkeypatch.setenv("UPSCALE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("UPSCALE_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    known.cache_clear()
    return tmp_path / "home"


def whole(handler: BaseHTTPRequestHandler) -> None:
    """As a good server: ranges and all."""
    start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
    handler.send_header("Content-Length", str(len(DATA) - start))
    handler.end_headers()
    handler.wfile.write(DATA[start:])


def without_ranges(handler: BaseHTTPRequestHandler, data: bytes = DATA, length: int | None = None) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data) if length is None else length))
    handler.end_headers()
    handler.wfile.write(data)


def half(handler: BaseHTTPRequestHandler) -> None:
    """Reset after half of the file."""
    without_ranges(handler, DATA[: len(DATA) // 2], len(DATA))
    handler.connection.close()


def status(code: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def wrong_bytes(handler: BaseHTTPRequestHandler) -> None:
    without_ranges(handler, bytes(len(DATA)))


def login_page(handler: BaseHTTPRequestHandler) -> None:
    page = b"<html>Log in</html>"
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html; charset=utf-8")
    handler.send_header("Content-Length", str(len(page)))
    handler.end_headers()
    handler.wfile.write(page)


def trickle(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(DATA)))
    handler.end_headers()
    for i in range(40):
        handler.wfile.write(DATA[i : i + 1])
        time.sleep(0.1)


def silence(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1.5)


def endless(handler: BaseHTTPRequestHandler) -> None:
    """More than was announced nowhere."""
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(DATA * 2)


RECOVERS: dict[str, list[Callable[[BaseHTTPRequestHandler], None]]] = {
    "good": [whole],
    "resets-half-way": [half, whole],
    "resets-twice": [half, half, whole],
    "ignores-range": [half, without_ranges],
    "429": [status(429, Retry_After="0"), whole],
    "503": [status(503), status(503), whole],
    "408": [status(408), whole],
    "trickles": [trickle, whole],
    "silent": [silence, whole],
    "416": [half, status(416), whole],
}


@pytest.mark.parametrize("kind", RECOVERS)
def test_file_arrives_although_the_server(kind: str, server: Server, tmp_path: Path) -> None:
    server.answers = list(RECOVERS[kind])
    target = tmp_path / "net.pth"
    seen: list[int] = []
    download(
        [server.url],
        target,
        sha256=SHA256,
        size=len(DATA),
        patience=QUICK,
        on_bytes=lambda done, total: seen.append(done),
    )
    assert target.read_bytes() == DATA
    assert seen[-1] == len(DATA)
    assert not list(tmp_path.glob("*.part"))
    if kind == "resets-half-way":
        assert server.requests[1] == f"bytes={len(DATA) // 2}-"


FAILS: dict[str, tuple[Callable[[BaseHTTPRequestHandler], None], type[Exception], str]] = {
    "404": (status(404), DownloadFailed, "answers 404"),
    "403": (status(403), DownloadFailed, "answers 403"),
    "always-503": (status(503), DownloadFailed, "answers 503"),
    "300-to-nowhere": (status(300), DownloadFailed, "answers 300"),
    "wrong-length": (lambda h: without_ranges(h, DATA[:-5]), DownloadFailed, "gives 511995 bytes, expected 512000"),
    "too-much": (endless, DownloadFailed, "gives more than 512000 bytes"),
    "wrong-bytes": (wrong_bytes, ChecksumMismatch, "gives a file of sha256"),
    "login-page": (login_page, DownloadFailed, "a web page, not weights"),
    "to-http": (status(302, Location="http://example.com/net.pth"), DownloadFailed, "leads to http://example.com"),
    "to-a-file": (status(302, Location="file:///etc/passwd"), DownloadFailed, "not https"),
    "to-no-host": (status(302, Location="https://xn--a.com/x"), DownloadFailed, "net.pth: is no address, or leads to"),
    "to-no-port": (status(302, Location="https://a.example:abc/x"), DownloadFailed, "Invalid URL in location header"),
    "in-circles": (status(302, Location="/net.pth"), DownloadFailed, "redirects without end"),
    "always-resets": (lambda h: h.connection.close(), DownloadFailed, "no connection|broke"),
}


@pytest.mark.parametrize("kind", FAILS)
def test_no_bad_file_under_the_final_name_when_the_server(kind: str, server: Server, tmp_path: Path) -> None:
    answer, error, message = FAILS[kind]
    server.answers = [answer]
    target = tmp_path / "net.pth"
    with pytest.raises(error, match=message) as caught:
        download([server.url], target, sha256=SHA256, size=len(DATA), patience=QUICK)
    assert getattr(caught.value, "hint", None)
    assert not target.exists()


def test_redirect_to_another_host_is_followed(server: Server, tmp_path: Path) -> None:
    server.answers = [status(302, Location=server.url.replace("127.0.0.1", "localhost")), whole]
    download([server.url], tmp_path / "net.pth", sha256=SHA256, size=None, patience=QUICK)
    assert (tmp_path / "net.pth").read_bytes() == DATA


def test_only_https_unless_it_is_this_machine() -> None:
    check_address("https://a.example/x", "https://a.example/x")
    check_address("http://localhost:1/x", "http://localhost:1/x")
    for url, origin in (
        ("http://a.example/x", "http://a.example/x"),
        ("http://localhost/x", "https://a.example/x"),
        ("http://localhost.a.example/x", "http://localhost.a.example/x"),
        ("ftp://a.example/x", "https://a.example/x"),
    ):
        with pytest.raises(DownloadFailed, match="not https"):
            check_address(url, origin)


@pytest.mark.parametrize(
    "url",
    [
        "https://[::1/x.pth",
        "https://a.example:abc/x.pth",
        "https://xn--a.com/x.pth",
        "https://a..b/x.pth",
        "https:///x",
    ],
)
def test_an_address_that_is_none_is_told_and_the_next_one_tried(url: str, server: Server, tmp_path: Path) -> None:
    server.answers = [whole]
    with pytest.raises(DownloadFailed, match="is no address"):
        download([url], tmp_path / "net.pth", sha256=SHA256, size=None)
    download([url, server.url], tmp_path / "net.pth", sha256=SHA256, size=None)
    assert (tmp_path / "net.pth").read_bytes() == DATA
    write_user({"odd": {"summary": "s", "license": "MIT", "url": [url]}})
    assert store.state(known().entries["odd"]) == "to fetch"


@pytest.mark.parametrize(
    ("name", "value"), [("ALL_PROXY", "socks://127.0.0.1:1"), ("ALL_PROXY", "ü://"), ("SSL_CERT_FILE", "/nothing.pem")]
)
def test_settings_of_the_environment_that_cannot_be_used_are_named(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv(name, value)
    with pytest.raises(DownloadFailed, match="the environment names cannot be used"):
        download([server.url], tmp_path / "net.pth", sha256=None, size=None, patience=QUICK)


def test_a_proxy_of_socks_is_used(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(DownloadFailed, match="no connection"):
        download([server.url], tmp_path / "net.pth", sha256=None, size=None, patience=QUICK)


def test_mirrors_are_tried_in_order(server: Server, tmp_path: Path) -> None:
    server.answers = [status(404), whole]
    urls = [server.url, server.url + "?mirror"]
    download(urls, tmp_path / "net.pth", sha256=SHA256, size=len(DATA), patience=QUICK)
    assert (tmp_path / "net.pth").read_bytes() == DATA
    server.answers = [status(404)]
    with pytest.raises(DownloadFailed, match="none of 2 addresses"):
        download(urls, tmp_path / "other.pth", sha256=SHA256, size=len(DATA), patience=QUICK)


def test_what_an_earlier_run_left_is_completed_or_thrown_away(server: Server, tmp_path: Path) -> None:
    server.answers = [whole]
    part = tmp_path / ".net.pth.part"
    part.write_bytes(DATA[:1000])
    download([server.url], tmp_path / "net.pth", sha256=SHA256, size=len(DATA), patience=QUICK)
    assert server.requests == ["bytes=1000-"]
    (tmp_path / "net.pth").unlink()
    part.write_bytes(b"something else")
    download([server.url], tmp_path / "net.pth", sha256=SHA256, size=len(DATA), patience=QUICK)
    assert (tmp_path / "net.pth").read_bytes() == DATA


def version(handler: BaseHTTPRequestHandler, data: bytes, etag: str, length: int = len(DATA)) -> None:
    """As a good server whose file is replaced now and then: ``length`` of its bytes, then a reset."""
    start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
    if handler.headers.get("If-Range", etag) != etag:
        start = 0
    handler.send_response(206 if start else 200)
    handler.send_header("ETag", etag)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    handler.send_header("Content-Length", str(len(data) - start))
    handler.end_headers()
    handler.wfile.write(data[start:length])
    handler.close_connection = True


@pytest.mark.parametrize("etag", ["", 'W/"1"', '"1"'])
def test_without_sha256_only_the_same_file_is_completed(etag: str, server: Server, tmp_path: Path) -> None:
    fetch = partial(download, sha256=None, size=None, patience=QUICK)
    (tmp_path / ".a.pth.part").write_bytes(b"of an earlier run")
    server.answers = [partial(version, data=DATA, etag=etag, length=1000), partial(version, data=DATA, etag=etag)]
    fetch([server.url], tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == DATA
    assert server.requests == [None, "bytes=1000-" if etag == '"1"' else None]
    first, other = partial(version, data=DATA, etag=etag, length=1000), DATA[::-1]
    server.answers = [first, partial(version, data=other, etag=etag.replace("1", "2"))]
    fetch([server.url], tmp_path / "b.pth")
    assert (tmp_path / "b.pth").read_bytes() == other
    server.answers = [first, status(404), partial(version, data=other, etag=etag)]
    fetch([server.url, server.url + "?mirror"], tmp_path / "c.pth")
    assert (tmp_path / "c.pth").read_bytes() == other


def test_a_server_that_resumes_another_file_is_not_believed(server: Server, tmp_path: Path) -> None:
    def careless(handler: BaseHTTPRequestHandler) -> None:
        del handler.headers["If-Range"]
        version(handler, DATA[::-1], '"2"')

    server.answers = [partial(version, data=DATA, etag='"1"', length=1000), careless]
    with pytest.raises(DownloadFailed, match="resumes another file"):
        download([server.url], tmp_path / "net.pth", sha256=None, size=None, patience=QUICK)
    assert not (tmp_path / "net.pth").exists()


def test_a_connection_that_always_breaks_is_given_up_wherever_it_breaks(server: Server, tmp_path: Path) -> None:
    lengths = [1000, 100] * 10
    server.answers = [partial(version, data=DATA, etag="", length=length) for length in lengths]
    with pytest.raises(DownloadFailed, match="broke") as caught:
        download([server.url], tmp_path / "net.pth", sha256=None, size=None, patience=QUICK)
    assert len(server.requests) == QUICK.attempts
    assert caught.value.hint == "try again later"


def test_two_processes_make_one_download(server: Server, tmp_path: Path) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(1)
        whole(handler)

    server.answers = [slow]
    code = (
        "import sys; from pathlib import Path; from upscale.download import download;"
        "download([sys.argv[1]], Path(sys.argv[2]), sha256=sys.argv[3], size=None)"
    )
    command = [sys.executable, "-c", code, server.url, str(tmp_path / "net.pth"), SHA256]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert len(server.requests) == 1
    assert (tmp_path / "net.pth").read_bytes() == DATA


def test_no_room_is_found_before_the_download(tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="MiB free"):
        download(["https://a.example/x"], tmp_path / "x.pth", sha256=None, size=1 << 60)


def test_room_is_needed_only_for_what_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=20))
    (tmp_path / ".x.pth.part").write_bytes(bytes(90))
    patience = Patience(attempts=1)
    for sha256, said in (("0" * 64, "not https"), (None, "MiB free")):
        with pytest.raises(DownloadFailed, match=said):
            download(["ftp://a.example/x"], tmp_path / "x.pth", sha256=sha256, size=100, patience=patience)


def entry(server: Server) -> WeightsEntry:
    facts = {"summary": "", "network": None, "license": "MIT", "sha256": SHA256, "bytes": len(DATA)}
    return WeightsEntry(name="net", url=(server.url,), **facts)  # type: ignore[arg-type]


def test_entry_is_fetched_once_and_verified_each_time(server: Server, home: Path) -> None:
    server.answers = [whole]
    net = entry(server)
    assert store.state(net) == "to fetch"
    path = store.locate(net)
    assert path is not None
    assert path.parent == home / "weights"
    assert store.locate(net) == path
    assert store.state(net) == "here"
    assert len(server.requests) == 1
    path.write_bytes(b"damaged")
    with pytest.raises(ChecksumMismatch, match="net should have"):
        store.locate(net)
    assert store.remove(net) == 7
    assert store.remove(net) == 0


def test_offline_fetches_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers = [whole]
    with pytest.raises(DownloadFailed, match="--offline"):
        store.locate(entry(server), offline=True)
    monkeypatch.setenv("UPSCALE_OFFLINE", "1")
    with pytest.raises(DownloadFailed, match="net: not on this machine, and UPSCALE_OFFLINE"):
        store.locate(entry(server))
    (unpinned,) = known().find(server.url)
    with pytest.raises(DownloadFailed, match="not on this machine") as caught:
        store.locate(unpinned)
    assert f"`upscale models fetch {server.url}`" in (caught.value.hint or "")
    assert server.requests == []


def test_url_is_pinned_on_first_use(server: Server, tmp_path: Path) -> None:
    server.answers = [whole]
    (found,) = known().find(server.url)
    path = store.locate(found)
    assert path is not None
    assert path.read_bytes() == DATA
    (pinned,) = known().find(server.url)
    assert pinned.sha256 == SHA256
    assert pinned.bytes == len(DATA)
    assert known().find("net") == [pinned]
    assert SHA256 in user_file().read_text()
    assert store.locate(pinned) == path
    assert store.locate(found) == path  # asked of the catalogue before it was pinned
    assert store.bundle([found, pinned], tmp_path / "b.zip") == 1
    assert len(server.requests) == 1
    assert list(own().entries) == ["net"]
    path.unlink()
    server.answers = [wrong_bytes]
    with pytest.raises(ChecksumMismatch):
        store.locate(pinned)


def test_several_processes_pin_one_download(server: Server) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(1)
        whole(handler)

    server.answers = [slow]
    code = (
        "import sys; from upscale import store; from upscale.catalog import known;"
        "print(store.locate(known().find(sys.argv[1])[0]))"
    )
    command = [sys.executable, "-c", code, server.url]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    told = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    known.cache_clear()
    (pinned,) = own().entries.values()
    assert told == {str(store.place(pinned))}
    assert len(server.requests) == 1


def test_what_a_process_fetched_but_did_not_pin_is_pinned(server: Server) -> None:
    (found,) = known().find(server.url)
    path = store.place(found)
    assert path is not None
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    pinned = store.locate(found, offline=True)
    assert pinned == store.place(own().entries["net"])
    assert own().entries["net"].sha256 == SHA256


def test_a_url_takes_no_name_of_a_family(server: Server) -> None:
    server.answers = [whole]
    before = known().find("compact")
    (found,) = known().find(server.url.replace("net.pth", "compact.safetensors"))
    store.locate(found)
    assert list(own().entries) == [f"compact-{SHA256[:8]}"]
    assert known().find("compact") == before


@pytest.mark.parametrize("letter", ["n", "网"])
def test_a_name_that_is_too_long_for_a_file_is_shortened(server: Server, letter: str) -> None:
    server.answers = [whole]
    (found,) = known().find(server.url.replace("net", letter * 280))
    path = store.locate(found)
    assert path is not None
    assert path.read_bytes() == DATA
    assert own().entries.keys() == {letter * 280}


@pytest.mark.parametrize("content", [b"", b"sorry", b"<p>sorry</p>", b"version https://git-lfs"])
def test_what_is_no_weights_at_all_is_not_pinned(server: Server, content: bytes, home: Path) -> None:
    server.answers = [partial(without_ranges, data=content), whole]
    (found,) = known().find(server.url)
    with pytest.raises(DownloadFailed, match="not one of weights"):
        store.locate(found)
    assert not own().entries
    path = store.locate(found)
    assert path is not None
    assert list((home / "weights").glob("*.pth")) == [path]


@pytest.mark.parametrize("name", ["compact", "compact-x4"])
def test_a_bundle_brings_no_other_network_of_a_name_that_is_here(tmp_path: Path, home: Path, name: str) -> None:
    table = f'[{name}]\nsummary = "evil"\nlicense = "MIT"\nfile = "a.pth"\nsha256 = "{SHA256}"\n'
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as file:
        file.writestr("weights.toml", table)
        file.writestr(f"{name}-{SHA256[:8]}.pth", DATA)
    with pytest.raises(WeightsError, match=f"another network is called {name} here"):
        store.unbundle(tmp_path / "b.zip", known().entries.values())
    assert not own().entries
    assert not list(home.rglob("*.pth"))


def test_a_bundle_brings_nothing_into_a_family_that_is_here(tmp_path: Path) -> None:
    before = known().find("compact")
    table = '[{0}]\nsummary = "s"\nlicense = "MIT"\nfile = "a.pth"\nsha256 = "{1}"\nfamily = "{2}"\n'
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as file:
        file.writestr("weights.toml", table.format("a", SHA256, "compact") + table.format("b", SHA256, "new"))
        file.writestr(f"a-{SHA256[:8]}.pth", DATA)
        file.writestr(f"b-{SHA256[:8]}.pth", DATA)
    assert store.unbundle(tmp_path / "b.zip", known().entries.values()) == ["a", "b"]
    assert known().find("compact") == before
    assert own().entries["a"].family is None
    assert own().entries["b"].family == "new"


def test_bundle_carries_weights_to_a_machine_without_network(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers = [whole]
    net = entry(server)
    path = store.locate(net)
    assert path is not None
    os.utime(path, (0, 0))  # before zip's first day
    assert store.bundle([net], tmp_path / "b.zip") == 1
    monkeypatch.setenv("UPSCALE_HOME", str(tmp_path / "elsewhere"))
    assert store.unbundle(tmp_path / "b.zip", [net, replace(net, name="other")]) == ["net"]
    path = store.locate(net, offline=True)
    assert path is not None
    assert path.read_bytes() == DATA


def test_tampered_bundle_is_refused(server: Server, tmp_path: Path) -> None:
    net = entry(server)
    place = store.place(net)
    assert place is not None
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr(place.name, bytes(len(DATA)))
    with pytest.raises(ChecksumMismatch):
        store.unbundle(tmp_path / "b.zip", [net])
    assert not place.exists()


@pytest.mark.parametrize("fault", ["nothing", "damaged", "encrypted", "of another compression", "misnamed"])
def test_what_cannot_be_unpacked_is_told(fault: str, server: Server, tmp_path: Path) -> None:
    net, archive = entry(server), tmp_path / "b.zip"
    place = store.place(net)
    assert place is not None
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(place.name, DATA)
    content = bytearray(archive.read_bytes())
    central = content.rindex(b"PK\1\2")
    if fault == "nothing":
        content[:] = b"nothing"
    elif fault == "damaged":
        content[100:200] = bytes(range(100))
    elif fault == "encrypted":
        content[6] = content[central + 8] = 1
    elif fault == "of another compression":
        content[8] = content[central + 10] = 9
    elif fault == "misnamed":
        content[central + 9], content[central + 46] = 8, 0xFF
    archive.write_bytes(content)
    with pytest.raises(WeightsError, match=r"b\.zip: not a bundle \(.") as caught:
        store.unbundle(archive, [net])
    assert caught.value.hint
    assert not place.exists()


def fill(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Let what is written to replace ``path`` find no room: a real ENOSPC."""
    monkeypatch.setattr(secrets, "token_hex", lambda count: "full")
    path.with_name(f"{part_prefix(path)}full.part{path.suffix}").symlink_to("/dev/full")


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full")
def test_a_full_disk_is_told_as_one_and_leaves_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers = [whole]
    net = entry(server)
    path = store.locate(net)
    assert path is not None
    store.bundle([net], tmp_path / "b.zip")
    fill(monkeypatch, tmp_path / "c.zip")
    with pytest.raises(DiskFull, match=r"c\.zip: no room left on the disk"):
        store.bundle([net], tmp_path / "c.zip")
    assert not list(tmp_path.glob("*c*"))
    path.unlink()
    fill(monkeypatch, path)
    with pytest.raises(DiskFull, match=r"\.pth: no room left on the disk"):
        store.unbundle(tmp_path / "b.zip", [net])
    assert not path.exists()
    assert not list(path.parent.glob("*.part*"))


def answer_json(content: object) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda handler: without_ranges(handler, json.dumps(content).encode())


def record(server: Server, **resource: object) -> dict[str, object]:
    """A network as the index of OpenModelDB has it, its file on a page and on ``server``."""
    urls = ["http://files.example/page/abc", server.url]
    file = {"platform": "pytorch", "type": "pth", "size": len(DATA), "sha256": SHA256, "urls": urls, **resource}
    others = [{"platform": "onnx", "type": "onnx", "urls": ["https://a.example/x.onnx"]}]
    return {"name": "Foo", "license": "CC-BY-NC-4.0", "scale": 4, "resources": [*others, file]}


@pytest.mark.parametrize("told", [True, False])
def test_network_of_openmodeldb_is_fetched_once_and_pinned(
    told: bool, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(store, "INDEX", server.url.replace("net.pth", "models.json"))
    found = record(server) if told else record(server, sha256=None, size=None)
    server.answers = [answer_json({"4x-Foo": found}), whole]
    prepare("openmodeldb:4x-Foo")
    said = " ".join(capsys.readouterr().err.split())
    assert "licensed as CC-BY-NC-4.0" in said
    assert f"{server.url}: sha256 {SHA256}; from now on" in said
    (entry,) = known().find("openmodeldb:4x-Foo")
    assert (entry.scale, entry.sha256, entry.license) == (4, SHA256, "CC-BY-NC-4.0")
    path = store.locate(entry, offline=True)
    assert path is not None
    assert path.read_bytes() == DATA
    assert ":" not in path.name
    assert len(server.requests) == 2
    path.unlink()
    server.answers = [wrong_bytes]  # whatever the index now says, the file must be the same
    with pytest.raises(DownloadFailed, match="gives a file of sha256"):
        store.locate(entry)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("4x-Fo", {}, "no such network at openmodeldb.info"),
        ("4x-Foo", {"platform": "onnx"}, "has no file for PyTorch"),
    ],
)
def test_what_openmodeldb_does_not_have(
    name: str, change: dict[str, str], message: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "INDEX", server.url)
    server.answers = [answer_json({"4x-Foo": record(server, **change)})]
    with pytest.raises(UnknownWeights, match=message) as caught:
        prepare(f"openmodeldb:{name}")
    assert caught.value.hint
    assert not user_file().exists()
    with pytest.raises(DownloadFailed, match="--offline forbids"):
        prepare(f"openmodeldb:{name}", offline=True)
    server.answers = [login_page]
    with pytest.raises(DownloadFailed, match="web page"):
        prepare(f"openmodeldb:{name}")
    assert not any(store.folder().iterdir())


def test_index_that_breaks_off_leaves_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "INDEX", server.url)

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("upscale.download.time.sleep", interrupt)  # between two attempts
    server.answers = [half]
    with pytest.raises(KeyboardInterrupt):
        prepare("openmodeldb:4x-Foo")
    assert not any(store.folder().iterdir())
    for data in (b"not JSON", b"[1]", b'{"4x-Foo": 1}', b'{"4x-Foo": {"resources": 1}}'):
        server.answers = [partial(without_ranges, data=data)]
        with pytest.raises(DownloadFailed, match="not the index"):
            prepare("openmodeldb:4x-Foo")
        assert not any(store.folder().iterdir())


def test_what_comes_further_each_time_is_not_given_up(server: Server, tmp_path: Path) -> None:
    lengths = [1000 * count for count in range(1, 2 * QUICK.attempts)]
    server.answers = [partial(version, data=DATA, etag="", length=length) for length in lengths] + [whole]
    download([server.url], tmp_path / "net.pth", sha256=SHA256, size=len(DATA), patience=QUICK)
    assert (tmp_path / "net.pth").read_bytes() == DATA


def test_a_server_says_how_long_to_wait(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("upscale.download.time.sleep", pauses.append)
    server.answers = [status(429, Retry_After="7"), status(503, Retry_After="9999"), whole]
    download([server.url], tmp_path / "net.pth", sha256=SHA256, size=len(DATA), patience=Patience())
    assert pauses == [7.0, Patience().longest_pause]


def test_what_is_whole_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    server.answers = [status(404)]
    (tmp_path / ".net.pth.part").write_bytes(DATA)
    download([server.url], tmp_path / "net.pth", sha256=SHA256, size=len(DATA), patience=QUICK)
    assert (tmp_path / "net.pth").read_bytes() == DATA
    assert server.requests == []


def test_a_server_that_resumes_elsewhere_is_not_believed(server: Server, tmp_path: Path) -> None:
    def elsewhere(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(206)
        handler.send_header("ETag", '"1"')
        handler.send_header("Content-Range", f"bytes 10-{len(DATA) - 1}/{len(DATA)}")
        handler.send_header("Content-Length", str(len(DATA) - 10))
        handler.end_headers()
        handler.wfile.write(DATA[10:])

    server.answers = [
        partial(version, data=DATA, etag='"1"', length=1000),
        elsewhere,
        partial(version, data=DATA, etag='"1"'),
    ]
    download([server.url], tmp_path / "net.pth", sha256=None, size=None, patience=QUICK)
    assert (tmp_path / "net.pth").read_bytes() == DATA


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full")
def test_a_disk_that_gets_full_is_said(server: Server, tmp_path: Path) -> None:
    server.answers = [whole]
    (tmp_path / ".net.pth.part").symlink_to("/dev/full")
    with pytest.raises(DownloadFailed, match=r"\.net\.pth\.part: No space left on device") as caught:
        download([server.url], tmp_path / "net.pth", sha256=SHA256, size=len(DATA), patience=QUICK)
    assert "UPSCALE_HOME" in str(caught.value.hint)


def test_bytes_are_asked_for_as_they_are(server: Server, tmp_path: Path) -> None:
    def asked(handler: BaseHTTPRequestHandler) -> None:
        found.append(handler.headers["Accept-Encoding"])
        whole(handler)

    found: list[str] = []
    server.answers = [asked]
    download([server.url], tmp_path / "net.pth", sha256=SHA256, size=len(DATA), patience=QUICK)
    assert found == ["identity"]


def test_what_is_damaged_gets_into_no_bundle(server: Server, tmp_path: Path) -> None:
    server.answers = [whole]
    net = entry(server)
    path = store.locate(net)
    assert path is not None
    path.write_bytes(DATA[:-1] + b"!")
    with pytest.raises(ChecksumMismatch, match="net should have"):
        store.bundle([net], tmp_path / "b.zip")
    assert not (tmp_path / "b.zip").exists()
