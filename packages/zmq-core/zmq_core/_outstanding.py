# SPDX-License-Identifier: Apache-2.0
"""The requests that are out on one connection, and whose answer a message is.  No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from zmq_core._envelope import Envelope, MessageType, decode
from zmq_core._errors import CoreError, MalformedMessage, NackCode, QueueFull, Refused
from zmq_core._pending import PendingRequest
from zmq_core._ratelimit import RateLimitedLog
from zmq_core._statistics import Statistics

__all__ = ["Answered", "Outstanding"]

_ANSWERS: Final = frozenset({MessageType.REPLY, MessageType.ACK, MessageType.NACK})

Answered = tuple[PendingRequest, Envelope | CoreError]
"""A request, and the outcome to complete it with."""


class Outstanding:
    """Requests by their message id.  Not thread-safe: the connection's lock guards it.

    `returned` is told of a message that came back with NACK and that nobody waits for.
    """

    def __init__(
        self,
        endpoint: str,
        statistics: Statistics,
        log: RateLimitedLog,
        returned: Callable[[Envelope], None],
    ) -> None:
        self._endpoint = endpoint
        self._statistics = statistics
        self._log = log
        self._returned = returned
        self._pending: dict[bytes, PendingRequest] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, message_id: bytes, pending: PendingRequest) -> None:
        """`pending` was sent."""
        self._pending[message_id] = pending

    def forget(self, message_id: bytes) -> None:
        """Nobody waits for this answer any more."""
        self._pending.pop(message_id, None)

    def clear(self) -> list[PendingRequest]:
        """All that is unanswered; forgets it."""
        pending, self._pending = self._pending, {}
        return list(pending.values())

    def take(self, frames: Sequence[bytes]) -> Answered | None:
        """Understand a message; who it completes, if anybody."""
        try:
            envelope = decode(frames)
        except MalformedMessage as error:
            self._statistics.malformed += 1
            self._log.warning(
                ("malformed", self._endpoint),
                "refused a message from %s: %s",
                self._endpoint,
                error,
            )
            return None
        if envelope.type is MessageType.HEARTBEAT:
            alive = self._pending.get(envelope.id)
            if alive is not None:
                alive.sign_of_life()
            return None
        if envelope.type not in _ANSWERS:
            self._statistics.misdirected += 1
            self._log.warning(
                ("misdirected", self._endpoint),
                "dropped a %s from %s: it is no answer",
                envelope.type.name,
                self._endpoint,
            )
            return None
        pending = self._pending.pop(envelope.id, None)
        if envelope.type is MessageType.NACK:
            return self._take_nack(envelope, pending)
        if pending is None:
            self._statistics.late_replies += 1
            return None
        return pending, envelope

    def _take_nack(self, nack: Envelope, pending: PendingRequest | None) -> Answered | None:
        self._statistics.nacks_received += 1
        if pending is not None:
            if nack.nack_code is NackCode.QUEUE_FULL:
                return pending, QueueFull(
                    self._endpoint, "a proxy's queue for the receiver is full"
                )
            return pending, Refused(self._endpoint, nack.nack_code)
        message = nack.returned()
        if message is not None:
            self._returned(message)
        elif nack.nack_code in (NackCode.UNSUPPORTED_VERSION, NackCode.MALFORMED):
            # A peer that could not read a message cannot bring it back either.
            self._log.warning(
                ("refused", self._endpoint),
                "%s refused a message (%s); it is lost, if nobody waited for its answer",
                self._endpoint,
                nack.nack_code.name.lower().replace("_", " "),
            )
        return None
