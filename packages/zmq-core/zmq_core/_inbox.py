# SPDX-License-Identifier: Apache-2.0
"""Who listens here: from the target key on a message to a bounded queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from zmq_core._envelope import MessageType
from zmq_core._incoming import Incoming
from zmq_core._key import TargetKey

__all__ = ["NOTIFICATIONS", "REQUESTS", "Directory", "Inbox", "Listening"]

DEFAULT_BACKLOG: Final = 1000

REQUESTS: Final = frozenset({MessageType.CALL, MessageType.CAST, MessageType.FANOUT})
NOTIFICATIONS: Final = frozenset({MessageType.NOTIFY})


class Inbox:
    """The bounded queue of one listener.

    A message counts from the moment it is accepted until the application has
    picked it up (`Incoming.release`); `backlog` is the most that may count.
    The messages themselves go to `on_message`, called on an I/O thread, which
    must not block; what it raises goes to `failed`.  Thread-safe.
    """

    def __init__(
        self,
        on_message: Callable[[Incoming], None],
        backlog: int,
        room: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._on_message = on_message
        self._failed = failed
        self._backlog = backlog
        self._room = room
        self._lock = threading.Lock()
        self._waiting = 0
        self._accepted = 0
        self._refused = False
        self._closed = False

    def close(self) -> None:
        """Accept nothing more; what was accepted stays with the application."""
        with self._lock:
            self._closed = True

    @property
    def waiting(self) -> int:
        """Messages accepted and not yet picked up."""
        return self._waiting

    @property
    def accepted(self) -> int:
        """Messages accepted since the beginning."""
        return self._accepted

    def offer(self, incoming: Incoming) -> bool:
        """Accept `incoming`, or return false if the queue is full."""
        with self._lock:
            if self._closed:
                return False
            if self._waiting >= self._backlog:
                self._refused = True
                return False
            self._waiting += 1
            self._accepted += 1
        incoming.accepted_by(self)
        try:
            self._on_message(incoming)
        except Exception as error:  # noqa: BLE001 - logged and counted by `failed`
            # The application's bug must cost neither the messages that were read
            # with this one nor, for ever, this one's place in the queue.
            incoming.release()
            self._failed(error)
            return True
        incoming.acknowledge()
        return True

    def settle(self, incoming: Incoming) -> bool:
        """Like `offer`, but a listener that has stopped needs no copy: true."""
        return self.offer(incoming) or self._closed

    def released(self) -> None:
        """A message was picked up: there is room for another."""
        with self._lock:
            self._waiting -= 1
            wanted, self._refused = self._refused, False
        if wanted:
            self._room()


class Listening:
    """A listener's place on the node; `close` ends it."""

    def __init__(
        self, inbox: Inbox, drain: Callable[[], None], remove: Callable[[Inbox], None]
    ) -> None:
        self._inbox = inbox
        self._drain = drain
        self._remove = remove

    @property
    def waiting(self) -> int:
        """Messages accepted and not yet picked up by the application."""
        return self._inbox.waiting

    def await_quiet(self, quiet: float, most: float) -> None:
        """Wait until nothing was accepted for `quiet` s; for `most` s if there is always something.

        For a listener that is to be closed and that nobody is told of any more.  What was
        sent before has then been read, as far as there was room for it: senders that have
        ended could not send it again.  Longer if the I/O thread is held up, as `close` is.
        """
        end = time.monotonic() + most
        before = -1
        while before != self._inbox.accepted and (left := end - time.monotonic()) > 0:
            before = self._inbox.accepted
            time.sleep(min(quiet, left))  # nothing tells that nothing comes
            # The I/O thread may have had no turn since.  Once it is through with what it was at,
            # twice it has looked at its sockets in between.
            self._drain()
            self._drain()

    def close(self) -> None:
        """Accept nothing more: later messages are refused.  Idempotent, any thread.

        When it returns, `on_message` is not running and will not be called again.
        """
        self._remove(self._inbox)


class Directory:
    """The listeners of this node, by message type and encoded key.  Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Replaced, never changed, so that the I/O thread reads it without the lock.
        self._groups: dict[tuple[MessageType, bytes], tuple[Inbox, ...]] = {}
        self._turns: dict[bytes, int] = {}

    def add(self, key: TargetKey, types: Iterable[MessageType], inbox: Inbox) -> None:
        """Let `inbox` receive messages of `types` for `key`."""
        with self._lock:
            groups = dict(self._groups)
            for type_ in types:
                groups[type_, key.encoded] = (*groups.get((type_, key.encoded), ()), inbox)
            self._groups = groups

    def remove(self, inbox: Inbox) -> None:
        """Let `inbox` receive nothing more."""
        with self._lock:
            groups = {}
            for address, inboxes in self._groups.items():
                rest = tuple(other for other in inboxes if other is not inbox)
                if rest:
                    groups[address] = rest
            self._groups = groups
            keys = {encoded for _, encoded in groups}
            self._turns = {key: turn for key, turn in self._turns.items() if key in keys}

    def clear(self) -> None:
        """Remove and close all."""
        with self._lock:
            inboxes = {inbox for group in self._groups.values() for inbox in group}
            self._groups = {}
            self._turns = {}
        for inbox in inboxes:
            inbox.close()

    def find(self, type_: MessageType, key: bytes) -> tuple[Inbox, ...]:
        """The inboxes that a message may go to, the one whose turn it is first.

        Listeners of one topic in one process take turns, as those of different
        processes do.  Only the I/O thread calls this.
        """
        inboxes = self._groups.get((type_, key), ())
        if len(inboxes) < 2:
            return inboxes
        turn = self._turns.get(key, 0)
        self._turns[key] = turn + 1
        turn %= len(inboxes)
        return inboxes[turn:] + inboxes[:turn]
