# SPDX-License-Identifier: Apache-2.0
"""Two processes' worth of honest peers, whom nothing that others do to a proxy may disturb."""

from __future__ import annotations

import itertools
import threading
import time
from types import TracebackType
from typing import Final, Self

import psutil

from harness.leaks import wait_until
from harness.strangers import KEY
from zmq_core import Node, NodeOptions, ProxyAddress

_PAUSE: Final = 0.002
_LONGEST_GAP: Final = 2.0


class HonestPair:
    """A node that calls another through a proxy, again and again, as long as the block lasts.

    At its end: every call was answered with what it had said, none took long, and
    all went by the same connections.
    """

    def __init__(self, proxy: ProxyAddress) -> None:
        self._proxy = proxy
        options = NodeOptions(bind_address="127.0.0.1", linger=1.0)
        self.server = Node(options, role="server")
        self.client = Node(options, role="client")
        self.answered: list[float] = []
        self.failures: list[Exception] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._call_on)

    @property
    def name(self) -> bytes:
        """Under which the one that answers is known to the proxy."""
        return self.server.identity.encode()

    def more(self, number: int = 100) -> None:
        """Wait until so many more calls have been answered."""
        wanted = len(self.answered) + number
        wait_until(
            lambda: len(self.answered) >= wanted or self.failures, "more answers", timeout=30
        )
        assert not self.failures, self.failures

    def _call_on(self) -> None:
        for number in itertools.count():
            if self._stopping.wait(_PAUSE):
                return
            body = b"%d" % number
            try:
                reply = self.client.request(
                    "the server", KEY, body, timeout=10, routing_id=self.server.identity
                )
                if reply.body != body:
                    raise AssertionError(f"{body!r} was answered with {reply.body[:100]!r}")
            except Exception as error:  # noqa: BLE001 - what is under test
                self.failures.append(error)
            else:
                self.answered.append(time.monotonic())

    def _connections(self) -> set[tuple[int, int]]:
        ports = {int(e.rpartition(":")[2]) for e in (self._proxy.frontend, self._proxy.backend)}
        return {
            (connection.laddr.port, connection.raddr.port)
            for connection in psutil.Process().net_connections("tcp")
            if connection.status == psutil.CONN_ESTABLISHED and connection.raddr.port in ports
        }

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self._end()
            raise
        return self

    def _begin(self) -> None:
        others = self._connections()
        self.server.serve(KEY, lambda incoming: incoming.reply(incoming.body))
        for node in (self.server, self.client):
            assert node.use_proxies([self._proxy], timeout=10) == 1
        self._own = self._connections() - others
        assert len(self._own) == 4
        self._thread.start()
        self.more(20)

    def finish(self) -> None:
        """End them, and see that they were not disturbed.  Idempotent."""
        if not self._stopping.is_set():
            self.more()
            left = self._connections()
            self._end()
            assert self._own <= left, "a connection of theirs was lost"
            assert self.failures == []
            gaps = [later - earlier for earlier, later in itertools.pairwise(self.answered)]
            assert max(gaps) < _LONGEST_GAP

    def _end(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        for node in (self.client, self.server):
            node.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self._end()
