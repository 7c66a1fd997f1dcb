# SPDX-License-Identifier: Apache-2.0
"""What a node counts."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Statistics"]


@dataclass(slots=True)
class Statistics:
    """Counters since the node was made; each only grows."""

    received: int = 0
    """Messages taken from the listening socket, and requests that came by proxies."""
    malformed: int = 0
    """Messages that were not of this protocol or version."""
    unknown_key: int = 0
    """Messages refused because nobody listens on their key here."""
    nacks_received: int = 0
    """Messages of ours that a peer refused."""
    late_replies: int = 0
    """Answers that nobody waited for any more."""
    replies_dropped: int = 0
    """Answers whose peer had gone, or did not read them in time."""
    handler_failures: int = 0
    """Messages for which a listener's `on_message` raised."""
    misdirected: int = 0
    """Answers where nobody asks, and requests where only answers are expected."""
    turned_away: int = 0
    """Connections that were ended at once, for want of descriptors."""


"""Counters are plain integers: each is changed by one thread, or under the socket's lock."""
