# SPDX-License-Identifier: Apache-2.0
"""A message as its receiver sees it, with the ways to answer it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from zmq_core._envelope import Envelope, Flag, MessageType, Serializer
from zmq_core._key import TargetKey

if TYPE_CHECKING:
    from zmq_core._inbox import Inbox

__all__ = ["Answering", "Incoming"]


class Answering(Protocol):
    """Takes answers to the peer that a message came from."""

    def answer(self, peer: bytes, envelope: Envelope, *, patience: float = 0.0) -> bool: ...


class Incoming:
    """A message from `peer`.  Thread-safe."""

    __slots__ = ("_frontend", "_inbox", "envelope", "peer")

    def __init__(self, peer: bytes, envelope: Envelope, frontend: Answering) -> None:
        self.peer = peer
        self.envelope = envelope
        self._frontend = frontend
        self._inbox: Inbox | None = None

    @property
    def key(self) -> TargetKey:
        """The key that the message was sent to."""
        return TargetKey.decode(self.envelope.key)

    @property
    def body(self) -> bytes:
        """The message's body."""
        return self.envelope.body

    def accepted_by(self, inbox: Inbox) -> None:
        """Note that the message has a place in `inbox`."""
        self._inbox = inbox

    def acknowledge(self) -> None:
        """Tell the sender, if it wants to know, that the listener has the message.

        A CALL has its reply; the flag means nothing there.
        """
        if self.envelope.flags & Flag.ACK_WANTED and self.envelope.type is not MessageType.CALL:
            self._frontend.answer(self.peer, Envelope(type=MessageType.ACK, id=self.envelope.id))

    def release(self) -> None:
        """The application has picked the message up: its place in the queue is free.

        Idempotent for one thread; to be called once the message is being worked on.
        """
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            inbox.released()

    def reply(
        self,
        body: bytes,
        *,
        serializer: Serializer = Serializer.RAW,
        failed: bool = False,
        patience: float = 5.0,
    ) -> bool:
        """Answer a CALL; tried again for `patience` seconds while the peer does not read.

        Does not block.  Returns false if it is known by now that the peer has gone;
        an answer that cannot be sent is counted, and logged with a rate limit.

        :raises MessageTooLarge: `body` exceeds `max_message_size`.
        """
        return self._frontend.answer(
            self.peer,
            Envelope(
                type=MessageType.REPLY,
                id=self.envelope.id,
                body=body,
                serializer=serializer,
                flags=Flag.FAILED if failed else 0,
            ),
            patience=patience,
        )

    def heartbeat(self) -> bool:
        """Tell the caller that its CALL is still being worked on; false if it has gone."""
        return self._frontend.answer(
            self.peer, Envelope(type=MessageType.HEARTBEAT, id=self.envelope.id)
        )
