# SPDX-License-Identifier: Apache-2.0
"""Which server is tried next, for how long, and what the sender is told in the end."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from zmq_core import Latch, NackCode, NoProxy, NotDelivered, Refused
from zmq_matchmaker import Closed, Directory, Key, Record, Unavailable
from zmq_oslo_driver.addresses import Address
from zmq_oslo_driver.errors import CleanedUp
from zmq_oslo_driver.turns import Turns

__all__ = ["Attempts"]

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
_BRIEFLY: Final = 1.0
"""Seconds for which a server may not take a message, while others may be tried."""


class Attempts:
    """The servers to try for one message, until it is delivered, time or retries are out.

    `retry` is oslo.messaging's: None or -1 for as long as time allows, else the
    number of further rounds after a first that reached nobody.  `closing` is set
    when the transport is cleaned up, and ends the wait for somebody to listen.
    """

    def __init__(
        self,
        directory: Directory,
        turns: Turns,
        address: Address,
        deadline: float,
        retry: int | None,
        closing: Latch,
    ) -> None:
        self._directory = directory
        self._turns = turns
        self._address = address
        self._deadline = deadline
        self._rounds = None if retry is None or retry < 0 else retry + 1
        self._closing = closing
        self._nobody = ""
        self._failure = ""
        self._several = False
        self._in_round = 1
        self._last_round = False

    @property
    def problem(self) -> str:
        """Why nothing was delivered so far, for the error message."""
        last = f"last tried: {self._failure}" if self._failure else ""
        return "; ".join(filter(None, (self._nobody, last))) or "no time left"

    def left(self) -> float:
        """Seconds until the deadline, at least 0."""
        return max(0.0, self._deadline - time.monotonic())

    def patience(self) -> float:
        """Seconds for which the record that was given out last may let the message wait.

        All that is left if there is no other to try; else a share, and not long: one
        that does not read must not use up the time in which another takes the message.
        """
        left = self.left()
        if self._in_round == 1 and (self._last_round or not self._several):
            return left
        return min(left / self._in_round, _BRIEFLY)

    def nobody_listens(self) -> bool:
        """Whether the matchmaker says that nobody does; false if it cannot be asked."""
        try:
            return not self._directory.lookup(self._address.lookup, self.left())
        except Unavailable:
            return False

    def __iter__(self) -> Iterator[Record]:
        """Records to try; take the next only if the one before was not delivered to.

        :raises CleanedUp: the transport was, and nobody had taken the message.
        """
        records = self._look(self._directory.lookup)
        pause = _FIRST_PAUSE
        for round_ in itertools.count(1):
            self._last_round = round_ == self._rounds
            self._several = self._several or len(records) > 1
            ordered = self._turns.order(self._address.lookup, records)
            for position, record in enumerate(ordered):
                self._in_round = len(ordered) - position
                yield record
                if self.left() <= 0:
                    return
            if self._last_round or self.left() <= 0:
                return
            if self._closing.wait(min(pause * random.uniform(0.5, 1.0), self.left())):
                raise self._cleaned_up()
            if self.left() <= 0:
                return
            pause = min(pause * 2, _LONGEST_PAUSE)
            records = self._look(self._directory.refresh)

    def delivered(self, record: Record) -> None:
        """`record` was reached."""
        self._directory.ack(self._address.lookup, record)

    def failed(self, record: Record, error: NotDelivered) -> None:
        """`record` was not reached: others are tried first from now on."""
        self._failure = str(error)
        if isinstance(error, Refused) and error.code is NackCode.UNROUTABLE:
            self._failure += "; if it lives, does it have use_router_proxy = true, too?"
        if isinstance(error, NoProxy):
            return  # which says nothing of the server
        gone = isinstance(error, Refused) and error.code is NackCode.UNKNOWN_KEY
        self._directory.nack(self._address.lookup, record, gone=gone)

    def _look(self, ask: Callable[[Key, float | None], Sequence[Record]]) -> Sequence[Record]:
        try:
            records = ask(self._address.lookup, self.left())
        except Closed as error:
            raise self._cleaned_up() from error
        except Unavailable as error:
            # What is known is better than that there was no time to hear it again.
            if not self._nobody or self.left() > 0:
                self._nobody = f"the matchmaker cannot be asked: {error}"
            return ()
        self._nobody = "" if records else f"nobody listens on {self._address}"
        return records

    def _cleaned_up(self) -> CleanedUp:
        return CleanedUp(f"message to {self._address}: the transport was cleaned up")
