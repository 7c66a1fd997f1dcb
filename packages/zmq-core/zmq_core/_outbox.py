# SPDX-License-Identifier: Apache-2.0
"""The answers of a node on their way into its ROUTER."""

from __future__ import annotations

import errno
import functools
import logging
import time
from collections.abc import Callable
from typing import Final

import zmq

from zmq_core._envelope import Envelope, encode
from zmq_core._ratelimit import RateLimitedLog
from zmq_core._reactor import Reactor
from zmq_core._sharedlock import SharedLock
from zmq_core._sockets import POLLIN, Socket, events_of, send_whole
from zmq_core._statistics import Statistics

__all__ = ["FULL", "GONE", "Outbox"]

FULL: Final = "it does not read its answers"
GONE: Final = "it has gone"
_CLOSED: Final = "this node is closed"

_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.1
_WAITING_MOST: Final = 1000
"""Answers that wait for peers which do not read; the rest is dropped at once."""


class _Answer:
    """One message to a peer, and what became of it."""

    __slots__ = ("deadline", "frames", "name", "pause", "peer", "problem")

    def __init__(self, peer: bytes, envelope: Envelope, deadline: float) -> None:
        self.peer = peer
        self.name = envelope.type.name
        self.frames = encode(envelope)
        self.deadline = deadline
        self.pause = _PAUSE
        self.problem = ""


class Outbox:
    """Sends answers over `socket`, from any thread, without ever waiting.

    `lock` is the socket's: whoever reads the socket holds it, and then sends
    what others had to send meanwhile.  `input_waits` is told, under the lock,
    that sending has taken the signal of input that nobody has read yet.
    """

    def __init__(
        self,
        socket: Socket,
        reactor: Reactor,
        statistics: Statistics,
        log: RateLimitedLog,
        input_waits: Callable[[], None],
    ) -> None:
        self._socket = socket
        self._reactor = reactor
        self._statistics = statistics
        self._log = log
        self._input_waits = input_waits
        self._waiting = 0
        self.closed = False
        self.lock: SharedLock[_Answer] = SharedLock(self._send)

    def put(self, peer: bytes, envelope: Envelope, patience: float) -> bool:
        """Send `envelope` to `peer`; tried again for `patience` s while its queue is full.

        Returns false if it is known by now that the peer does not get it.  What
        cannot be sent is counted and logged.
        """
        answer = _Answer(peer, envelope, time.monotonic() + patience)
        self.lock.leave(answer)
        return not answer.problem

    def send_now(self, peer: bytes, frames: list[bytes]) -> str:
        """Send without queueing; what was in the way, or nothing.  Under the lock."""
        if self.closed:
            return _CLOSED
        try:
            return "" if send_whole(self._socket, [peer, *frames]) else FULL
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            return GONE

    def look(self) -> None:
        """Sending may have consumed the signal of waiting input: look.  Under the lock."""
        if not self.closed and events_of(self._socket) & POLLIN:
            self._input_waits()

    def _send(self, answer: _Answer) -> None:
        problem = self.send_now(answer.peer, answer.frames)
        self.look()
        if problem == FULL and self._wait(answer):
            return
        if problem:
            answer.problem = problem
            self._statistics.replies_dropped += 1
            self._log.log(
                logging.WARNING,
                ("answer", answer.peer),
                "dropped a %s to %r: %s",
                answer.name,
                answer.peer,
                problem,
            )

    def _wait(self, answer: _Answer) -> bool:
        """Try again later; false if its time is over or too many wait already."""
        if time.monotonic() + answer.pause > answer.deadline or self._waiting >= _WAITING_MOST:
            return False
        self._waiting += 1
        self._reactor.call_later(answer.pause, functools.partial(self._retry, answer))
        answer.pause = min(answer.pause * 2, _LONGEST_PAUSE)
        return True

    def _retry(self, answer: _Answer) -> None:
        self._waiting -= 1
        self.lock.leave(answer)
