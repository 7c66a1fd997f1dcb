# SPDX-License-Identifier: Apache-2.0
"""A thread that does one thing after the other, so that who gave it the work need not wait."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, TypeVar

__all__ = ["Worker"]

T = TypeVar("T")
_Job = tuple[Callable[[], Any], "Future[Any]"]


class Worker:
    """Starts its thread with the first work.  Thread-safe.

    Not an executor: Python ends those before the functions of `atexit`, in which
    a service still has to withdraw what it registered.
    """

    def __init__(self, name: str) -> None:
        self._name: Final = name
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._began: float | None = None

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Do `work` when what was given before is done."""
        future: Future[T] = Future()
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                thread.start()
                self._thread = thread
            self._jobs.put((work, future))
        return future

    def hangs(self, seconds: float) -> bool:
        """Whether it has been at the same work for longer than that."""
        began = self._began
        return began is not None and time.monotonic() - began > seconds

    def close(self) -> None:
        """End the thread after what it has begun; cancel the rest.  Idempotent."""
        with self._lock:
            thread, self._thread = self._thread, None
            with suppress(queue.Empty):
                while (job := self._jobs.get_nowait()) is not None:
                    job[1].cancel()
            self._jobs.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, future = job
            if not future.set_running_or_notify_cancel():
                continue
            self._began = time.monotonic()
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001  # told to whoever waits for it
                future.set_exception(error)
            else:
                future.set_result(result)
            finally:
                self._began = None
            del job, work, future
