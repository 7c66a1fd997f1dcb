# SPDX-License-Identifier: Apache-2.0
"""The same over pyzmq alone: DEALERs and a ROUTER that echoes, with no oslo.messaging.

This bounds what any driver in Python can reach with blocking calls: each thread
of the client has a DEALER of its own and waits for each answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import zmq

from zmq_benchmarks.load import CastCounter, run_load
from zmq_benchmarks.protocol import Calls, CastReport, Casts, LoadReport, Ready, Role, WorkerConfig

__all__ = ["RawWorker"]

_CALL: Final = b"call"
_CAST: Final = b"cast"
_POLL_MS: Final = 200

# Plain integers: pyzmq's flag classes cost more than the calls.
_SNDMORE: Final = int(zmq.SNDMORE)


class RawWorker:
    """A ROUTER on a thread, or the DEALERs that talk to it."""

    def __init__(self, config: WorkerConfig) -> None:
        self.casts = CastCounter()
        self._context = zmq.Context()
        self._address = config.url
        self._dealers: list[zmq.Socket[bytes]] = []
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        if config.role is Role.SERVER:
            router = self._context.socket(zmq.ROUTER)
            port = router.bind_to_random_port("tcp://127.0.0.1")
            self._address = f"tcp://127.0.0.1:{port}"
            self._thread = threading.Thread(target=self._serve, args=(router,))
            self._thread.start()

    def ready(self) -> Ready:
        """Where the other end connects to."""
        return Ready(self._address)

    def _serve(self, router: zmq.Socket[bytes]) -> None:
        router.set(zmq.RCVTIMEO, _POLL_MS)
        while not self._stopping.is_set():
            try:
                peer, kind, body = router.recv_multipart()
            except zmq.Again:
                continue
            if kind == _CALL:
                router.send(peer, _SNDMORE)
                router.send(body)
            else:
                self.casts.note()
        router.close(0)

    def _dealer(self) -> zmq.Socket[bytes]:
        dealer = self._context.socket(zmq.DEALER)
        dealer.connect(self._address)
        self._dealers.append(dealer)
        return dealer

    def calls(self, command: Calls) -> LoadReport:
        """Send and wait for the echo."""
        body = b"x" * command.size

        def make() -> Callable[[], None]:
            dealer = self._dealer()

            def call() -> None:
                dealer.send(_CALL, _SNDMORE)
                dealer.send(body)
                if len(dealer.recv()) != len(body):
                    raise AssertionError("the answer is not what was sent")

            return call

        report = run_load(make, command.threads, command.seconds, command.limit)
        self._close_dealers(linger=0)
        return report

    def cast(self, command: Casts) -> LoadReport:
        """Send and wait for nothing."""
        body = b"x" * command.size

        def make() -> Callable[[], None]:
            dealer = self._dealer()

            def cast() -> None:
                dealer.send(_CAST, _SNDMORE)
                dealer.send(body)

            return cast

        report = run_load(make, 1, command.seconds)
        self._close_dealers(linger=-1)  # everything that was sent still arrives
        return report

    def _close_dealers(self, *, linger: int) -> None:
        while self._dealers:
            self._dealers.pop().close(linger)

    def counted(self) -> CastReport:
        """What the server has processed."""
        return self.casts.report()

    def close(self) -> None:
        """End the thread and close all sockets."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self._context.term()
