# SPDX-License-Identifier: Apache-2.0
"""Fanouts and notifications: everybody, and one listener of each pool."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from oslo_messaging import MessageDeliveryFailure

from zmq_core import (
    MessageTooLarge,
    MessageType,
    NodeClosed,
    NoProxy,
    NotDelivered,
    QueueFull,
    RateLimitedLog,
)
from zmq_matchmaker import Closed, Key, Record, Unavailable
from zmq_oslo_driver.addresses import Address, notification_address
from zmq_oslo_driver.errors import CleanedUp
from zmq_oslo_driver.handover import Handover, too_large
from zmq_oslo_driver.proxies import Proxies
from zmq_oslo_driver.routing import Attempts
from zmq_oslo_driver.statistics import Statistics
from zmq_oslo_driver.turns import Turns

__all__ = ["Spreader"]

_BRIEFLY: Final = 0.5
"""Seconds for which a fanout waits for a server that did not answer lately."""


class Spreader:
    """Sends to many.  Thread-safe; times are in seconds.

    If `proxies` are publishing, fanouts go through them.
    """

    def __init__(
        self,
        handover: Handover,
        turns: Turns,
        statistics: Statistics,
        log: RateLimitedLog,
        proxies: Proxies | None,
    ) -> None:
        self._handover = handover
        self._turns = turns
        self._statistics = statistics
        self._log = log
        self._publishers = proxies if proxies is not None and proxies.publishing else None
        self._congested: dict[Key, set[str]] = {}
        """Endpoints that let a notification wait to no avail."""

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
            self._handover.node.publishers.publish(
                address.wire, body, timeout=attempts.left(), serializer=self._handover.serializer
            )
        except NoProxy as error:
            self._publishers.warn(error)
            return records
        except MessageTooLarge as error:
            raise too_large(address, error) from error
        except NodeClosed as error:
            raise CleanedUp(f"fanout to {address}: the transport was cleaned up") from error
        return [record for record in records if not record.subscriber]

    def _send_copies(
        self, address: Address, body: bytes, attempts: Attempts, records: Sequence[Record]
    ) -> None:
        by_process: dict[str, Record] = {}
        for record in records:  # those that are set aside come last
            by_process.setdefault(self._handover.name_of(record), record)
        self._handover.connect(records)  # all at once: the dead must not delay the living
        usable = set(self._handover.directory.lookup(address.lookup, 0.0)) if by_process else set()
        # One that is full or cannot be reached must not delay the others either: it is waited
        # for when these have their copies.
        slow = [
            record
            for record in by_process.values()
            if self._send_copy(record, address, body, 0.0) is not None
        ]
        for record in slow:
            # Those that did not answer lately come last, and are not waited for as long.
            patience = attempts.left() if record in usable else min(attempts.left(), _BRIEFLY)
            error = self._send_copy(record, address, body, patience)
            if error is not None:
                self._handover.blame(address, record, error)
                self._statistics.fanout_copies_lost += 1
                self._log.warning(
                    ("fanout", record.endpoint),
                    "a fanout to %s was not delivered: %s",
                    address,
                    error,
                )

    def _send_copy(
        self, record: Record, address: Address, body: bytes, patience: float
    ) -> NotDelivered | None:
        """Why it was not delivered within `patience`, if it was not."""
        try:
            self._handover.send(record, address, body, patience, MessageType.FANOUT)
        except NotDelivered as error:
            return error
        return None

    def notify(self, address: Address, body: bytes, timeout: float) -> None:
        """Send a copy to one listener of each pool, waiting `timeout` for each at the most.

        What nobody takes is counted, logged and dropped.
        """
        directory = self._handover.directory
        # A source that did not answer is not waited for again by each notification.
        patience = timeout if directory.reachable else 0.0
        try:
            usable = set(directory.lookup(address.lookup, patience))
            records = directory.everybody(address.lookup, patience)
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
            self._handover.connect(members)
        for record in self._turns.order(address.lookup, members, pool):
            patience = 0.0
            if record.endpoint not in stuck:
                patience = max(0.0, deadline - time.monotonic()) / able
                able -= 1
            try:
                self._handover.send(record, wire, body, patience, MessageType.NOTIFY)
            except NotDelivered as error:
                problem = str(error)
                if patience > 0:  # else this says nothing of the listener
                    self._handover.blame(address, record, error)
                if not isinstance(error, QueueFull):
                    congested.discard(record.endpoint)  # what was full was its connection
                elif patience > 0:
                    congested.add(record.endpoint)
            else:
                congested.discard(record.endpoint)
                self._handover.directory.ack(address.lookup, record)
                return
        self._drop_notification(wire, problem)

    def _everybody(self, address: Address, attempts: Attempts) -> Sequence[Record]:
        try:
            return self._handover.directory.everybody(address.lookup, attempts.left())
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
