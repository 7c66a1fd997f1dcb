# SPDX-License-Identifier: Apache-2.0
"""The data plane: libzmq moves the messages, Python sees only those that it cannot move.

A message comes into the frontend as `[destination] [sender] [header] [key] [body]`
and `zmq_proxy` hands its frames to the backend, a ROUTER, which takes the
destination off and sends the rest to the peer of that name.  It does so without
Python until it meets a message for a peer that is not there or whose queue is
full.  Then the ROUTER, being mandatory and told not to wait, fails the first
frame, and `zmq_proxy` returns with the rest of that message still to be read:
we read it, tell its sender, and go on.

The same road serves for control.  libzmq offers `zmq_proxy_steerable` for that,
but not in every build, and it could not look at the backend.  A message to a name
that no peer has makes `zmq_proxy` return just as well.
"""

from __future__ import annotations

import enum
import errno
import logging
import signal
import threading
import time
from dataclasses import dataclass, replace
from typing import Final

import zmq

from zmq_core import MalformedMessage, NackCode, RateLimitedLog
from zmq_proxy._refusal import Refusal, refuse
from zmq_proxy._sockets import Sockets

__all__ = ["Forwarder", "Statistics"]

LOG = logging.getLogger(__name__)

_REFUSED: Final = {
    errno.EHOSTUNREACH: "its receiver is not connected here",
    errno.EAGAIN: "its receiver does not read",
}
_CODES: Final = {errno.EHOSTUNREACH: NackCode.UNROUTABLE, errno.EAGAIN: NackCode.QUEUE_FULL}
_DISCARD_BATCH: Final = 1000
_LONGEST_IN_LOG: Final = 100
_QUIET: Final = 0.5
"""Seconds without a message after which all senders count as having gone."""
_FLUSHING_SHARE: Final = 0.25
"""Of the time to stop in, for what is in the queues of receivers."""


class _Command(enum.Enum):
    LOOK = b"look"
    STOP = b"stop"


@dataclass(slots=True)
class Statistics:
    """Counters since the start.  What is passed on is not counted: libzmq does that alone."""

    unroutable: int = 0
    """Messages for a receiver that was not connected."""
    overflowed: int = 0
    """Messages for a receiver whose queue was full."""
    malformed: int = 0
    """Of these two kinds, those that were no messages of the protocol."""
    nacks: int = 0
    """Senders that were told."""
    nacks_lost: int = 0
    """Senders that could not be told: they are not connected to the backend."""
    discarded: int = 0
    """Messages that peers sent to the backend, where nothing is to be sent to."""


