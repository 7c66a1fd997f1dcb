# SPDX-License-Identifier: Apache-2.0
"""How the processes of the harness learn that they are to end."""

from __future__ import annotations

import signal
import time
from typing import Final

_LOOK_AGAIN: Final = 0.05


class AskedToEnd:
    """Whether SIGTERM has come; for the main thread.

    `threading.Event` is nothing that a handler may set: where the signal interrupts the
    event's own `wait`, `set` waits for ever for the lock that this holds.
    """

    def __init__(self) -> None:
        self._asked = False
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_: object) -> None:
        self._asked = True

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it comes within that time, or has come before."""
        end = None if seconds is None else time.monotonic() + seconds
        while not self._asked and (end is None or time.monotonic() < end):
            time.sleep(_LOOK_AGAIN)
        return self._asked
