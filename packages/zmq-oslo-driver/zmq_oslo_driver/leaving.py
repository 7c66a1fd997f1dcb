# SPDX-License-Identifier: Apache-2.0
"""What a process does that ends without `cleanup()`, and in which order."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from multiprocessing import parent_process, util
from typing import Any, Final

__all__ = ["at_exit", "at_worker_exit"]

_WORKERS: Final = "futurist._thread"
"""Where the threads of oslo.messaging's servers come from."""
_WAIT_FOR_WORKERS: Final = "_clean_up"
"""What waits there, at exit, until they have done their work."""


def at_exit(stop: Callable[[], object], close: Callable[[], object]) -> None:
    """Have `stop` called, then what servers work on be done, then `close` called.

    Python calls such functions from the last to the first.  futurist's is there
    before ours in every service that has loaded oslo.service, and would find
    nothing any more to send replies with: it is put between them.  Where it
    is loaded later it comes first by itself.
    """
    atexit.register(close)
    wait = _wait_for_workers()
    if wait is not None:
        atexit.unregister(wait)
        atexit.register(wait)
    atexit.register(stop)


def at_worker_exit(stop: Callable[[], object], close: Callable[[], object]) -> None:
    """Have the same done if this process is one of multiprocessing's; to be called in it.

    Those call nothing that atexit was given before they were forked.
    """
    global _prepared
    if parent_process() is None or _prepared == os.getpid():
        return

    def leave() -> None:
        stop()
        wait = _wait_for_workers()
        if wait is not None:
            wait()
        close()

    util.Finalize(None, leave, exitpriority=0)
    _prepared = os.getpid()


_prepared = 0
"""The process that does so at its end."""


def _wait_for_workers() -> Callable[[], object] | None:
    module: Any = sys.modules.get(_WORKERS)
    return getattr(module, _WAIT_FOR_WORKERS, None)
