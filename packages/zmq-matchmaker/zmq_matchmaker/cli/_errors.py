# SPDX-License-Identifier: Apache-2.0
"""What a command raises by itself."""

from __future__ import annotations

from zmq_matchmaker import MatchmakerError

__all__ = ["Usage"]


class Usage(MatchmakerError):
    """The command line, or a file that it names, cannot be used; the message says what to write."""
