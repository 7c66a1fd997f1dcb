# SPDX-License-Identifier: Apache-2.0
"""Calls and casts: one server of several, tried in turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from oslo_messaging import MessageDeliveryFailure, MessagingTimeout

from zmq_core import Envelope, Latch, MessageType, NotDelivered, PeerLost, RequestTimeout
from zmq_matchmaker import Record
from zmq_oslo_driver.addresses import Address
from zmq_oslo_driver.errors import ServerLost
from zmq_oslo_driver.handover import Handover
from zmq_oslo_driver.routing import Attempts
from zmq_oslo_driver.settings import Acks
from zmq_oslo_driver.turns import Turns

__all__ = ["Sender"]


class Sender:
    """Sends to one of those who listen.  Thread-safe; times are in seconds.

    When `closing` is set, those who wait for somebody to listen get `CleanedUp`.
    `await_room` waits while casts to an address have come back and are not delivered yet.
    """

    def __init__(
        self,
        handover: Handover,
        acks: Acks | None,
        turns: Turns,
        closing: Latch,
        await_room: Callable[[Address, float], bool],
    ) -> None:
        self._handover = handover
        self._acks = acks
        self._turns = turns
        self._closing = closing
        self._await_room = await_room

    def attempts(self, address: Address, timeout: float, retry: int | None = None) -> Attempts:
        """The servers to try for a message to `address` within `timeout`."""
        deadline = time.monotonic() + min(timeout, threading.TIMEOUT_MAX)
        directory = self._handover.directory
        return Attempts(directory, self._turns, address, deadline, retry, self._closing)

    def call(
        self, address: Address, body: bytes, attempts: Attempts, monitor: float | None
    ) -> Envelope:
        """Send a request and return the reply.

        :raises MessagingTimeout: no answer in time; says why, as far as is known.
        :raises ServerLost: the server died while it held the request.
        :raises MessageDeliveryFailure: the retries are used up.
        """
        for record in attempts:
            try:
                reply = self._handover.request(
                    record,
                    address,
                    body,
                    timeout=attempts.left(),
                    send_timeout=attempts.patience(),
                    monitor=monitor,
                    repeatable=self._acks is not None,
                )
            except NotDelivered as error:
                attempts.failed(record, error)
            except PeerLost as error:
                self._handover.blame(address, record, error)
                raise ServerLost(f"call to {address}: {error}") from error
            except RequestTimeout as error:
                raise MessagingTimeout(f"call to {address}: {error}") from error
            else:
                attempts.delivered(record)
                return reply
        if attempts.left() > 0:
            raise MessageDeliveryFailure(f"call to {address} not delivered: {attempts.problem}")
        raise MessagingTimeout(
            f"call to {address} timed out before anybody took it: {attempts.problem}"
        )

    def cast(
        self,
        address: Address,
        body: bytes,
        attempts: Attempts,
    ) -> None:
        """Hand a message to a live connection to one listener; with acks, until it says so.

        :raises MessageDeliveryFailure: nobody could be reached in time, or with the retries.
        """
        # A proxy does not slow down who sends to a full queue, it sends back what does not fit.
        if self._handover.routed and not self._await_room(address, attempts.left()):
            raise MessageDeliveryFailure(
                f"cast to {address} not delivered: earlier ones have come back"
            )
        if self._acks is not None:
            self._cast_acknowledged(address, body, attempts, self._acks)
            return
        for record in attempts:
            try:
                self._handover.send(record, address, body, attempts.patience(), MessageType.CAST)
            except NotDelivered as error:
                attempts.failed(record, error)
            else:
                attempts.delivered(record)
                return
        raise MessageDeliveryFailure(f"cast to {address} not delivered: {attempts.problem}")

    def _cast_acknowledged(
        self, address: Address, body: bytes, attempts: Attempts, acks: Acks
    ) -> None:
        """Send a message, also to several servers in turn, until one acknowledges it.

        It has the same id each time, so that none executes it twice.
        """
        message_id = self._handover.node.new_id()
        unconfirmed = ""
        tries = 0
        for record in attempts:
            timeout = min(acks.timeout * acks.multiplier**tries, attempts.left())
            try:
                self._handover.send(
                    record,
                    address,
                    body,
                    timeout,
                    MessageType.CAST,
                    message_id=message_id,
                    acknowledged=True,
                    send_timeout=attempts.patience(),
                )
            except NotDelivered as error:
                attempts.failed(record, error)
            except (PeerLost, RequestTimeout) as error:
                unconfirmed = f"; it may have been executed, as it was sent before: {error}"
                self._handover.blame(address, record, error)
                tries += 1
                if tries > acks.attempts:
                    break
            else:
                attempts.delivered(record)
                return
        problem = attempts.problem if tries <= acks.attempts else f"not acknowledged {tries} times"
        raise MessageDeliveryFailure(f"cast to {address} not delivered: {problem}{unconfirmed}")

    def hand_on(self, address: Address, records: Sequence[Record], envelope: Envelope) -> str:
        """Send a message that came back to the first of `records` that takes it at once.

        It keeps its id.  Returns why none does, or nothing.  None is blamed: a connection
        may be on its way.
        """
        kind = envelope.type if envelope.type is MessageType.NOTIFY else MessageType.CAST
        problem = f"nobody else listens on {address}"
        for record in self._turns.order(address.lookup, records, address.wire.server):
            try:
                self._handover.send(
                    record,
                    address,
                    envelope.body,
                    0.0,
                    kind,
                    envelope.serializer,
                    message_id=envelope.id,
                )
            except NotDelivered as error:
                problem = str(error)
            else:
                self._handover.directory.ack(address.lookup, record)
                return ""
        return problem
