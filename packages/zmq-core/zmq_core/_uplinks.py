# SPDX-License-Identifier: Apache-2.0
"""All proxies of a node: which of them takes a message, and what comes back.

A message goes out by any proxy that is ready, in turn.  Its answer comes back by
the same one; by another, if that one has gone meanwhile.  So the end of an uplink
fails no request as long as others are left: whether it is lost, probes find out.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from zmq_core._answers import Answers
from zmq_core._asking import AskedRequests
from zmq_core._envelope import ID_SIZE, Envelope, MessageType, decode
from zmq_core._errors import (
    CoreError,
    MalformedMessage,
    NackCode,
    NoProxy,
    NotDelivered,
    PeerUnreachable,
    ProxyLost,
    QueueFull,
    Refused,
)
from zmq_core._flow import Flows
from zmq_core._linkcontext import LinkContext
from zmq_core._options import NodeOptions
from zmq_core._pending import FOREVER, Patience, PendingRequest
from zmq_core._ring import Ring
from zmq_core._roster import Address, ProxyAddress, Roster
from zmq_core._routed import Asked, probe_of
from zmq_core._silent import SilentPeers
from zmq_core._uplink import Uplink

__all__ = ["Uplinks"]

LOG = logging.getLogger(__name__)

_ANSWERS: Final = frozenset(
    {MessageType.REPLY, MessageType.ACK, MessageType.NACK, MessageType.HEARTBEAT}
)
_REMEMBERED: Final = 4096
_MARK_AGAIN: Final = 1.0


class Uplinks:
    """The uplinks of a node.  Thread-safe; times are in seconds."""

    def __init__(self, context: LinkContext, name: bytes, options: NodeOptions) -> None:
        self._context = context
        self._name = name
        self._options = options
        self._lock = threading.Lock()
        self._roster = Roster(self._uplink, context.log, self._ended, no_other_way=True)
        self._ring = Ring(self._roster, options.connect_timeout)
        self._silent = SilentPeers()
        self._requests = AskedRequests(
            name, self._roster, self._ring, self._silent, context.reactor, options
        )
        self._flows = Flows()
        self._casts: OrderedDict[bytes, bytes] = OrderedDict()
        """To whom the last ones went."""
        self._closed = False

    def use(self, proxies: Iterable[ProxyAddress], timeout: float) -> int:
        """See `Roster.use` and `Roster.await_all`; how many proxies are ready."""
        self._roster.use(proxies)
        return self._roster.await_all(timeout)

    def _uplink(self, proxy: Address, changed: Callable[[Uplink], None]) -> Uplink:
        assert isinstance(proxy, ProxyAddress)
        return Uplink(proxy, self._context, self._name, self._take, changed)

    # -- sending ---------------------------------------------------------------------

    def request(
        self,
        endpoint: str,
        peer: bytes,
        message_id: bytes,
        frames: Sequence[bytes],
        patience: Patience,
        send_deadline: float = FOREVER,
        *,
        repeatable: bool = False,
    ) -> Envelope:
        """Send a message to the peer of that routing id, by `send_deadline`; wait for its answer.

        A proxy that has no connection to the peer is passed over for the next.  What is
        `repeatable` is sent again if it was lost with a proxy.  `endpoint` is how errors
        name the peer.

        :raises NotDelivered: the message has not reached the peer; NoProxy: it is not to blame.
        :raises PeerLost: the peer has gone; ProxyLost: it was lost with a proxy.
        :raises RequestTimeout: out of patience.
        """
        refusal: CoreError | None = None
        lost: ProxyLost | None = None
        refusing: set[Uplink] = set()
        losing: set[Uplink] = set()
        message = [peer, self._name, *frames]
        deadline = min(send_deadline, patience.deadline)
        self._hear(endpoint, peer, deadline)
        while True:
            asked = Asked(PendingRequest(patience), peer, endpoint)
            self._requests.add(message_id, asked)
            try:
                # What was lost goes by another proxy, if one takes it: that one may stand still.
                uplink = self._ring.offer(message, refusing | losing) if losing else None
                if uplink is None:
                    uplink = self._hand_over(message, deadline, endpoint, refusing, lost)
                if uplink is None:
                    assert refusal is not None
                    raise refusal
                self._requests.sent(message_id, asked, uplink)
                asked.pending.wait()
            finally:
                self._requests.forget(message_id)
            outcome = asked.pending.outcome
            if outcome is None:
                raise patience.error(time.monotonic(), endpoint)
            if isinstance(outcome, Envelope):
                return outcome
            if repeatable and isinstance(outcome, ProxyLost) and not self._closed:
                refusal = lost = outcome
                refusing, losing = set(), {uplink}
            elif isinstance(outcome, Refused) and outcome.code is NackCode.UNROUTABLE:
                refusal = lost or outcome
                refusing.add(uplink)
            elif lost is not None and isinstance(outcome, NotDelivered):
                raise lost from outcome  # what was sent before it may have arrived
            else:
                raise outcome

    def _hand_over(
        self,
        message: Sequence[bytes],
        deadline: float,
        endpoint: str,
        refusing: Collection[Uplink],
        lost: ProxyLost | None,
    ) -> Uplink | None:
        """See `Ring.hand_over`; raises `lost` if the message may have arrived before."""
        try:
            return self._ring.hand_over(message, deadline, endpoint, refusing)
        except NoProxy as error:
            if lost is None:
                raise
            raise lost from error

    def send(
        self,
        endpoint: str,
        peer: bytes,
        message_id: bytes,
        frames: Sequence[bytes],
        deadline: float,
    ) -> None:
        """Hand a message to a proxy; should it come back, `returned` is told of `peer`.

        :raises NotDelivered: no proxy has taken it.
        """
        self._hear(endpoint, peer, deadline)
        with self._lock:
            self._casts[message_id] = peer
            if len(self._casts) > _REMEMBERED:
                self._casts.popitem(last=False)
        message = [peer, self._name, *frames]
        while True:
            with self._lock:
                full = self._flows.full(peer, self._roster.ready)
            uplink = self._ring.hand_over(message, deadline, endpoint, full)
            if uplink is not None:
                break
            self._await_flow(endpoint, peer, deadline)
        with self._lock:
            mark = self._flows.sent(uplink, peer, message_id)
        if mark:
            uplink.send(probe_of(peer, self._name, message_id))

    def _hear(self, endpoint: str, peer: bytes, deadline: float) -> None:
        """Ask a peer that has fallen silent whether it is back.

        :raises PeerUnreachable: it has not answered within a heartbeat interval.
        """
        heard = self._silent.suspect(peer)
        if heard is None:
            return
        self._ring.offer(probe_of(peer, self._name, bytes(ID_SIZE)))
        if not heard.wait(min(self._options.heartbeat_interval, deadline - time.monotonic())):
            raise PeerUnreachable(endpoint, "it has given no sign of life by the proxies for long")

    def _await_flow(self, endpoint: str, peer: bytes, deadline: float) -> None:
        """Wait until more may be sent to `peer`."""
        with self._roster.in_line() as gate:
            ready = self._roster.ready
            with self._lock:
                full = self._flows.full(peer, ready)
            if len(full) < len(ready):
                return
            left = deadline - time.monotonic()
            if left > 0 and gate.acquire(timeout=min(left, _MARK_AGAIN)):
                return
        with self._lock:
            markers = self._flows.markers(peer, ready)
        for uplink, marker in markers:  # one may have been lost, or not sent for want of room
            uplink.send(probe_of(peer, self._name, marker))
        if left <= 0:
            raise QueueFull(endpoint, "what was sent before has not been taken yet; it is full")

    # -- what comes in, on the reactor's thread --------------------------------------

    def _take(self, uplink: Uplink, frames: list[bytes]) -> None:
        peer = frames[0]
        self._silent.heard(peer)
        reception = self._context.reception
        answering = Answers(uplink, self._ring, self._context, self._name, self._options)
        try:
            envelope = decode(frames[1:])
        except MalformedMessage as error:
            reception.refuse_malformed(peer, error, answering)
            return
        if envelope.type in _ANSWERS:
            self._take_answer(peer, envelope, uplink)
            return
        self._context.statistics.received += 1
        if envelope.type is MessageType.PROBE:
            answering.answer(peer, reception.requests.reply_to_probe(envelope))
        else:
            answer = reception.requests.add(peer, envelope, time.monotonic())
            if answer is None and reception.full:
                answer = envelope.refused(NackCode.QUEUE_FULL)
            if answer is None:
                reception.accept(peer, envelope, answering)
            else:
                answering.answer(peer, answer)

    def _take_answer(self, sender: bytes, answer: Envelope, uplink: Uplink) -> None:
        statistics = self._context.statistics
        awaited = self._requests.take(sender, answer, uplink)
        answers_probe = answer.type is MessageType.NACK and answer.subject == MessageType.PROBE
        with self._lock:
            receiver = self._casts.get(answer.id, b"")
            through = answers_probe and self._flows.confirmed(answer.id)
        if through:
            self._roster.wake()
        if answer.type is MessageType.NACK and not answers_probe:
            statistics.nacks_received += 1
            message = answer.returned()
            if not awaited and message is not None:
                full = answer.nack_code is NackCode.QUEUE_FULL
                refuser = "" if full else receiver.decode()
                # Not here, where what else has come waits.
                self._context.reactor.call_soon(
                    functools.partial(self._context.returned, refuser, message)
                )
        if not awaited and answer.type in (MessageType.REPLY, MessageType.ACK):
            statistics.late_replies += 1

    def _ended(self, last: Uplink) -> None:
        with self._lock:
            self._flows.forget(last)
        self._requests.ended(last)

    def close(self, reason: str) -> None:
        """End all uplinks and fail what is unanswered.  Idempotent."""
        self._closed = True
        self._requests.close(reason)
        self._silent.clear()
        self._roster.close(reason)