class Forwarder:
    """The thread that forwards, until `stop`.

    `look`, `stop` and `join` are for one other thread.
    """

    def __init__(self, sockets: Sockets, identity: bytes) -> None:
        self._sockets = sockets
        self._identity = identity
        self._statistics = Statistics()
        self._log = RateLimitedLog(LOG)
        self._asked = 0
        self._looked = 0
        self._stopping = False
        self._deadline = 0.0
        self.failure: BaseException | None = None
        """Why the thread ended without having been told to."""
        self._thread = threading.Thread(target=self._run, name="zmq-proxy-data", daemon=True)

    @property
    def statistics(self) -> Statistics:
        """A copy of the counters."""
        return replace(self._statistics)

    # -- from the other thread -------------------------------------------------------

    def start(self) -> None:
        """Begin to forward."""
        self._thread.start()

    def look(self) -> None:
        """Have the thread throw away what peers sent to the backend.

        `zmq_proxy` cannot move it anywhere, and does not sleep while it is there.
        """
        if self._asked == self._looked:
            self._asked += 1
            self._tell(_Command.LOOK)

    def stop(self, deadline: float) -> None:
        """Pass on what has come in, close the sockets and end, by `deadline` (monotonic)."""
        self._deadline = deadline
        self._tell(_Command.STOP)
        self._thread.join()

    def _tell(self, command: _Command) -> None:
        secret = self._sockets.secret
        if not self._thread.is_alive():
            return
        try:
            self._sockets.control.send_multipart([secret, secret, command.value])
        except zmq.Again:
            LOG.debug("nobody takes the command %s: the thread is ending", command.name)

    # -- the thread ------------------------------------------------------------------

    def _run(self) -> None:
        # An interrupted system call in the midst of a message would tear it apart.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        linger = 0.0
        try:
            while not self._stopping:
                self._forward()
            self._drain()
            linger = max(0.0, self._deadline - time.monotonic())
        except Exception as error:
            # The process ends of it: see Proxy.look.
            LOG.exception("forwarding failed")
            self.failure = error
        finally:
            self._sockets.close_data(linger)

    def _forward(self) -> None:
        """Forward until libzmq meets a message that it cannot pass on."""
        sockets = self._sockets
        try:
            zmq.proxy(sockets.frontend, sockets.backend)
        except zmq.ZMQError as error:
            if error.errno not in _REFUSED:
                raise
            why = error.errno
        else:
            return
        # Without more frames it was a false alarm: a message that was announced, but whose
        # connection went before it was read.
        if sockets.frontend.get(zmq.RCVMORE):
            self._take_back(why, sockets.frontend.recv_multipart(zmq.NOBLOCK))

    def _take_back(self, why: int, frames: list[bytes]) -> None:
        """Deal with a message of which the destination was taken off and found wanting."""
        if frames[0] == self._sockets.secret:
            self._obey(_Command(frames[1]))
            return
        if why == errno.EAGAIN:
            self._statistics.overflowed += 1
        else:
            self._statistics.unroutable += 1
        refusal = self._parse(why, frames)
        if refusal is None:
            return
        self._log.warning(
            ("refused", why),
            "refused a %s from %r: %s",
            refusal.envelope.type.name,
            refusal.sender[:_LONGEST_IN_LOG],
            _REFUSED[why],
        )
        if not refusal.answer:
            return
        if self._send(refusal.answer):
            self._statistics.nacks_lost += 1
        else:
            self._statistics.nacks += 1

    def _parse(self, why: int, frames: list[bytes]) -> Refusal | None:
        """What to tell the sender; None if there is no telling who that is."""
        try:
            return refuse(frames, self._identity, _CODES[why])
        except MalformedMessage as error:
            problem = str(error)
        # Not within the except block, where oslo.log would append the error a second time.
        self._statistics.malformed += 1
        self._log.warning("malformed", "dropped a message: %s, and %s", _REFUSED[why], problem)
        return None

    def _obey(self, command: _Command) -> None:
        if command is _Command.STOP:
            self._stopping = True
        else:
            self._discard()
            self._looked += 1

    def _discard(self) -> None:
        """Throw away a bounded part of what peers sent to the backend."""
        backend = self._sockets.backend
        for _ in range(_DISCARD_BATCH):
            try:
                peer = backend.recv_multipart(zmq.NOBLOCK)[0]
            except zmq.Again:
                return
            self._statistics.discarded += 1
            self._log.warning(
                "backend",
                "dropped a message that %r sent to the backend port; send to the frontend port",
                peer,
            )

    def _send(self, frames: list[bytes]) -> int:
        """Send to a receiver; returns the errno of what was in the way, or 0."""
        try:
            self._sockets.backend.send_multipart(frames, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in _REFUSED:
                raise
            return error.errno
        return 0

    def _drain(self) -> None:
        """Pass on what still comes, until nothing comes for a moment or time is up."""
        sockets = self._sockets
        # The frontend stays bound: to unbind it would cut the connections that it has accepted.
        left = max(0.0, self._deadline - time.monotonic())
        end = time.monotonic() + left * (1 - _FLUSHING_SHARE)
        while True:
            patience = min(_QUIET, max(0.0, end - time.monotonic()))
            if not sockets.frontend.poll(int(patience * 1000)) or time.monotonic() > end:
                return
            frames = sockets.frontend.recv_multipart(zmq.NOBLOCK)
            why = self._send(frames)
            if why and len(frames) > 1:
                self._take_back(why, frames[1:])
