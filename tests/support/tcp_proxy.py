"""A proxy in front of a storage server, for storages that are slow or away for a while."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

ADDRESS = "127.0.0.1"
PIECE_BYTES = 65_536


class TcpProxy:
    """Passes bytes on between clients and a server of this machine; runs while it serves.

    Attributes:
        delay_s: How long each request waits before it reaches the server.
        requests: How many went through, roughly: bytes of a client that follow the server's.
    """

    def __init__(self, target_port: int) -> None:
        self.delay_s = 0.0
        self.requests = 0
        self._target_port = target_port
        self._away = False
        self._connections: set[socket.socket] = set()
        self._listener = socket.create_server((ADDRESS, 0))

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    @contextmanager
    def serving(self) -> Iterator[TcpProxy]:
        """Serve until the block ends."""
        thread = threading.Thread(target=self._accept)
        thread.start()
        try:
            yield self
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            self._listener.close()
            self._cut()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Cut every connection, and each new one, until the block ends."""
        self._away = True
        self._cut()
        try:
            yield
        finally:
            self._away = False

    def _cut(self) -> None:
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            if self._away:
                return
            with socket.create_connection((ADDRESS, self._target_port)) as server:
                self._connections |= {client, server}
                answered = threading.Event()
                answered.set()
                back = threading.Thread(target=_pass_on, args=[server, client, answered])
                back.start()
                self._pass_requests(client, server, answered)
                back.join()
                self._connections -= {client, server}

    def _pass_requests(
        self, client: socket.socket, server: socket.socket, answered: threading.Event
    ) -> None:
        with suppress(OSError):
            while piece := client.recv(PIECE_BYTES):
                if answered.is_set():
                    answered.clear()
                    self.requests += 1
                    time.sleep(self.delay_s)
                server.sendall(piece)
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


def _pass_on(source: socket.socket, sink: socket.socket, answered: threading.Event) -> None:
    with suppress(OSError):
        while piece := source.recv(PIECE_BYTES):
            answered.set()
            sink.sendall(piece)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
