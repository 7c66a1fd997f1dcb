# SPDX-License-Identifier: Apache-2.0
"""Messages to everybody: one copy to one publisher, and one from each publisher's hand.

A message goes to a publisher, any of them, in turn; a listener subscribes at all of
them.  So each message comes once, whatever the number of publishers.  A subscription
takes its time to arrive, and nobody confirms it.  So a node that must know sends
itself a message through every publisher, under a name that it has just subscribed
to: subscriptions arrive in order, so when that comes all before it are in place.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Final

from zmq_core._envelope import Envelope, MessageType, decode, encode
from zmq_core._errors import MalformedMessage
from zmq_core._identity import MessageIds
from zmq_core._inlet import Inlet
from zmq_core._key import TargetKey
from zmq_core._latch import Latch
from zmq_core._linkcontext import LinkContext
from zmq_core._outlet import Outlet
from zmq_core._ring import Ring
from zmq_core._roster import Address, Changed, ProxyEnd, Roster

__all__ = ["Publications"]

LOG = logging.getLogger(__name__)

_OWN: Final = b"\xff"
"""Begins a filter that is no key: the first octet of a key is 4 at the most."""
_KNOCK_INTERVAL: Final = 0.05
_PUBLISHED: Final = frozenset({MessageType.FANOUT, MessageType.NOTIFY})


class _Check:
    """A wait until the subscriptions have arrived everywhere."""

    def __init__(self, own_filter: bytes) -> None:
        self.filter = own_filter
        self.knocks: dict[bytes, Outlet] = {}
        """Messages to ourselves that have not come back, by id."""
        self.came_back: set[Outlet] = set()
        self.ended = False
        self.done = Latch()


class Publications:
    """What a node publishes, and what it subscribes to.  Thread-safe; times are in seconds."""

    def __init__(
        self, context: LinkContext, name: bytes, ids: MessageIds, connect_timeout: float
    ) -> None:
        self._context = context
        self._name = name
        self._ids = ids
        self._outlets: Roster[Outlet] = Roster(self._outlet, context.log)
        self._inlets: Roster[Inlet] = Roster(self._inlet, context.log)
        self._ring = Ring(self._outlets, connect_timeout)
        self._backends: tuple[ProxyEnd, ...] = ()
        self._lock = threading.Lock()
        self._keys: Counter[bytes] = Counter()
        self._checks: dict[bytes, _Check] = {}
        self._pid = os.getpid()

    def _outlet(self, proxy: Address, changed: Changed[Outlet]) -> Outlet:
        assert isinstance(proxy, ProxyEnd)
        return Outlet(proxy, self._context, changed)

    def _inlet(self, proxy: Address, changed: Changed[Inlet]) -> Inlet:
        assert isinstance(proxy, ProxyEnd)
        return Inlet(proxy, self._context, self._filters, self._take, changed)

    def use(
        self, frontends: Iterable[ProxyEnd], backends: Iterable[ProxyEnd], timeout: float
    ) -> int:
        """Publish through `frontends`, in turn, and subscribe at all `backends`.

        See `Roster.use`.  The backends are connected to once there is a subscription.
        Waits up to `timeout` for the frontends; returns how many are ready.
        """
        self._backends = tuple(backends)
        self._outlets.use(frontends)
        self._use_inlets()
        return self._outlets.await_all(timeout)

    def _use_inlets(self) -> None:
        with self._lock:
            subscribing = bool(self._keys)
        self._inlets.use(self._backends if subscribing else ())

    # -- publishing ------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether some publisher takes messages now."""
        return bool(self._outlets.ready)

    def publish(self, envelope: Envelope, deadline: float) -> None:
        """Hand a message to one publisher, waiting until `deadline` while its queue is full.

        :raises NoProxy: none has taken it.
        """
        self._ring.hand_over([envelope.key, *encode(envelope)], deadline, "fanout")

    # -- subscribing -----------------------------------------------------------------

    def subscribe(self, keys: Iterable[TargetKey]) -> None:
        """Have published messages for `keys` come in, once the publishers know of it."""
        with self._lock:
            self._keys.update(key.encoded for key in keys)
        self._use_inlets()
        self._context.reactor.call_soon(self._tell_inlets)

    def unsubscribe(self, keys: Iterable[TargetKey]) -> None:
        """Undo `subscribe`; in a forked child nothing, since it has no subscription."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._keys.subtract(key.encoded for key in keys)
            self._keys = +self._keys
        self._context.reactor.call_soon(self._tell_inlets)

    def await_subscriptions(self, timeout: float) -> list[str]:
        """Wait until all publishers have our subscriptions; the names of those that have not."""
        check = _Check(b"%b%b/%b/" % (_OWN, self._name, self._ids.next().hex().encode()))
        with self._lock:
            self._checks[check.filter] = check
        reactor = self._context.reactor
        reactor.call_soon(lambda: self._begin(check))
        check.done.wait(timeout)
        check.ended = True
        with self._lock:
            del self._checks[check.filter]
        reactor.call_soon(self._tell_inlets)
        return sorted({o.proxy.name for o in self._missing(check)})

    def _missing(self, check: _Check) -> Collection[Outlet]:
        expected = {*self._outlets.ready, *self._outlets.connecting}
        return expected - check.came_back

    # -- on the reactor's thread -----------------------------------------------------

    def _filters(self) -> Collection[bytes]:
        with self._lock:
            return [*self._keys, *self._checks]

    def _tell_inlets(self) -> None:
        for inlet in self._inlets.open:
            inlet.subscribe()

    def _begin(self, check: _Check) -> None:
        self._tell_inlets()
        self._knock(check)

    def _knock(self, check: _Check) -> None:
        if check.ended:
            return
        missing = self._missing(check)
        if not missing:
            check.done.set()
            return
        for outlet in missing:
            knock = Envelope(type=MessageType.HEARTBEAT, id=self._ids.next())
            check.knocks[knock.id] = outlet
            outlet.send([check.filter, *encode(knock)])
        self._context.reactor.call_later(_KNOCK_INTERVAL, lambda: self._knock(check))

    def _take(self, inlet: Inlet, frames: list[bytes]) -> None:
        statistics = self._context.statistics
        statistics.received += 1
        publisher = inlet.proxy.name.encode()
        try:
            envelope = decode(frames[1:])
        except MalformedMessage as error:
            self._context.reception.refuse_malformed(publisher, error, _Nobody())
            return
        if frames[0][:1] == _OWN:
            self._came_back(frames[0], envelope.id)
        elif envelope.type not in _PUBLISHED:
            statistics.misdirected += 1
        else:
            self._context.reception.accept_published(publisher, envelope, _Nobody())

    def _came_back(self, own_filter: bytes, message_id: bytes) -> None:
        check = self._checks.get(own_filter)
        outlet = None if check is None else check.knocks.pop(message_id, None)
        if check is not None and outlet is not None:
            check.came_back.add(outlet)
            if not self._missing(check):
                check.done.set()

    def close(self, reason: str) -> None:
        """End all connections, and let go of those who wait.  Idempotent."""
        self._outlets.close(reason)
        self._inlets.close(reason)
        with self._lock:
            checks = list(self._checks.values())
        for check in checks:
            check.done.set()


class _Nobody:
    """Whom to answer a published message."""

    def answer(self, peer: bytes, envelope: Envelope, *, patience: float = 0.0) -> bool:
        return False
