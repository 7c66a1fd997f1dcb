# SPDX-License-Identifier: Apache-2.0
"""Hanging up on newcomers before the process runs out of descriptors.

libzmq does not: where `accept` fails for want of one, the connection stays in the
listening socket's queue, and the I/O thread tries again at once and for ever.
Nothing can be opened any more either, such as a registry's file or a connection
to Redis, so that the process's records would expire.

The system always gives out the lowest free descriptor, so the number of a new
connection's tells how many are in use.  One that is too near to the limit is
ended here at once; the rest of the way back to a free descriptor is libzmq's own.
Should something else have used up even those, a spare one is given up, so that
those who wait can be let in and sent away.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import socket
from contextlib import suppress
from typing import Final

import zmq

from zmq_core._ratelimit import RateLimitedLog

__all__ = ["Newcomers"]

_RESERVE: Final = 32
"""Descriptors that connections leave for all else that the process opens."""
_ADVICE: Final = "raise it (LimitNOFILE of systemd, ulimit -n)"


class Newcomers:
    """Is told by the monitor of a listening socket whom libzmq has let in.

    `advice` is what the log tells to do about a limit that was reached.  To be used
    by one thread at a time, and closed at the end.
    """

    EVENTS: Final = int(zmq.EVENT_ACCEPTED | zmq.EVENT_ACCEPT_FAILED)
    """What the monitor is to tell of."""

    def __init__(self, logger: logging.Logger, advice: str = _ADVICE) -> None:
        self.turned_away = 0
        """Connections that were ended here."""
        self._log = RateLimitedLog(logger)
        self._advice = advice
        self._spare: int | None = None
        self._keep_spare()

    def take(self, event: int, value: int, port: int) -> None:
        """What the monitor of the socket that listens on `port` said."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if event == zmq.EVENT_ACCEPT_FAILED:
            self._log.warning(
                "failed", "cannot accept a connection: %s; trying again", os.strerror(value)
            )
            if value == errno.EMFILE:
                self._give_up_spare()
        elif self._too_near(value, limit) or not self._keep_spare():
            self._give_up_spare()
            self._turn_away(value, port, limit)
            self._keep_spare()

    def _too_near(self, descriptor: int, limit: int) -> bool:
        reserve = min(_RESERVE, limit // 2)
        return limit != resource.RLIM_INFINITY and descriptor >= limit - reserve

    def _turn_away(self, descriptor: int, port: int, limit: int) -> None:
        """End a connection whose `descriptor` is libzmq's own: it sees the end and closes it.

        It may have ended by itself, and something else have the number by now.  So it is
        looked at before, and a descriptor of our own is made of it, if one is left.
        """
        try:
            own = _duplicate(descriptor)
            connection = socket.socket(fileno=own)
        except OSError:
            return
        try:
            if connection.getsockname()[1] != port:
                return
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has ended by itself
        finally:
            if own == descriptor:
                connection.detach()
            else:
                connection.close()
        self.turned_away += 1
        self._log.warning(
            "full",
            "hung up on a new connection: the process may have %d open descriptors and has nearly "
            "as many; %s",
            limit,
            self._advice,
        )

    def _give_up_spare(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def _keep_spare(self) -> bool:
        """Whether there is one; if not, it is tried again with the next connection."""
        if self._spare is None:
            with suppress(OSError):
                self._spare = os.eventfd(0, os.EFD_CLOEXEC)
        return self._spare is not None

    def close(self) -> None:
        """Give back the spare descriptor.  Idempotent."""
        self._give_up_spare()


def _duplicate(descriptor: int) -> int:
    """Another descriptor for the same, or `descriptor` if none is left."""
    try:
        return os.dup(descriptor)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        return descriptor
