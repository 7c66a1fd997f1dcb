# SPDX-License-Identifier: Apache-2.0
"""What waits for the directory's thread."""

from __future__ import annotations

import threading

from zmq_matchmaker._errors import MatchmakerError

__all__ = ["Request"]


class Request:
    """A caller that waits for the thread."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: MatchmakerError | None = None

    def finish(self, error: MatchmakerError | None = None) -> None:
        """Let the caller go on."""
        self.error = error
        self.done.set()
