# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C, SIGTERM and a closed terminal: one way out, which nothing cuts short."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Turns signals into KeyboardInterrupt, except while something is being started or ended.

    Belongs to the main thread, like Python's signal handlers.
    """

    def __init__(self) -> None:
        self._holds = 0
        self._pending = False

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Signals are seen within the block, also one that came since bootstrap.py blocked them.

        After the block they have no effect: the last words are said whole.
        """
        try:
            for number in SIGNALS:
                # nohup means what it says.
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                    signal.signal(number, self._interrupted)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            yield
        finally:
            self._holds += 1

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """A signal that comes within the block has its effect at the block's end."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            if self._pending and not self._holds:
                self._pending = False
                raise KeyboardInterrupt

    def _interrupted(self, *_: object) -> None:
        if self._holds:
            self._pending = True
        else:
            raise KeyboardInterrupt
