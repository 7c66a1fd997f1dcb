# SPDX-License-Identifier: Apache-2.0
"""The data plane: libzmq moves the messages, Python sees only those that it cannot move.

Messages come into the frontend, a PULL, and `zmq_proxy` hands them to the backend,
without Python, until it meets one that the backend refuses.  Then `zmq_proxy`
returns; it has taken the first frame, and the rest is still to be read: we read
it, deal with it, and go on.

The same road serves for control.  libzmq offers `zmq_proxy_steerable` for that,
but not in every build, and it could not look at the backend.  A message that no
backend takes makes `zmq_proxy` return just as well.
"""

from __future__ import annotations

import abc
import enum
import errno
import logging
import signal
import threading
import time
from typing import Final

import zmq

from zmq_core import RateLimitedLog
from zmq_proxy._observer import Observer, Tap
from zmq_proxy._sockets import Socket
from zmq_proxy._traffic import Traffic

__all__ = ["Forwarder"]

LOG = logging.getLogger(__name__)

_REFUSED: Final = frozenset({errno.EHOSTUNREACH, errno.EAGAIN})
_QUIET: Final = 0.5
"""Seconds without a message after which all senders count as having gone."""
_FLUSHING_SHARE: Final = 0.25
"""Of the time to stop in, for what is in the queues of receivers."""


class _Command(enum.Enum):
    LOOK = b"look"
    STOP = b"stop"


class Forwarder(abc.ABC):
    """A thread that forwards from `frontend` to `backend`, until `stop`.

    `secret` is the first frame that `backend` refuses, and by which commands come.
    `observer`, which then is started and ended here, counts what is forwarded.
    `start`, `look`, `stop` and `join` are for one other thread; all else is for its own.
    """

    def __init__(
        self,
        name: str,
        frontend: Socket,
        backend: Socket,
        control: Socket,
        secret: bytes,
        observer: Observer | None,
    ) -> None:
        self.frontend = frontend
        self.backend = backend
        self._control = control
        self._secret = secret
        self._observer = observer
        self._tap = Tap(None, secret) if observer is None else observer.tap
        self._log = RateLimitedLog(LOG)
        self._asked = 0
        self._looked = 0
        self._asked_at = 0.0
        self._told = False
        self._stopping = False
        self._deadline = 0.0
        self.untidy = False
        """Whether tidying up came to no end, and is to be done again soon."""
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def listening(self) -> tuple[Socket, ...]:
        """The sockets that peers connect to."""
        return self.frontend, self.backend

    # -- what the backends differ in -------------------------------------------------

    @abc.abstractmethod
    def _refused(self, why: int, rest: list[bytes]) -> None:
        """Deal with a message that the backend refused, with `why` (an errno).

        Its first frame was taken off; there is at least one more.  `self._tap` is to be told of
        `rest` before anything else.
        """

    @abc.abstractmethod
    def _tidy(self) -> None:
        """Do what is to be done about once a second."""

    # -- from any thread -------------------------------------------------------------

    @property
    def failure(self) -> BaseException | None:
        """Why a thread ended without having been told to."""
        if self._failure is None and self._observer is not None:
            return self._observer.failure
        return self._failure

    @property
    def traffic(self) -> Traffic | None:
        """What was forwarded, if somebody counts."""
        return None if self._observer is None else self._observer.traffic

    @property
    def silence(self) -> float:
        """Seconds for which a `look` has waited; 0 if it was obeyed."""
        asked_at = self._asked_at
        return 0.0 if self._asked == self._looked else time.monotonic() - asked_at

    # -- from the other thread -------------------------------------------------------

    def start(self) -> None:
        """Begin to forward."""
        if self._observer is not None:
            self._observer.start()
        self._thread.start()

    def look(self) -> None:
        """Have the thread tidy up, and show that it lives."""
        if self._asked == self._looked:
            self._asked_at = time.monotonic()
            self._asked += 1
            self._told = self._tell(_Command.LOOK)
        elif not self._told:
            self._told = self._tell(_Command.LOOK)

    def stop(self, deadline: float) -> None:
        """Begin to end: pass on what has come in, close the sockets, by `deadline` (monotonic)."""
        self._deadline = deadline
        if self._thread.ident is None:
            self._close_data(0.0)
        else:
            self._tell(_Command.STOP)

    def join(self) -> None:
        """Wait until it has ended, after `stop`."""
        if self._thread.ident is not None:
            self._thread.join()
        if self._observer is not None:
            self._observer.stop()
        self._control.close(0)

    def _tell(self, command: _Command) -> bool:
        if not self._thread.is_alive():
            return False
        try:
            self._control.send_multipart([self._secret, self._secret, command.value])
        except zmq.Again:
            LOG.debug("nobody takes the command %s: the thread is ending, or busy", command.name)
            return False
        return True

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
            self._failure = error
        finally:
            self._close_data(linger)

    def _forward(self) -> None:
        """Forward until libzmq meets a message that it cannot pass on."""
        try:
            zmq.proxy(self.frontend, self.backend, self._tap.socket)
        except zmq.ZMQError as error:
            if error.errno not in _REFUSED:
                raise
            why = error.errno
        else:
            return
        # Without more frames it was a false alarm: a message that was announced, but whose
        # connection went before it was read.
        if self.frontend.get(zmq.RCVMORE):
            rest = self.frontend.recv_multipart(zmq.NOBLOCK)
            if rest[0] == self._secret:
                self._tap.rest(rest, passed=False)
                self._obey(_Command(rest[1]))
            else:
                self._refused(why, rest)

    def _obey(self, command: _Command) -> None:
        if command is _Command.STOP:
            self._stopping = True
        else:
            self._tidy()
            self._looked += 1

    def _send(self, frames: list[bytes]) -> int:
        """Send to the backend; returns the errno of what was in the way, or 0."""
        try:
            self.backend.send_multipart(frames, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in _REFUSED:
                raise
            return error.errno
        return 0

    def _drain(self) -> None:
        """Pass on what still comes, until nothing comes for a moment or time is up."""
        # The frontend stays bound: to unbind it would cut the connections that it has accepted.
        left = max(0.0, self._deadline - time.monotonic())
        end = time.monotonic() + left * (1 - _FLUSHING_SHARE)
        while True:
            patience = min(_QUIET, max(0.0, end - time.monotonic()))
            if not self.frontend.poll(int(patience * 1000)) or time.monotonic() > end:
                return
            frames = self.frontend.recv_multipart(zmq.NOBLOCK)
            if frames[0] == self._secret:
                continue
            self._tap.first(frames)
            why = self._send(frames)
            if not why:
                self._tap.rest(frames[1:], passed=True)
            elif len(frames) > 1:
                self._refused(why, frames[1:])

    def _close_data(self, linger: float) -> None:
        """Close what this thread uses; the end of the context then waits at most `linger`
        seconds for what the backend has not sent yet."""
        for socket in self.listening:
            socket.disable_monitor()  # lest libzmq wait for a reader that has gone
        self.frontend.close(0)
        self.backend.close(int(linger * 1000))
