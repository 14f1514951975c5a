"""Provide mirrors to download from: a web server on the loopback address, with faults."""

import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from seqbench.datasets import catalog, download

# More than one read of the client, and no period that a wrong offset could hide behind.
CONTENT = b"".join(hashlib.sha256(i.to_bytes(4, "big")).digest() for i in range(8192))


class Mirror(ThreadingHTTPServer):
    """Serves `files`; the first part of the path says how, and every request is kept.

    Ways: `good` honours Range; `plain` does not; `cut` breaks off half-way through what it was
    asked for; `stuck` breaks off before the first byte; `denied` answers 403; `wrong` changes a
    byte; `short` has one byte less; `endless` announces no length and goes on and on; `unknown`
    announces none, and ends; `silent` never answers; `moved` redirects; `slow` takes a while.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = files
        self.requests: list[tuple[str, str | None]] = []
        self.closing = threading.Event()

    def url(self, way: str, name: str = "data.bin") -> str:
        return f"http://127.0.0.1:{self.server_port}/{way}/{name}"

    def offsets(self) -> list[int]:
        """Return the offset at which each request began to read."""
        return [int(wanted[6:-1]) if wanted else 0 for _, wanted in self.requests]

    def handle_error(self, request, client_address) -> None:
        """Ignore clients that hang up, which is part of the tests."""


class Answer(BaseHTTPRequestHandler):
    server: Mirror

    def log_message(self, format, *args) -> None:
        pass

    def do_GET(self) -> None:
        _, way, name = self.path.split("/")
        wanted = self.headers["Range"]
        self.server.requests.append((way, wanted))
        content = self.server.files[name]
        if way == "silent":
            self.server.closing.wait(20)
            return
        if way == "denied":
            self.send_error(403)
            return
        if way == "moved":
            self.send_response(302)
            self.send_header("Location", self.server.url("good", name))
            self.end_headers()
            return
        if way == "slow":
            self.server.closing.wait(1)
        if way == "wrong":
            content = content[:-1] + bytes([content[-1] ^ 1])
        if way == "short":
            content = content[:-1]
        start = 0
        if wanted and way != "plain":
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        if way == "endless":
            self.end_headers()
            while not self.server.closing.is_set():
                self.wfile.write(body)
        if way != "unknown":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if way == "cut":
            body = body[: len(body) // 2]
        if way == "stuck":
            body = b""
        self.wfile.write(body)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """Remove environment variables that change the data folder or the network."""
    monkeypatch.delenv("SEQBENCH_DATA", raising=False)
    monkeypatch.delenv("SEQBENCH_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def content() -> bytes:
    """Return the content of `data.bin` at a mirror."""
    return CONTENT


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with Mirror({"data.bin": CONTENT}) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def register(monkeypatch):
    """Return a function that adds a dataset of one file, `tiny/NAME`, to the catalogue."""

    def add(name, content, urls, archive=None) -> catalog.File:
        digest = hashlib.sha256(content).hexdigest()
        file = catalog.File(name, len(content), digest, tuple(urls), archive)
        tiny = catalog.Dataset("tiny", "a test", "none", (file,))
        monkeypatch.setitem(catalog.DATASETS, "tiny", tiny)
        return file

    return add


@pytest.fixture
def tiny(mirror, register, monkeypatch):
    """Return a function that registers `data.bin` at mirrors with the given faults, in order."""
    monkeypatch.setattr(download, "TIMEOUT", 5.0)

    def at(*ways) -> catalog.File:
        return register("data.bin", CONTENT, [mirror.url(way) for way in ways])

    return at
