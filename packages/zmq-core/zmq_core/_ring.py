# SPDX-License-Identifier: Apache-2.0
"""Which proxies a node is connected to, and which of them takes a message."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final

from zmq_core._errors import NoProxy, NotDelivered
from zmq_core._linkcontext import LinkContext
from zmq_core._uplink import ProxyAddress, Uplink

__all__ = ["Ring"]

LOG = logging.getLogger(__name__)

_LOOK_AGAIN: Final = 1.0
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 8.0


class Ring:
    """The uplinks to all proxies, which take messages in turn.  Thread-safe.

    `take` gets what comes in by an uplink, and `ended` is told of each that has ended,
    both on the reactor's thread.  Times are in seconds.
    """

    def __init__(
        self,
        context: LinkContext,
        name: bytes,
        connect_timeout: float,
        take: Callable[[Uplink, list[bytes]], None],
        ended: Callable[[Uplink], None],
    ) -> None:
        self._context = context
        self._name = name
        self._connect_timeout = connect_timeout
        self._take = take
        self._ended = ended
        self._lock = threading.Lock()
        self._uplinks: dict[ProxyAddress, Uplink] = {}
        self._pauses: dict[ProxyAddress, tuple[float, float]] = {}
        """Of proxies whose uplink ended: until when they are left alone, and that pause."""
        self._leaving: list[Uplink] = []
        """To proxies that are no longer registered: only what they still bring is taken."""
        self._ready: tuple[Uplink, ...] = ()
        self._turn = itertools.count()
        self._gates: list[threading.Lock] = []
        self._closed = False

    def use(self, proxies: Iterable[ProxyAddress]) -> None:
        """Have connections to these proxies, and use no others any more.

        To be called again from time to time: connections that have ended are made
        anew, after pauses that double.  Blocks while it resolves host names.
        """
        wanted = set(proxies)
        now = time.monotonic()
        with self._lock:
            if self._closed:
                return
            for proxy in set(self._uplinks) - wanted:
                self._leaving.append(self._uplinks.pop(proxy))
            for uplink in [u for u in self._leaving if u.proxy in wanted and not u.closed]:
                self._leaving.remove(uplink)
                self._uplinks[uplink.proxy] = uplink
            self._pauses = {p: pause for p, pause in self._pauses.items() if p in wanted}
            new = []
            for proxy in sorted(wanted - set(self._uplinks)):
                if self._pauses.get(proxy, (0.0, 0.0))[0] <= now:
                    uplink = Uplink(proxy, self._context, self._name, self._take, self._changed)
                    self._uplinks[proxy] = uplink
                    new.append(uplink)
            self._settle()
        self.wake()
        for uplink in new:
            try:
                uplink.open()
            except NotDelivered as error:
                LOG.debug("the proxy %s: %s", uplink.proxy.name, error)  # `_forget` warns of it

    @property
    def ready(self) -> Sequence[Uplink]:
        """Those that can be used now."""
        return self._ready

    def await_all(self, timeout: float) -> int:
        """Wait until every proxy in use is ready or has failed; how many are ready."""
        deadline = time.monotonic() + timeout
        while True:
            with self.in_line() as gate:
                waiting = [u for u in tuple(self._uplinks.values()) if not (u.ready or u.closed)]
                left = deadline - time.monotonic()
                if not waiting or left <= 0:
                    return len(self._ready)
                gate.acquire(timeout=left)

    def _settle(self) -> None:
        """Work out who is ready.  Under the lock."""
        self._ready = tuple(uplink for uplink in self._uplinks.values() if uplink.ready)
        if not self._ready:
            # The matchmaker may have forgotten them all at once.
            self._ready = tuple(uplink for uplink in self._leaving if uplink.ready)

    def _changed(self, uplink: Uplink) -> None:
        with self._lock:
            if uplink.closed:
                self._forget(uplink)
            elif uplink.ready:
                self._pauses.pop(uplink.proxy, None)
            self._settle()
        self.wake()
        if uplink.closed:
            self._ended(uplink)

    def _forget(self, uplink: Uplink) -> None:
        """Take out `uplink`, which is closed.  Under the lock."""
        if uplink in self._leaving:
            self._leaving.remove(uplink)
        if self._uplinks.get(uplink.proxy) is uplink:
            del self._uplinks[uplink.proxy]
            _, pause = self._pauses.get(uplink.proxy, (0.0, _FIRST_PAUSE / 2))
            pause = min(pause * 2, _LONGEST_PAUSE)
            self._pauses[uplink.proxy] = (time.monotonic() + pause, pause)
            self._context.log.warning(
                ("uplink", uplink.proxy.name),
                "no connection to the proxy %s any more: %s",
                uplink.proxy.name,
                uplink.reason,
            )

    def hand_over(
        self,
        message: Sequence[bytes],
        deadline: float,
        endpoint: str,
        refusing: Collection[Uplink] = (),
    ) -> Uplink | None:
        """Give a message to a proxy that takes it; None if there is none but `refusing`.

        Waits until `deadline` for room, and not as long for a connection.  Errors name
        `endpoint`.

        :raises NoProxy: there is none, or none has room.
        """
        patience = min(deadline, time.monotonic() + self._connect_timeout)
        uplink = self.offer(message, refusing)
        while uplink is None:
            with self.in_line() as gate:
                # Again, since it may have changed before we stood in line.
                uplink = self.offer(message, refusing)
                candidates = set(self._ready) - set(refusing)
                if uplink is not None or not (candidates or self._connecting(refusing)):
                    break
                # A queue that is full is worth waiting for as long as there is time.
                left = (deadline if candidates else patience) - time.monotonic()
                if left <= 0:
                    if candidates:
                        raise NoProxy(endpoint, "the queues of all proxies were full")
                    break
                gate.acquire(timeout=min(left, _LOOK_AGAIN))
        if self._gates:
            self.wake()  # our sending may have taken the signal that there is room
        if uplink is None and not refusing:
            raise self._nobody(endpoint)
        return uplink

    def offer(self, message: Sequence[bytes], refusing: Collection[Uplink] = ()) -> Uplink | None:
        """Give a message to the next proxy that takes it now."""
        for uplink in self._in_turn():
            if uplink not in refusing and uplink.send(message):
                return uplink
        return None

    def _connecting(self, refusing: Collection[Uplink]) -> bool:
        """Whether it is worth waiting for a connection."""
        return not refusing and bool(self._uplinks)

    def _in_turn(self) -> Sequence[Uplink]:
        ready = self._ready
        if len(ready) < 2:
            return ready
        first = next(self._turn) % len(ready)
        return ready[first:] + ready[:first]

    @contextlib.contextmanager
    def in_line(self) -> Iterator[threading.Lock]:
        """A lock that is released when it is worth trying again."""
        gate = threading.Lock()
        gate.acquire()
        with self._lock:
            self._gates.append(gate)
        try:
            yield gate
        finally:
            with self._lock:
                if gate in self._gates:
                    self._gates.remove(gate)

    def wake(self) -> None:
        """Let those who stand in line try again."""
        with self._lock:
            gates, self._gates = self._gates, []
        for gate in gates:
            gate.release()

    def _nobody(self, endpoint: str) -> NoProxy:
        return NoProxy(
            endpoint,
            "none of the proxies that are registered can be reached"
            if self._uplinks or self._pauses
            else "no proxy is registered",
        )

    def close(self, reason: str) -> None:
        """End all uplinks.  Idempotent."""
        with self._lock:
            self._closed = True
            uplinks = [*self._uplinks.values(), *self._leaving]
            self._uplinks, self._leaving = {}, []
            self._settle()
        self.wake()
        for uplink in uplinks:
            uplink.close(reason)
