# SPDX-License-Identifier: Apache-2.0
"""The sending side: call, cast, fanout and notification over a node and a directory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from oslo_messaging import MessageDeliveryFailure, MessagingTimeout

from zmq_core import (
    Envelope,
    MessageTooLarge,
    MessageType,
    Node,
    NodeClosed,
    NoProxy,
    NotDelivered,
    PeerLost,
    ProxyLost,
    QueueFull,
    RateLimitedLog,
    RequestTimeout,
    Serializer,
)
from zmq_matchmaker import Closed, Directory, Key, Record, Unavailable
from zmq_oslo_driver.addresses import Address, notification_address
from zmq_oslo_driver.errors import CleanedUp, SerializationError, ServerLost
from zmq_oslo_driver.proxies import Proxies
from zmq_oslo_driver.routing import Attempts, Turns
from zmq_oslo_driver.settings import Acks

if TYPE_CHECKING:
    from zmq_oslo_driver.statistics import Statistics

__all__ = ["Sender"]

_BRIEFLY: Final = 0.5
"""Seconds for which a fanout waits for a server that did not answer lately."""


class Sender:
    """Sends to whoever listens.  Thread-safe; times are in seconds.

    When `closing` is set, those who wait for somebody to listen get `CleanedUp`.  If
    `proxies` are routing everything goes through them, and nothing is connected to
    directly; if they are publishing, fanouts do.  `await_room` waits while casts to an
    address have come back and are not delivered yet.
    """

    def __init__(
        self,
        node: Node,
        directory: Directory,
        serializer: Serializer,
        statistics: Statistics,
        log: RateLimitedLog,
        closing: threading.Event,
        acks: Acks | None,
        proxies: Proxies | None,
        await_room: Callable[[Address, float], bool],
    ) -> None:
        self._node = node
        self._directory = directory
        self._serializer = serializer
        self._statistics = statistics
        self._log = log
        self._closing = closing
        self._acks = acks
        self._routers = proxies if proxies is not None and proxies.routing else None
        self._publishers = proxies if proxies is not None and proxies.publishing else None
        self._await_room = await_room
        self._turns = Turns()
        self._congested: dict[Key, set[str]] = {}
        """Endpoints that let a notification wait to no avail."""

    def attempts(self, address: Address, timeout: float, retry: int | None = None) -> Attempts:
        """The servers to try for a message to `address` within `timeout`."""
        deadline = time.monotonic() + timeout
        return Attempts(self._directory, self._turns, address, deadline, retry, self._closing)

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
                reply = self._node.request(
                    record.endpoint,
                    address.wire,
                    body,
                    timeout=attempts.left(),
                    send_timeout=attempts.patience(),
                    monitor=monitor,
                    serializer=self._serializer,
                    routing_id=self._routing_id(record),
                    repeatable=self._acks is not None and self._routers is not None,
                )
            except NotDelivered as error:
                attempts.failed(record, error)
            except PeerLost as error:
                self._blame(address, record, error)
                raise ServerLost(f"call to {address}: {error}") from error
            except RequestTimeout as error:
                raise MessagingTimeout(f"call to {address}: {error}") from error
            except MessageTooLarge as error:
                raise _too_large(address, error) from error
            except NodeClosed as error:
                raise CleanedUp(f"call to {address}: the transport was cleaned up") from error
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
        if self._routers is not None and not self._await_room(address, attempts.left()):
            raise MessageDeliveryFailure(
                f"cast to {address} not delivered: the queues of those who listen are still full"
            )
        if self._acks is not None:
            self._cast_acknowledged(address, body, attempts, self._acks)
            return
        for record in attempts:
            try:
                self._hand_over(record, address, body, attempts.patience(), MessageType.CAST)
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
        message_id = self._node.new_id()
        unconfirmed = ""
        tries = 0
        for record in attempts:
            timeout = min(acks.timeout * acks.multiplier**tries, attempts.left())
            try:
                self._hand_over(
                    record, address, body, timeout, MessageType.CAST, message_id=message_id
                )
            except NotDelivered as error:
                attempts.failed(record, error)
            except (PeerLost, RequestTimeout) as error:
                unconfirmed = f"; it may have been executed, as it was sent before: {error}"
                self._blame(address, record, error)
                tries += 1
                if tries > acks.attempts:
                    break
            else:
                attempts.delivered(record)
                return
        problem = attempts.problem if tries <= acks.attempts else f"not acknowledged {tries} times"
        raise MessageDeliveryFailure(f"cast to {address} not delivered: {problem}{unconfirmed}")

    def fanout(self, address: Address, body: bytes, attempts: Attempts) -> None:
        """Send to every process that listens; success also if there is none.

        Those that subscribe get it from a publisher, which gets it once; others, and all
        if there is no publisher, get a copy each.  A copy that cannot be delivered is
        counted and logged.

        :raises MessageDeliveryFailure: the matchmaker could not be asked in time.
        """
        records = self._publish(address, body, attempts, self._everybody(address, attempts))
        if records:
            self._send_copies(address, body, attempts, records)

    def _publish(
        self, address: Address, body: bytes, attempts: Attempts, records: Sequence[Record]
    ) -> Sequence[Record]:
        """Give a fanout to a publisher; the records of those that it does not reach by that."""
        if self._publishers is None or not any(record.subscriber for record in records):
            return records
        self._publishers.start()
        try:
            self._node.publish(
                address.wire, body, timeout=attempts.left(), serializer=self._serializer
            )
        except NoProxy as error:
            self._publishers.warn(error)
            return records
        except MessageTooLarge as error:
            raise _too_large(address, error) from error
        except NodeClosed as error:
            raise CleanedUp(f"fanout to {address}: the transport was cleaned up") from error
        return [record for record in records if not record.subscriber]

    def _send_copies(
        self, address: Address, body: bytes, attempts: Attempts, records: Sequence[Record]
    ) -> None:
        by_endpoint = {record.endpoint: record for record in records}
        self._connect(records)  # all at once: the dead must not delay the living
        usable = set(self._directory.lookup(address.lookup, 0.0)) if by_endpoint else set()
        for endpoint, record in by_endpoint.items():
            # Those that did not answer lately come last, and are not waited for as long.
            patience = attempts.left() if record in usable else min(attempts.left(), _BRIEFLY)
            try:
                self._hand_over(record, address, body, patience, MessageType.FANOUT)
            except NotDelivered as error:
                self._blame(address, record, error)
                self._statistics.fanout_copies_lost += 1
                self._log.warning(
                    ("fanout", endpoint), "a fanout to %s was not delivered: %s", address, error
                )

    def notify(self, address: Address, body: bytes, timeout: float) -> None:
        """Send a copy to one listener of each pool, waiting `timeout` for each at the most.

        What nobody takes is counted, logged and dropped.
        """
        try:
            usable = set(self._directory.lookup(address.lookup, timeout))
            records = self._directory.everybody(address.lookup, timeout)
        except Unavailable as error:
            self._drop_notification(address, f"the matchmaker cannot be asked: {error}")
            return
        if not records:
            self._drop_notification(address, "nobody listens")
        if self._congested.get(address.lookup):
            self._congested[address.lookup] &= {record.endpoint for record in records}
        for pool in sorted({record.pool for record in records}):
            members = [record for record in records if record.pool == pool]
            preferred = [record for record in members if record in usable]
            self._notify_pool(address, pool, preferred or members, body, timeout)

    def _notify_pool(
        self,
        address: Address,
        pool: str,
        members: Sequence[Record],
        body: bytes,
        timeout: float,
    ) -> None:
        """Send to one of `members`, the listeners of `pool`; drop it if none takes it."""
        wire = notification_address(address.wire.exchange, address.wire.topic, pool)
        deadline = time.monotonic() + timeout
        problem = "nobody listens in this pool"
        # One that did not read in time is not waited for again until it reads.
        congested = self._congested.setdefault(address.lookup, set())
        stuck = congested.copy()  # other threads change it
        able = sum(record.endpoint not in stuck for record in members)
        if len(members) > 1:
            self._connect(members)
        for record in self._turns.order(address.lookup, members, pool):
            patience = 0.0
            if record.endpoint not in stuck:
                patience = max(0.0, deadline - time.monotonic()) / able
                able -= 1
            try:
                self._hand_over(record, wire, body, patience, MessageType.NOTIFY)
            except NotDelivered as error:
                problem = str(error)
                if patience > 0:  # else this says nothing of the listener
                    self._blame(address, record, error)
                if not isinstance(error, QueueFull):
                    congested.discard(record.endpoint)  # what was full was its connection
                elif patience > 0:
                    congested.add(record.endpoint)
            else:
                congested.discard(record.endpoint)
                self._directory.ack(address.lookup, record)
                return
        self._drop_notification(wire, problem)

    def hand_on(self, address: Address, records: Sequence[Record], envelope: Envelope) -> str:
        """Send a message that came back to the first of `records` that takes it at once.

        Returns why none does, or nothing.  None is blamed: a connection may be on its way.
        """
        kind = envelope.type if envelope.type is MessageType.NOTIFY else MessageType.CAST
        problem = f"nobody else listens on {address}"
        for record in self._turns.order(address.lookup, records, address.wire.server):
            try:
                self._hand_over(record, address, envelope.body, 0.0, kind, envelope.serializer)
            except NotDelivered as error:
                problem = str(error)
            else:
                self._directory.ack(address.lookup, record)
                return ""
        return problem

    def _hand_over(
        self,
        record: Record,
        address: Address,
        body: bytes,
        timeout: float,
        kind: MessageType,
        serializer: Serializer | None = None,
        message_id: bytes = b"",
    ) -> None:
        """Send it to one process; with `message_id`, and wait until it has acknowledged it."""
        try:
            self._node.send(
                record.endpoint,
                address.wire,
                body,
                timeout=timeout,
                kind=kind,
                serializer=self._serializer if serializer is None else serializer,
                acknowledged=bool(message_id),
                message_id=message_id,
                routing_id=self._routing_id(record),
            )
        except MessageTooLarge as error:
            raise _too_large(address, error) from error
        except NodeClosed as error:
            raise CleanedUp(f"message to {address}: the transport was cleaned up") from error

    def _connect(self, records: Iterable[Record]) -> None:
        if self._routers is None:
            self._node.connect({record.endpoint for record in records})

    def _routing_id(self, record: Record) -> str:
        """The name by which proxies know the process; empty where it is connected to directly."""
        if self._routers is None:
            return ""
        self._routers.start()
        return record.node

    def _blame(self, address: Address, record: Record, error: Exception) -> None:
        """Prefer others to `record`, unless a proxy is what failed."""
        if not isinstance(error, NoProxy | ProxyLost):
            self._directory.nack(address.lookup, record)

    def _everybody(self, address: Address, attempts: Attempts) -> Sequence[Record]:
        try:
            return self._directory.everybody(address.lookup, attempts.left())
        except Closed as error:
            raise CleanedUp(f"fanout to {address}: the transport was cleaned up") from error
        except Unavailable as error:
            raise MessageDeliveryFailure(
                f"fanout to {address} not delivered: the matchmaker cannot be asked: {error}"
            ) from error

    def _drop_notification(self, address: Address, why: str) -> None:
        self._statistics.notifications_dropped += 1
        self._log.warning(
            ("notification", address), "a notification on %s is dropped: %s", address, why
        )


def _too_large(address: Address, error: MessageTooLarge) -> SerializationError:
    return SerializationError(
        f"message to {address}: {error} ([oslo_messaging_zmq] zmq_max_message_size)"
    )
