# SPDX-License-Identifier: Apache-2.0
"""What a service of `Type=notify` tells systemd: that it is ready, lives, and stops.

See sd_notify(3): one datagram of `NAME=value` lines to the socket that
`NOTIFY_SOCKET` names.  Without systemd, nothing is told.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from typing import Final

__all__ = ["Notifier"]

LOG = logging.getLogger(__name__)

_US: Final = 1_000_000


class Notifier:
    """Tells the service manager that the variables of `environment` name.  For one thread.

    That it cannot be told is logged, not raised: the proxy is of use all the same.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        watched = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watched = watched and environment.get("WATCHDOG_USEC", "0") != "0"
        self._status = ""

    def ready(self, status: str) -> None:
        """It forwards, and has registered or tried to."""
        self._status = status
        self._tell("READY=1", f"STATUS={status}")

    def lives(self, status: str, *, well: bool) -> None:
        """To be called while it runs; the watchdog hears of it only while all is `well`."""
        lines = ["WATCHDOG=1"] if self._watched and well else []
        if status != self._status:
            self._status = status
            lines.append(f"STATUS={status}")
        if lines:
            self._tell(*lines)

    def stopping(self, status: str, patience: float) -> None:
        """It ends, within `patience` seconds, which may be more than the unit grants."""
        extension = f"EXTEND_TIMEOUT_USEC={int(patience * _US)}"
        self._tell("STOPPING=1", f"STATUS={status}", extension)

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as own:
                own.setblocking(False)
                own.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            LOG.warning("cannot tell the service manager %s: %s", lines[0], error)


def _address(name: str) -> str:
    """The address of a socket by what stands in the environment; empty if there is none.

    What begins with `@` has no file: it is an abstract address, which begins with NUL.
    """
    return "\0" + name[1:] if name.startswith("@") else name
