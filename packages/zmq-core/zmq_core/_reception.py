# SPDX-License-Identifier: Apache-2.0
"""What a node does with the messages that reach it, whatever road they came by.

Each goes to a listener's queue or is refused.  One whose listeners' queues are
full is held, in order, and what is for others goes past it: a server that is
busy must not keep its process from serving the calls that it makes there
itself.  What is held is bounded too.  When that much is, nothing more is read,
and the high-water marks and TCP carry that back to the senders.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Final

from zmq_core._envelope import ID_SIZE, Envelope, MessageType, decode
from zmq_core._errors import MalformedMessage, NackCode
from zmq_core._held import REPEATABLE, HeldRequests
from zmq_core._inbox import Directory
from zmq_core._incoming import Answering, Incoming
from zmq_core._ratelimit import RateLimitedLog
from zmq_core._reactor import Reactor
from zmq_core._sockets import NOTHING
from zmq_core._statistics import Statistics

__all__ = ["Reception"]

_HELD_MOST: Final = 1000
_HELD_BYTES: Final = 64 * 2**20
_ACCEPTED: Final = frozenset(
    {MessageType.CALL, MessageType.CAST, MessageType.FANOUT, MessageType.NOTIFY}
)

_Attempt = Callable[[], bool]


class Reception:
    """Where all sockets of a node that take messages in bring them.

    `take` and `deliver_held` are for the reactor's thread.  The sources are called
    there, the first of them in turn, when they may read again after `full` was true;
    they only see to it that they do so.
    """

    def __init__(
        self,
        directory: Directory,
        reactor: Reactor,
        statistics: Statistics,
        log: RateLimitedLog,
        remember: float,
    ) -> None:
        self.requests = HeldRequests(remember)
        """Those that are not answered yet, and may be asked after or come again."""
        self._directory = directory
        self._reactor = reactor
        self._statistics = statistics
        self._log = log
        self._held: dict[Hashable, deque[tuple[_Attempt, int]]] = {}
        self._scheduled = False
        self.sources: deque[Callable[[], None]] = deque()
        self.held = 0
        """Messages that wait for room in a listener's queue."""
        self._held_bytes = 0

    @property
    def full(self) -> bool:
        """Whether so much is held that nothing more is to be read."""
        return self.holds(1)

    def holds(self, times: int) -> bool:
        """Whether so many times that much is held."""
        return self.held >= times * _HELD_MOST or self._held_bytes >= times * _HELD_BYTES

    @property
    def room(self) -> int:
        """Octets of messages' bodies that may be held until `full`."""
        return _HELD_BYTES - self._held_bytes

    def resume(self) -> None:
        """There may be room: deliver what is held, and have the sources read.  Any thread."""
        if not self._scheduled:
            self._scheduled = True
            self._reactor.call_soon(self._make_room)

    def _make_room(self) -> None:
        self._scheduled = False
        self.deliver_held()
        if self.full:
            return
        # Where there is room for one message only, each source must get it now and then.
        self.sources.rotate(-1)
        for source in tuple(self.sources):
            source()

    def deliver_held(self) -> None:
        """Deliver what did not fit before and does now."""
        for group, waiting in list(self._held.items()):
            while waiting and waiting[0][0]():
                _, size = waiting.popleft()
                self.held -= 1
                self._held_bytes -= size
            if not waiting:
                del self._held[group]

    def take(self, frames: list[bytes], answering: Answering) -> None:
        """Deal with `[peer] [header] [key] [body]`; answers go back by `answering`."""
        self._statistics.received += 1
        peer = frames[0]
        if frames[1:] == NOTHING:
            self._statistics.malformed += 1
            return
        try:
            envelope = decode(frames[1:])
        except MalformedMessage as error:
            self.refuse_malformed(peer, error, answering)
            return
        if envelope.type is MessageType.PROBE:
            answering.answer(peer, self.requests.reply_to_probe(envelope))
            return
        if envelope.type not in _ACCEPTED:
            self._statistics.misdirected += 1
            self._log.warning(
                ("misdirected", peer),
                "dropped a %s from %r: nothing was asked of it",
                envelope.type.name,
                peer,
            )
            return
        if envelope.flags & REPEATABLE:
            answer = self.requests.add(peer, envelope, time.monotonic())
            if answer is not None:
                answering.answer(peer, answer)
                return
        self.accept(peer, envelope, answering)

    def accept(self, peer: bytes, envelope: Envelope, answering: Answering) -> None:
        """Bring a request to its listeners, or refuse it."""
        inboxes = self._directory.find(envelope.type, envelope.key)
        incoming = Incoming(peer, envelope, answering)
        if not inboxes:
            self._refuse_unknown(incoming, answering)
        elif envelope.type is MessageType.FANOUT:
            for inbox in inboxes:
                copy = Incoming(peer, envelope, answering)
                if inbox in self._held or not inbox.settle(copy):
                    self._hold(inbox, functools.partial(inbox.settle, copy), envelope)
        else:
            group = inboxes[0] if len(inboxes) == 1 else envelope.key
            if group in self._held or not any(inbox.offer(incoming) for inbox in inboxes):
                self._hold(group, lambda: self._dispatch(incoming, answering), envelope)

    def accept_published(self, publisher: bytes, envelope: Envelope, answering: Answering) -> None:
        """Bring a message to its listeners; without one it is dropped, as the sender has no need
        to know: a subscription ends a while after its listener."""
        if self._directory.find(envelope.type, envelope.key):
            self.accept(publisher, envelope, answering)
        else:
            self._statistics.unknown_key += 1

    def _hold(self, group: Hashable, attempt: _Attempt, envelope: Envelope) -> None:
        """Try it again, behind what already waits in `group`, when there may be room."""
        size = len(envelope.body)
        self._held.setdefault(group, deque()).append((attempt, size))
        self.held += 1
        self._held_bytes += size

    def _dispatch(self, incoming: Incoming, answering: Answering) -> bool:
        """Hand over or refuse; false if it must still wait for room in a queue."""
        inboxes = self._directory.find(incoming.envelope.type, incoming.envelope.key)
        if not inboxes:
            self._refuse_unknown(incoming, answering)
            return True
        return any(inbox.offer(incoming) for inbox in inboxes)

    def _refuse_unknown(self, incoming: Incoming, answering: Answering) -> None:
        self._statistics.unknown_key += 1
        self._log.warning(
            ("unknown", incoming.envelope.key),
            "refused a %s from %r for %s: nobody listens on that here; the sender's route is stale",
            incoming.envelope.type.name,
            incoming.peer,
            incoming.key,
        )
        answering.answer(incoming.peer, incoming.envelope.refused(NackCode.UNKNOWN_KEY))

    def refuse_malformed(self, peer: bytes, error: MalformedMessage, answering: Answering) -> None:
        self._statistics.malformed += 1
        self._log.warning(("malformed", peer), "refused a message from %r: %s", peer, error)
        message_id = error.message_id or bytes(ID_SIZE)
        nack = Envelope(type=MessageType.NACK, id=message_id, code=error.code)
        answering.answer(peer, nack)
