# SPDX-License-Identifier: Apache-2.0
"""A second chance for casts and notifications that came back from a stale route."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from typing import Final

from zmq_core import Envelope, Latch, MalformedMessage, MessageType, RateLimitedLog, TargetKey
from zmq_matchmaker import Directory, Unavailable
from zmq_oslo_driver.addresses import Address
from zmq_oslo_driver.lines import Lines, Returned
from zmq_oslo_driver.sender import Sender
from zmq_oslo_driver.statistics import Statistics

__all__ = ["Courier"]

_LIMIT: Final = 1000
_REMEMBERED: Final = 4096
_FULL_PAUSE: Final = 0.05
"""Seconds after which those are tried again for which a queue was full."""
_FULL_PATIENCE: Final = 30.0
"""Seconds at least for which casts for which a queue was full are kept, from the last time.

Their senders were told of success, and new ones wait until these are gone.
"""


class Courier:
    """Sends returned messages to another listener, on a thread that lives while there are some.

    A receiver refuses a message for a key that nobody listens on there any more,
    and a cast's sender has long gone on by then.  So a thread of the courier's
    own drops the stale route and tries the others.  It waits for none of them, nor
    for the matchmaker: what finds nobody now is tried again a little later, until
    `send_timeout` or, of a notification, `notify_timeout` seconds after it came back for
    the first time from somebody who does not listen: a stale record that nobody withdraws
    must not keep it going for ever.  What found a queue full has longer: its turn comes.
    """

    def __init__(
        self,
        sender: Sender,
        directory: Directory,
        send_timeout: float,
        notify_timeout: float,
        statistics: Statistics,
        log: RateLimitedLog,
    ) -> None:
        self._sender = sender
        self._directory = directory
        self._send_timeout = send_timeout
        self._notify_timeout = notify_timeout
        self._statistics = statistics
        self._log = log
        # Entered by the lock: in the Condition's own code the handler of a signal may raise, and
        # leave it locked for ever.  Only the courier's own thread waits for it.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._lines = Lines(_LIMIT)
        self._gone = Latch()
        """Set, and replaced, when one of them has been dealt with."""
        self._deadlines: OrderedDict[bytes, float] = OrderedDict()
        """By the id of what came back lately."""
        self._thread: threading.Thread | None = None
        self._closed = False

    def post(self, refuser: str, envelope: Envelope) -> None:
        """Take care of a message that the process of that endpoint or routing id returned.

        Without one nobody is to blame: a queue was full, say.  Does not block.
        """
        notification = envelope.type is MessageType.NOTIFY
        now = time.monotonic()
        patience = self._notify_timeout if notification else self._send_timeout
        if not refuser and not notification:
            patience = max(patience, _FULL_PATIENCE)
        due = now if refuser else now + _FULL_PAUSE
        with self._lock:
            deadline = now + patience
            if refuser:
                deadline = self._deadlines.setdefault(envelope.id, deadline)
                if len(self._deadlines) > _REMEMBERED:
                    self._deadlines.popitem(last=False)
            over = now > deadline
            if (
                not over
                and not self._closed
                and self._lines.add(Returned(refuser, envelope, deadline), due)
            ):
                self._changed.notify_all()
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="zmq-returned", daemon=True)
                    thread.start()
                    self._thread = thread
                return
        why = "the transport is closed" if self._closed else "too many came back"
        self._lost(envelope, "nobody has taken it in time" if over else why)

    def await_room(self, address: Address, timeout: float) -> bool:
        """Wait until no casts to `address` that came back are left; false if some still are."""
        encoded = address.wire.encoded
        deadline = time.monotonic() + timeout
        while True:
            gone = self._gone  # taken before the look, so that nothing is missed in between
            if self._closed or not self._lines.holds(MessageType.CAST, encoded):
                return True
            if not gone.wait(deadline - time.monotonic()):
                return False

    def close(self) -> None:
        """Try what is left once more, with what is known now, and end the thread."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        self._gone.set()
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while (message := self._next()) is not None:
            problem = self._try(message)
            with self._lock:
                again = problem and not self._closed
                if again and self._lines.postpone(message, time.monotonic()):
                    continue
                self._lines.done(message)
                gone, self._gone = self._gone, Latch()
            gone.set()
            if problem:
                self._lost(message.envelope, problem)
            else:
                self._statistics.casts_rerouted += 1

    def _next(self) -> Returned | None:
        """Wait for the next message that is due; None if there is none left."""
        with self._lock:
            while len(self._lines):
                seconds = self._lines.due - time.monotonic()
                if seconds <= 0 or self._closed:
                    return self._lines.first()
                self._changed.wait(seconds)
            self._thread = None
            return None

    def _try(self, message: Returned) -> str:
        """Why nobody takes the message now; nothing if somebody has."""
        try:
            return self._hand_on(message)
        except Unavailable as error:
            return f"the matchmaker cannot be asked: {error}"
        except Exception as error:  # noqa: BLE001 - the messages behind it must not be lost with it
            self._log.log(
                logging.ERROR,
                ("courier", type(error)),
                "a message that %s returned cannot be sent on",
                message.refuser,
                error=error,
            )
            message.deadline = 0.0  # it would fail again
            return f"{type(error).__name__}: {error}"

    def _hand_on(self, message: Returned) -> str:
        envelope = message.envelope
        address = Address.of_message(envelope.type, envelope.key)
        records = []
        for record in self._directory.everybody(address.lookup, 0.0):
            if envelope.type is MessageType.NOTIFY and record.pool != address.wire.server:
                continue
            if message.refuser in (record.endpoint, record.node):
                self._directory.nack(address.lookup, record, gone=True)
            else:
                records.append(record)
        message.refuser = ""  # should it listen again, it is as good as any other
        return self._sender.hand_on(address, records, envelope)

    def _lost(self, envelope: Envelope, why: str) -> None:
        if envelope.type is MessageType.NOTIFY:
            self._statistics.notifications_dropped += 1
        else:
            self._statistics.casts_lost += 1
        self._log.warning(
            ("lost", envelope.key),
            "a %s for %s came back from a stale route and is lost: %s",
            envelope.type.name,
            _described(envelope),
            why,
        )


def _described(envelope: Envelope) -> str:
    try:
        return str(TargetKey.decode(envelope.key))
    except MalformedMessage:
        return repr(envelope.key)
