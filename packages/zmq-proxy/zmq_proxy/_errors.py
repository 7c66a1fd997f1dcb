# SPDX-License-Identifier: Apache-2.0
"""Every error that this package raises."""

from __future__ import annotations

__all__ = ["ForwardingFailed", "InvalidConfiguration", "ProxyError"]


class ProxyError(Exception):
    """Root of all errors of zmq_proxy."""


class InvalidConfiguration(ProxyError, ValueError):
    """An option has a value that cannot work; the message begins with the option."""

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option
        self.problem = problem


class ForwardingFailed(ProxyError):
    """The thread that forwards has ended by itself; the process is of no use any more."""
