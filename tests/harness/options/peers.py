# SPDX-License-Identifier: Apache-2.0
"""Whom a transport meets, of the test's own: they see what comes, and when."""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import zmq

from zmq_core import Envelope, decode

__all__ = ["Ear", "FakeServer"]

_READ = 65536


class Ear:
    """A TCP listener that says nothing but `greeting` to those who connect.

    It keeps the connections, or with `drops` ends each at once.  With `tls` it shakes
    hands first, and notes with whom, or why that failed.
    """

    def __init__(
        self,
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        greeting: bytes = b"",
        drops: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._listener = socket.create_server((host, port))
        self.port: int = self._listener.getsockname()[1]
        self._greeting = greeting
        self._drops = drops
        self._tls = tls
        self.connected: list[float] = []
        """When somebody connected."""
        self.ended: list[float] = []
        """When somebody who was kept has gone."""
        self.heard: list[bytes] = []
        """What came, in parts."""
        self.shaken: list[Any] = []
        """Of each handshake the client's certificate, or the error."""
        self._open: list[socket.socket] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._closing:
            ready, _, _ = select.select([self._listener, *self._open], [], [], 0.02)
            for one in ready:
                self._accept() if one is self._listener else self._read(one)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        self.connected.append(time.monotonic())
        connection.settimeout(5)
        if self._tls is not None:
            try:
                with self._tls.wrap_socket(connection, server_side=True) as secured:
                    secured.recv(1)  # with TLS 1.3 the client refuses after our side is done
                    self.shaken.append(secured.getpeercert())
            except OSError as error:
                self.shaken.append(error)
        elif self._drops:
            connection.close()
        else:
            connection.sendall(self._greeting)
            self._open.append(connection)

    def _read(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(_READ)
        except OSError:
            data = b""
        if data:
            self.heard.append(data)
            return
        self.ended.append(time.monotonic())
        self._open.remove(connection)
        connection.close()

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
        self._thread.join()
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.close()


class FakeServer:
    """A ROUTER that takes messages and answers none; if it does not read, nor takes many."""

    def __init__(self, *, reads: bool = True) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.set(zmq.LINGER, 0)
        if not reads:
            self._router.set(zmq.RCVHWM, 1)
            self._router.set(zmq.RCVBUF, 65536)
        self.port = self._router.bind_to_random_port("tcp://127.0.0.1")
        self.received: list[tuple[float, Envelope]] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run if reads else lambda: None)

    def _run(self) -> None:
        while not self._closing:
            if self._router.poll(20):
                _, *frames = self._router.recv_multipart()
                self.received.append((time.monotonic(), decode(frames)))

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
        self._thread.join()
        self._context.destroy(linger=0)
