"""A small S3 server that does one thing wrong, and writes down what it was asked.

It knows just enough for ``pyarrow``: PUT, GET, HEAD, DELETE and version 2 of LIST, without looking
at signatures. The faults are those of real servers and networks; without one it is a good server.
"""

from __future__ import annotations

import itertools
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

FAULTS = {
    "chunks": "stores the framing of a chunked upload as data",
    "hides": "never lists what was put",
    "sizes": "lists wrong lengths",
    "stale": "goes on reading what was there first",
    "keeps": "answers deletions and does nothing",
    "loses": "answers puts and does nothing",
    "marker": "refuses the empty folder that pyarrow puts after a deletion",
    "denies": "denies every access",
    "no bucket": "has no bucket of any name",
}


class FaultyS3(ThreadingHTTPServer):
    """The server; it runs while :meth:`serving` does.

    Attributes:
        faults: What it does wrong now, keys of :data:`FAULTS`.
        objects: What it holds, by key.
        requests: Method and path of every request so far.
        failures: What becomes of the next requests, by method: a status to answer without doing
            anything, or "lost reply" to do it and then cut the connection, or "lost request".
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults: set[str] = set()
        self.objects: dict[str, bytes] = {}
        self.first: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.failures: dict[str, Iterator[int | str | None]] = {}

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def fail(self, method: str, *how: int | str | None) -> None:
        """Let the next requests of a method fail, one after the other."""
        self.failures[method] = itertools.chain(how, itertools.repeat(None))

    @contextmanager
    def serving(self) -> Iterator[FaultyS3]:
        """Serve until the block ends."""
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyS3

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_PUT(self) -> None:
        self._serve(self._put)

    def do_GET(self) -> None:
        self._serve(self._get)

    def do_HEAD(self) -> None:
        self._serve(self._get)

    def do_DELETE(self) -> None:
        self._serve(self._delete)

    def _serve(self, answer: Callable[[str, bytes], None]) -> None:
        body = self._read_body()
        parts = urlsplit(self.path)
        key = unquote(parts.path).lstrip("/").partition("/")[2]
        self.server.requests.append((self.command, self.path))
        failure = next(self.server.failures.get(self.command, iter(())), None)
        if failure == "lost request":
            self._cut()
        elif isinstance(failure, int):
            self._reply(failure, _error("SlowDown" if failure == 503 else "InternalError"))
        elif "denies" in self.server.faults:
            self._reply(403, _error("AccessDenied"))
        elif "no bucket" in self.server.faults:
            self._reply(404, _error("NoSuchBucket"))
        elif failure == "lost reply":
            self._reply = lambda *_, **__: self._cut()  # type: ignore[method-assign]
            answer(key, body)
        else:
            answer(key, body)

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(self._read_chunks())
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        framed = "aws-chunked" in (self.headers.get("Content-Encoding") or "")
        return body if "chunks" in self.server.faults or not framed else _unframe(body)

    def _read_chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _put(self, key: str, body: bytes) -> None:
        faults = self.server.faults
        if "marker" in faults and key.endswith("/"):
            self._reply(400, _error("InvalidRequest"))
            return
        if "loses" not in faults:
            self.server.objects[key] = body
            self.server.first.setdefault(key, body)
        self._reply(200, b"", headers={"ETag": '"0"'})

    def _get(self, key: str, _: bytes) -> None:
        if not key:
            self._list()
            return
        source = self.server.first if "stale" in self.server.faults else self.server.objects
        content = source.get(key)
        if content is None:
            self._reply(404, _error("NoSuchKey"))
            return
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if span is None:
            self._reply(200, content)
        else:
            start, end = int(span[1]), int(span[2] or len(content) - 1)
            total = {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
            self._reply(206, content[start : end + 1], headers=total)

    def _list(self) -> None:
        prefix = parse_qs(urlsplit(self.path).query).get("prefix", [""])[0]
        found = sorted(key for key in self.server.objects if key.startswith(prefix))
        if "hides" in self.server.faults:
            found = []
        more = 1 if "sizes" in self.server.faults else 0
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><ETag>0</ETag>"
            f"<LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<Size>{len(self.server.objects[key]) + more}</Size></Contents>"
            for key in found
        )
        text = (
            '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>bucket</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(found)}</KeyCount>"
            f"<IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        )
        self._reply(200, text.encode())

    def _delete(self, key: str, _: bytes) -> None:
        if "keeps" not in self.server.faults:
            self.server.objects.pop(key, None)
        self._reply(204, b"")

    def _reply(self, status: int, body: bytes, *, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _unframe(body: bytes) -> bytes:
    """Take an upload out of its chunks."""
    content = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        if not length:
            break
        content, body = content + rest[:length], rest[length + 2 :]
    return content


def _error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{code}, says the server</Message></Error>".encode()
