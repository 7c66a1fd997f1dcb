# SPDX-License-Identifier: Apache-2.0
"""The thread on which a transport is ended, and who may wait for it how long.

Services clean up in handlers of signals.  Python runs those on the main thread, between
two instructions of whatever that is at: if it is at a call of ours it may hold any of our
locks, and would wait for itself.  So what ends something is done by another thread.  It
has the locks when the interrupted code goes on; and neither a handler that raises nor
whoever kills the thread that called `cleanup()` can leave half of the work undone.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final

from zmq_core import may_wait

__all__ = ["PATIENCE", "Ender", "interrupts_us"]

PATIENCE: Final = 1.0
"""Seconds for which code waits that has interrupted ours."""
_LOOK: Final = 1.0
_PACKAGES: Final = ("zmq_core", "zmq_matchmaker", "zmq_oslo_driver")


class _Work:
    """A function, and what became of it."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()

    def wait(self, seconds: float | None, thread: threading.Thread) -> bool:
        """Whether it was done, by `thread`, within that time or before that ended."""
        if seconds is not None:
            return self.done.acquire(timeout=seconds)
        while not self.done.acquire(timeout=_LOOK):
            if not thread.is_alive():
                return self.done.acquire(blocking=False)
        return True

    def run(self) -> None:
        try:
            self._function()
        except BaseException as error:  # noqa: BLE001 - raised where it was asked for
            self.error = error
        finally:
            self.done.release()


class Ender:
    """Does one thing after the other on its thread, which waits from `start` until `over`.

    It is started early: at the end there may be none to be had.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._works: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()  # `put` is reentrant
        self._over = False
        self._thread = threading.Thread(target=self._run, name="zmq-end", daemon=True)

    def start(self) -> None:
        """Start the thread, if that was not done."""
        if self._thread.ident is None:
            self._thread.start()

    def over(self) -> None:
        """There is nothing left to end but the thread, after what it does now."""
        self._over = True
        self._works.put(None)

    def do(self, function: Callable[[], None]) -> None:
        """Have `function` called, and wait until it has returned; raises what it raises.

        Where the calling thread was interrupted in the midst of our code, for `PATIENCE`
        seconds only: it may be what the function waits for, which then goes on when this
        has returned.  In eventlet's hub, where nobody can wait, not at all.
        """
        here = self._pid != os.getpid() or self._thread.ident == threading.get_ident()
        interrupts = not here and interrupts_us()
        if interrupts and self._over:
            return
        # One that is being started by the code that was interrupted is not alive yet.
        there = interrupts or (self._thread.is_alive() and not self._over)
        if here or not there:
            function()
            return
        work = _Work(function)
        self._works.put(work)
        if not may_wait():
            return
        if not work.wait(PATIENCE if interrupts else None, self._thread):
            return
        if self._over and not interrupts:
            self._thread.join()
        if work.error is not None:
            raise work.error

    def _run(self) -> None:
        while (work := self._works.get()) is not None:
            work.run()
            del work
        while not self._works.empty():  # somebody was quicker than `over`
            late = self._works.get()
            if late is not None:
                late.run()


def interrupts_us() -> bool:
    """Whether the caller was entered, through others' code, from code of ours."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_ours(frame):
        frame = frame.f_back  # on the way here
    while frame is not None:
        if _is_ours(frame):
            return True
        frame = frame.f_back
    return False


def _is_ours(frame: FrameType) -> bool:
    name: str = frame.f_globals.get("__name__", "")
    return name.partition(".")[0] in _PACKAGES
