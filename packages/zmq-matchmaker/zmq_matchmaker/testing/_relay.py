# SPDX-License-Identifier: Apache-2.0
"""A TCP relay in front of a server, which a test can have cut, hold or slow down connections."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

__all__ = ["Relay"]

_RESET: Final = struct.pack("ii", 1, 0)


class Relay:
    """Passes connections to `port` of 127.0.0.1 on, until told otherwise; ended with the block."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._held = False
        self._delay = 0.0
        self._answer_bytes: int | None = None
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._servers: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._wake, self._woken = socket.socketpair()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def cut(self) -> None:
        """Reset all connections."""
        with self._lock:
            for one in list(self._pairs):
                self._close(one)

    def cut_in_answer(self, length: int) -> None:
        """Reset a connection when `length` more bytes have gone from the server to a client."""
        self._answer_bytes = length

    def hold(self) -> None:
        """Pass nothing on; connections are still taken."""
        self._held = True
        self._wake.send(b".")

    def release(self) -> None:
        """Pass on what came meanwhile, and what comes."""
        self._held = False
        self._wake.send(b".")

    def delay(self, seconds: float) -> None:
        """Pass everything on so much later."""
        self._delay = seconds

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing = True
        self._wake.send(b".")
        self._thread.join()
        self.cut()
        for one in (self._listener, self._wake, self._woken):
            one.close()

    def _run(self) -> None:
        while not self._closing:
            with self._lock:
                watched = [self._listener, self._woken, *([] if self._held else self._pairs)]
            with suppress(OSError, ValueError):  # one was cut just now
                readable, _, _ = select.select(watched, (), (), 0.1)
                for one in readable:
                    self._serve(one)

    def _serve(self, one: socket.socket) -> None:
        if one is self._woken:
            one.recv(100)
        elif one is self._listener:
            client, _ = one.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self._target), 1)
            except OSError:
                client.close()
                return
            with self._lock:
                self._pairs[client], self._pairs[server] = server, client
                self._servers.add(server)
        elif not self._held:  # it may have been held since it was watched
            self._pass(one)

    def _pass(self, one: socket.socket) -> None:
        try:
            data = one.recv(65536)
        except OSError:
            data = b""
        if self._delay:
            time.sleep(self._delay)
        with self._lock:
            other = self._pairs.get(one)
            if other is None:
                return
            if one in self._servers and self._answer_bytes is not None:
                data, self._answer_bytes = data[: self._answer_bytes], None
                with suppress(OSError):
                    other.sendall(data)
                data = b""
            try:
                if data:
                    other.sendall(data)
                    return
            except OSError:
                data = b""
            self._close(one)

    def _close(self, one: socket.socket) -> None:
        other = self._pairs.pop(one, None)
        for end in (one, other):
            if end is not None:
                self._pairs.pop(end, None)
                self._servers.discard(end)
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.close()
