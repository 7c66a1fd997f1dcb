# SPDX-License-Identifier: Apache-2.0
"""All proxies of a node: which of them takes a message, and what comes back.

A message goes out by any proxy that is ready, in turn.  Its answer comes back by
the same one; by another, if that one has gone meanwhile.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from zmq_core._envelope import Envelope, MessageType, decode, encode
from zmq_core._errors import (
    CoreError,
    MalformedMessage,
    NackCode,
    NoProxy,
    NotDelivered,
    ProxyLost,
    QueueFull,
    Refused,
)
from zmq_core._linkcontext import LinkContext
from zmq_core._options import NodeOptions, check_size
from zmq_core._pending import FOREVER, Patience, PendingRequest
from zmq_core._uplink import ProxyAddress, Uplink

__all__ = ["Uplinks"]

LOG = logging.getLogger(__name__)

_ANSWERS: Final = frozenset(
    {MessageType.REPLY, MessageType.ACK, MessageType.NACK, MessageType.HEARTBEAT}
)
_REMEMBERED: Final = 4096
_RETRY_ANSWER: Final = 0.02
_LOOK_AGAIN: Final = 1.0
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 8.0


class _Asked:
    """A request that is out."""

    __slots__ = ("endpoint", "pending", "uplink")

    def __init__(self, pending: PendingRequest, endpoint: str) -> None:
        self.pending = pending
        self.endpoint = endpoint
        self.uplink: Uplink | None = None


class _Answering:
    """Answers a message by the uplink that it came by."""

    __slots__ = ("_uplink", "_uplinks")

    def __init__(self, uplinks: Uplinks, uplink: Uplink) -> None:
        self._uplinks = uplinks
        self._uplink = uplink

    def answer(self, peer: bytes, envelope: Envelope, *, patience: float = 0.0) -> bool:
        return self._uplinks.answer(self._uplink, peer, envelope, patience)


class Uplinks:
    """The uplinks of a node.  Thread-safe; times are in seconds."""

    def __init__(self, context: LinkContext, name: bytes, options: NodeOptions) -> None:
        self._context = context
        self._name = name
        self._options = options
        self._lock = threading.Lock()
        self._uplinks: dict[ProxyAddress, Uplink] = {}
        self._pauses: dict[ProxyAddress, tuple[float, float]] = {}
        """Of proxies whose uplink ended: until when they are left alone, and that pause."""
        self._leaving: list[Uplink] = []
        """To proxies that are no longer registered: only what they still bring is taken."""
        self._ready: tuple[Uplink, ...] = ()
        self._turn = itertools.count()
        self._asked: dict[bytes, _Asked] = {}
        self._casts: OrderedDict[bytes, str] = OrderedDict()
        self._gates: list[threading.Lock] = []
        self._closed = False
        self._pid = os.getpid()

    # -- which proxies ---------------------------------------------------------------

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
            self._pauses = {p: pause for p, pause in self._pauses.items() if p in wanted}
            new = []
            for proxy in sorted(wanted - set(self._uplinks)):
                if self._pauses.get(proxy, (0.0, 0.0))[0] <= now:
                    uplink = Uplink(proxy, self._context, self._name, self._take, self._changed)
                    self._uplinks[proxy] = uplink
                    new.append(uplink)
            self._settle()
        self._wake()
        for uplink in new:
            try:
                uplink.open()
            except NotDelivered as error:
                LOG.warning("cannot connect to the proxy %s: %s", uplink.proxy.name, error)

    @property
    def ready(self) -> int:
        """How many proxies can be used now."""
        return len(self._ready)

    def await_all(self, timeout: float) -> bool:
        """Wait until every proxy in use is ready or has failed; whether any is ready."""
        deadline = time.monotonic() + timeout
        while True:
            with self._in_line() as gate:
                waiting = [u for u in tuple(self._uplinks.values()) if not (u.ready or u.closed)]
                left = deadline - time.monotonic()
                if not waiting or left <= 0:
                    return bool(self._ready)
                gate.acquire(timeout=left)

    def _settle(self) -> None:
        """Work out who is ready.  Under the lock."""
        self._ready = tuple(uplink for uplink in self._uplinks.values() if uplink.ready)
        if not self._ready:
            # The matchmaker may have forgotten them all at once.
            self._ready = tuple(uplink for uplink in self._leaving if uplink.ready)

    def _changed(self, uplink: Uplink) -> None:
        lost = []
        with self._lock:
            if uplink.closed:
                lost = self._forget(uplink)
            elif uplink.ready:
                self._pauses.pop(uplink.proxy, None)
            self._settle()
        self._wake()
        for asked in lost:
            asked.pending.complete(ProxyLost(asked.endpoint, _loss(uplink)))

    def _forget(self, uplink: Uplink) -> list[_Asked]:
        """Take `uplink` out; the requests that went by it.  Under the lock."""
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
        lost = [message_id for message_id, a in self._asked.items() if a.uplink is uplink]
        return [self._asked.pop(message_id) for message_id in lost]

    # -- sending ---------------------------------------------------------------------

    def request(
        self,
        endpoint: str,
        peer: bytes,
        message_id: bytes,
        frames: Sequence[bytes],
        patience: Patience,
        send_deadline: float = FOREVER,
    ) -> Envelope:
        """Send a message to the peer of that routing id, by `send_deadline`; wait for its answer.

        A proxy that has no connection to the peer is passed over for the next.
        `endpoint` is how errors name the peer.

        :raises NotDelivered: the message has not reached the peer; NoProxy: it is not to blame.
        :raises ProxyLost: the proxy that it went by has gone.
        :raises RequestTimeout: out of patience.
        """
        refusal: CoreError | None = None
        refusing: set[Uplink] = set()
        deadline = min(send_deadline, patience.deadline)
        while True:
            asked = _Asked(PendingRequest(patience), endpoint)
            with self._lock:
                self._asked[message_id] = asked
            try:
                uplink = self._hand_over(endpoint, peer, frames, deadline, refusing)
                if uplink is None:
                    raise refusal or self._nobody(endpoint)
                self._sent(message_id, asked, uplink)
                asked.pending.wait()
            finally:
                with self._lock:
                    self._asked.pop(message_id, None)
            outcome = asked.pending.outcome
            if outcome is None:
                raise patience.error(time.monotonic(), endpoint)
            if isinstance(outcome, Envelope):
                return outcome
            if not isinstance(outcome, Refused) or outcome.code is not NackCode.UNROUTABLE:
                raise outcome
            refusal = outcome
            refusing.add(uplink)

    def send(
        self,
        endpoint: str,
        peer: bytes,
        message_id: bytes,
        frames: Sequence[bytes],
        deadline: float,
    ) -> None:
        """Hand a message to a proxy; should it come back, `returned` is told of `endpoint`.

        :raises NotDelivered: no proxy has taken it.
        """
        with self._lock:
            self._casts[message_id] = endpoint
            if len(self._casts) > _REMEMBERED:
                self._casts.popitem(last=False)
        if self._hand_over(endpoint, peer, frames, deadline, frozenset()) is None:
            raise self._nobody(endpoint)

    def _sent(self, message_id: bytes, asked: _Asked, uplink: Uplink) -> None:
        asked.pending.sign_of_life()
        with self._lock:
            asked.uplink = uplink
            lost = uplink.closed and self._asked.pop(message_id, None) is asked
        if lost:
            asked.pending.complete(ProxyLost(asked.endpoint, _loss(uplink)))

    def _hand_over(
        self,
        endpoint: str,
        peer: bytes,
        frames: Sequence[bytes],
        deadline: float,
        refusing: set[Uplink] | frozenset[Uplink],
    ) -> Uplink | None:
        """Give the message to a proxy that takes it; None if there is none but `refusing`."""
        message = [peer, self._name, *frames]
        patience = min(deadline, time.monotonic() + self._options.connect_timeout)
        uplink = self._offer(message, refusing)
        while uplink is None:
            with self._in_line() as gate:
                # Again, since it may have changed before we stood in line.
                uplink = self._offer(message, refusing)
                candidates = set(self._ready) - refusing
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
            self._wake()  # our sending may have taken the signal that there is room
        return uplink

    def _offer(
        self, message: Sequence[bytes], refusing: set[Uplink] | frozenset[Uplink]
    ) -> Uplink | None:
        for uplink in self._in_turn():
            if uplink not in refusing and uplink.send(message):
                return uplink
        return None

    def _connecting(self, refusing: set[Uplink] | frozenset[Uplink]) -> bool:
        """Whether it is worth waiting for a connection."""
        return not refusing and bool(self._uplinks)

    def _in_turn(self) -> Sequence[Uplink]:
        ready = self._ready
        if len(ready) < 2:
            return ready
        first = next(self._turn) % len(ready)
        return ready[first:] + ready[:first]

    @contextlib.contextmanager
    def _in_line(self) -> Iterator[threading.Lock]:
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

    def _wake(self) -> None:
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

    # -- what comes in, on the reactor's thread --------------------------------------

    def _take(self, uplink: Uplink, frames: list[bytes]) -> None:
        peer = frames[0]
        reception = self._context.reception
        answering = _Answering(self, uplink)
        try:
            envelope = decode(frames[1:])
        except MalformedMessage as error:
            reception.refuse_malformed(peer, error, answering)
            return
        if envelope.type in _ANSWERS:
            self._take_answer(envelope)
        elif reception.full:
            answering.answer(peer, envelope.refused(NackCode.QUEUE_FULL))
        else:
            reception.accept(peer, envelope, answering)

    def _take_answer(self, answer: Envelope) -> None:
        statistics = self._context.statistics
        with self._lock:
            if answer.type is MessageType.HEARTBEAT:
                alive = self._asked.get(answer.id)
                if alive is not None:
                    alive.pending.sign_of_life()
                return
            asked = self._asked.pop(answer.id, None)
            endpoint = self._casts.pop(answer.id, "")
        if answer.type is MessageType.NACK:
            statistics.nacks_received += 1
            message = answer.returned()
            if asked is not None:
                asked.pending.complete(_refusal(asked.endpoint, answer.nack_code))
            elif message is not None:
                self._context.returned(endpoint, message)
        elif asked is not None:
            asked.pending.complete(answer)
        else:
            statistics.late_replies += 1

    # -- answering, on any thread ----------------------------------------------------

    def answer(self, uplink: Uplink, peer: bytes, envelope: Envelope, patience: float) -> bool:
        """Send an answer by `uplink`, by another if that has gone, trying for `patience`.

        Does not block.  Returns false if it is known by now that it cannot be sent.

        :raises MessageTooLarge: the peer would not take it.
        """
        check_size(envelope.body, self._options)
        if self._pid != os.getpid():
            return False  # a fork's copy: the peer is the parent's
        frames = [peer, self._name, *encode(envelope)]
        return self._try_answer(uplink, frames, envelope.type, time.monotonic() + patience)

    def _try_answer(
        self, uplink: Uplink, frames: Sequence[bytes], kind: MessageType, deadline: float
    ) -> bool:
        if any(road.send(frames) for road in (self._in_turn() if uplink.closed else (uplink,))):
            return True
        if time.monotonic() + _RETRY_ANSWER < deadline and not self._closed:
            self._context.reactor.call_later(
                _RETRY_ANSWER, functools.partial(self._retry_answer, uplink, frames, kind, deadline)
            )
            return True
        self._context.statistics.replies_dropped += 1
        self._context.log.warning(
            ("answer", frames[0]),
            "dropped a %s to %r: no proxy takes it",
            kind.name,
            frames[0],
        )
        return False

    def _retry_answer(
        self, uplink: Uplink, frames: Sequence[bytes], kind: MessageType, deadline: float
    ) -> None:
        self._try_answer(uplink, frames, kind, deadline)

    def close(self, reason: str) -> None:
        """End all uplinks and fail what is unanswered.  Idempotent."""
        with self._lock:
            self._closed = True
            uplinks = [*self._uplinks.values(), *self._leaving]
            asked, self._asked = list(self._asked.values()), {}
            self._uplinks, self._leaving = {}, []
            self._settle()
        self._wake()
        for request in asked:
            request.pending.complete(ProxyLost(request.endpoint, reason))
        for uplink in uplinks:
            uplink.close(reason)


def _refusal(endpoint: str, code: NackCode) -> NotDelivered:
    if code is NackCode.QUEUE_FULL:
        return QueueFull(endpoint, "its queue, or that of a proxy for it, is full")
    return Refused(endpoint, code)


def _loss(uplink: Uplink) -> str:
    return f"the proxy {uplink.proxy.name}: {uplink.reason}"
