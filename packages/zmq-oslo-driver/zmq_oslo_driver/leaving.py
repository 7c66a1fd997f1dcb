# SPDX-License-Identifier: Apache-2.0
"""What a process does that ends without `cleanup()`, and in which order."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable
from typing import Any, Final

__all__ = ["at_exit"]

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
    module: Any = sys.modules.get(_WORKERS)
    wait = getattr(module, _WAIT_FOR_WORKERS, None)
    if wait is not None:
        atexit.unregister(wait)
        atexit.register(wait)
    atexit.register(stop)
