# SPDX-License-Identifier: Apache-2.0
"""What the driver counts beyond what its node counts."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Statistics"]


@dataclass(slots=True)
class Statistics:
    """Counters since the runtime was made; each only grows."""

    notifications_dropped: int = 0
    """Notifications, or copies for a pool, that no listener took."""
    fanout_copies_lost: int = 0
    """Copies of fanouts that a registered listener did not take."""
    casts_lost: int = 0
    """Casts that came back from a stale route and found no other listener."""
    casts_rerouted: int = 0
    """Casts and notifications that came back and reached another listener."""
    unreadable: int = 0
    """Messages whose body could not be read."""
