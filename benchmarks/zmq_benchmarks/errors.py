# SPDX-License-Identifier: Apache-2.0
"""Why a benchmark could not be run."""

from __future__ import annotations

__all__ = ["BenchmarkError", "NotInstalled"]


class BenchmarkError(Exception):
    """Something failed that the benchmark needs; the message says what and what to do."""


class NotInstalled(BenchmarkError):
    """A server is not installed: what needs it is skipped, with a line that says so."""
