# SPDX-License-Identifier: Apache-2.0
"""A second chance for casts and notifications that came back from a stale route."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

from oslo_messaging import MessagingException

from zmq_core import Envelope, MessageType, RateLimitedLog
from zmq_matchmaker import Directory, Unavailable
from zmq_oslo_driver.addresses import Address
from zmq_oslo_driver.sender import Sender
from zmq_oslo_driver.statistics import Statistics

__all__ = ["Courier"]

_LIMIT: Final = 1000


class Courier:
    """Sends returned messages to another listener, on a thread that lives while there are some.

    A receiver refuses a message for a key that nobody listens on there any more,
    and a cast's sender has long gone on by then.  So a thread of the courier's
    own drops the stale route and tries the others.
    """

    def __init__(
        self,
        sender: Sender,
        directory: Directory,
        timeout: float,
        statistics: Statistics,
        log: RateLimitedLog,
    ) -> None:
        self._sender = sender
        self._directory = directory
        self._timeout = timeout
        self._statistics = statistics
        self._log = log
        self._lock = threading.Lock()
        self._waiting: deque[tuple[str, Envelope]] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False

    def post(self, endpoint: str, envelope: Envelope) -> None:
        """Take care of a message that `endpoint` returned.  Does not block."""
        with self._lock:
            if not self._closed and len(self._waiting) < _LIMIT:
                self._waiting.append((endpoint, envelope))
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._run, name="zmq-returned", daemon=True
                    )
                    self._thread.start()
                return
        self._lost(envelope, "the transport is closed" if self._closed else "too many came back")

    def close(self) -> None:
        """Send what is left to whoever is known, then end the thread."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                endpoint, envelope = self._waiting.popleft()
            try:
                self._resend(endpoint, envelope)
            except (MessagingException, Unavailable) as error:
                self._lost(envelope, str(error))

    def _resend(self, endpoint: str, envelope: Envelope) -> None:
        address = Address.of_message(envelope.type, envelope.key)
        timeout = 0.0 if self._closed else self._timeout
        for record in self._directory.lookup(address.lookup, timeout):
            if record.endpoint == endpoint:
                self._directory.nack(address.lookup, record, gone=True)
        if envelope.type is MessageType.NOTIFY:
            pool = address.wire.server
            records = self._directory.lookup(address.lookup, timeout)
            members = [record for record in records if record.pool == pool]
            self._sender.notify_pool(
                address, pool, members, envelope.body, timeout, envelope.serializer
            )
        else:
            self._sender.cast(
                address,
                envelope.body,
                self._sender.attempts(address, timeout),
                serializer=envelope.serializer,
            )
        self._statistics.casts_rerouted += 1

    def _lost(self, envelope: Envelope, why: str) -> None:
        self._statistics.casts_lost += 1
        self._log.warning(
            ("lost", envelope.key),
            "a %s for %s came back from a stale route and is lost: %s",
            envelope.type.name,
            Address.of_message(envelope.type, envelope.key),
            why,
        )
