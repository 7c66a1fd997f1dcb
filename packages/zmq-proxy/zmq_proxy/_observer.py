# SPDX-License-Identifier: Apache-2.0
"""Counts, and with `--debug` logs, what libzmq forwards without us.

`zmq_proxy` copies each frame that it takes in to a capture socket before it hands
it to the backend.  What the backend refuses is therefore copied in part: the
forwarding thread adds the rest, and a mark that it was refused.  The copies go
through a queue that blocks when it is full, so that none is lost.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Sequence
from typing import Any, Final

import zmq

from zmq_proxy._sockets import Socket, SocketFactory
from zmq_proxy._traffic import Layout, Traffic, describe

__all__ = ["MESSAGES", "Observer", "Tap"]

LOG = logging.getLogger(__name__)
MESSAGES: Final = logging.getLogger("zmq_proxy.messages")
"""Writes a line per message, at level DEBUG."""

_OWN: Final = b"own"
_END: Final = b"end"
_END_PATIENCE_MS: Final = 1000


class Tap:
    """Through which a forwarding thread tells of its messages; for that thread.

    It does nothing if there is no `socket`.  `secret` is what no peer can send.
    """

    def __init__(self, socket: Socket | None, secret: bytes) -> None:
        self.socket = socket
        self._secret = secret

    def first(self, frames: Sequence[bytes]) -> None:
        """The first of `frames` was taken in; as `zmq_proxy` tells it."""
        if self.socket is not None:
            self.socket.send(frames[0], zmq.SNDMORE if len(frames) > 1 else 0)

    def rest(self, frames: Sequence[bytes], *, passed: bool) -> None:
        """All but the first frame of a message, and whether it was handed on."""
        if self.socket is not None and frames:
            self.socket.send_multipart(frames if passed else [*frames, self._secret])

    def own(self, frames: Sequence[bytes]) -> None:
        """A message that came from nobody was handed to the backend."""
        if self.socket is not None:
            self.socket.send_multipart([self._secret, _OWN, *frames])


class Observer:
    """A thread that counts what comes through its tap, from `start` to `stop`.

    `start` and `stop` are for one other thread.
    """

    def __init__(self, part: str, sockets: SocketFactory, secret: bytes, layout: Layout) -> None:
        self._part = part
        self._secret = secret
        self.traffic = Traffic(layout)
        self._socket, self._source = sockets.capture()
        self.tap = Tap(self._socket, secret)
        self._logs = MESSAGES.isEnabledFor(logging.DEBUG)
        self.failure: BaseException | None = None
        """Why it counts no more; it still reads, so that nobody waits for it."""
        name = f"zmq-proxy-{part}-observer"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to count; to be called before anything is forwarded."""
        self._thread.start()

    def stop(self) -> None:
        """Count what has come, and end.  The thread that forwards has ended."""
        if self._thread.ident is None:
            self._source.close(0)
        else:
            # Behind all else, and behind a message that a failure left unfinished.
            self._socket.set(zmq.SNDTIMEO, _END_PATIENCE_MS)
            while self._thread.is_alive():
                try:
                    self._socket.send(self._secret + _END)
                    self._thread.join()
                except zmq.Again:
                    LOG.debug("the observer is busy")
        self._socket.close(0)

    # -- the thread ------------------------------------------------------------------

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            while self._look(self._message()):
                continue
        except Exception as error:
            # The process ends of it: see Proxy.look.
            self.failure = error
            LOG.exception("observing failed")
            while not self._is_end(self._message()):
                continue
        finally:
            self._source.close(0)

    def _message(self) -> list[Any]:
        # Not copied: most of a message is its body, of which only the length is of interest.
        receive = self._source.recv
        frame = receive(copy=False)
        frames = [frame]
        while frame.more:
            frame = receive(copy=False)
            frames.append(frame)
        return frames

    def _is_end(self, frames: list[Any]) -> bool:
        return self._starts(frames[-1]) and bytes(frames[-1]) == self._secret + _END

    def _starts(self, frame: Any) -> bool:
        """Whether it is one of our own, by its length first: all frames come by here."""
        size = len(self._secret)
        return size <= len(frame) <= size + len(_END) and bytes(frame).startswith(self._secret)

    def _look(self, frames: list[Any]) -> bool:
        """Count one message; false if it was the end."""
        if self._starts(frames[0]):
            if self._is_end(frames):
                return False
            if bytes(frames[1]) == _OWN:
                self._count(frames[2:], taken=False, passed=True)
        elif not self._starts(frames[-1]):
            # Nothing is left of a single frame that names its destination.
            self._count(frames, taken=True, passed=len(frames) > 1)
        elif self._is_end(frames):
            return False
        else:
            self._count(frames[:-1], taken=True, passed=False)
        return True

    def _count(self, frames: list[Any], *, taken: bool, passed: bool) -> None:
        kind = self.traffic.count(frames, taken=taken, passed=passed)
        if self._logs:
            what = "passed on" if taken else "sent"
            MESSAGES.debug(
                "%s %s %s",
                self._part,
                what if passed else "refused",
                describe(self.traffic.layout, kind, frames),
            )
