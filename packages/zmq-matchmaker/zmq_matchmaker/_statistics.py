# SPDX-License-Identifier: Apache-2.0
"""What a directory counts."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DirectoryStatistics"]


@dataclass(slots=True)
class DirectoryStatistics:
    """Counters since the directory was made, and its present state."""

    cold_lookups: int = 0
    """Lookups that had to wait for the source."""
    rounds: int = 0
    """Round trips for lookups."""
    writes: int = 0
    """Round trips for announcing and withdrawing."""
    changes: int = 0
    """Changes that the source reported by itself."""
    failures: int = 0
    """Round trips that failed."""
    reachable: bool = True
    """Whether the last round trip of either kind succeeded."""
    announced: int = 0
    """Entries that are kept known."""
    unwritten: int = 0
    """Those of them that the source has not taken yet."""
