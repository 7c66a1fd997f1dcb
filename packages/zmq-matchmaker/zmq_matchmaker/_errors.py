# SPDX-License-Identifier: Apache-2.0
"""Every error that this package raises."""

from __future__ import annotations

__all__ = [
    "AccessDenied",
    "Closed",
    "InvalidRecord",
    "InvalidURL",
    "MalformedTable",
    "MatchmakerError",
    "NotSupported",
    "Unavailable",
    "UnknownMatchmaker",
]


class MatchmakerError(Exception):
    """Root of all errors of zmq_matchmaker."""


class InvalidURL(MatchmakerError, ValueError):
    """A part of a matchmaker URL cannot work; the message names the part."""


class InvalidRecord(MatchmakerError, ValueError):
    """A key or record holds text that no backend can write, such as a lone surrogate."""


class UnknownMatchmaker(MatchmakerError, LookupError):
    """No backend of that name is installed; the message lists those that are."""


class MalformedTable(MatchmakerError, ValueError):
    """A static table cannot be read; the message begins with `path:line:`."""

    def __init__(self, path: str, line: int, problem: str) -> None:
        super().__init__(f"{path}:{line}: {problem}")
        self.path = path
        self.line = line
        self.problem = problem


class NotSupported(MatchmakerError):
    """The backend cannot do this, now or later."""


class Unavailable(MatchmakerError):
    """The backend's server or folder cannot be used now; trying again later is worth while."""


class AccessDenied(Unavailable):
    """The server is there but refuses us: password, user, or a forbidden command."""


class Closed(Unavailable):
    """The directory was closed, or belongs to another process: trying again is of no use."""
