# SPDX-License-Identifier: Apache-2.0
"""Records as rows, for people and for programs."""

from __future__ import annotations

import datetime
from typing import Any, Final

from zmq_matchmaker import Key, Listing, Standing

__all__ = ["COLUMNS", "duration", "for_programs", "host_of", "row", "target"]

COLUMNS: Final = (
    "exchange",
    "topic",
    "server",
    "role",
    "host",
    "node",
    "pool",
    "time to live",
    "since",
    "aside",
)


def host_of(standing: Standing) -> str:
    """Where to connect to, as operators write it."""
    return standing.record.endpoint.removeprefix("tcp://")


def target(key: Key) -> str:
    """A key in one word or two."""
    server = f" on {key.server}" if key.server else ""
    return f"{key.exchange}/{key.topic}{server} ({key.role})"


def duration(seconds: float | None) -> str:
    """Seconds for people: `1m 12s`; None: for ever."""
    if seconds is None:
        return "never ends"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, whole = divmod(rest, 60)
    parts = [(hours, "h"), (minutes, "m"), (whole, "s")]
    while len(parts) > 1 and not parts[0][0]:
        parts.pop(0)
    return " ".join(f"{number}{unit}" for number, unit in parts)


def row(listing: Listing) -> tuple[str, ...]:
    """A line of a table, with `COLUMNS`."""
    key, standing = listing
    since = ""
    if standing.registered is not None:
        moment = datetime.datetime.fromtimestamp(standing.registered, datetime.UTC)
        since = moment.strftime("%Y-%m-%d %H:%M:%SZ")
    return (
        key.exchange,
        key.topic,
        key.server,
        str(key.role),
        host_of(standing),
        standing.record.node,
        standing.record.pool,
        duration(standing.ttl),
        since,
        duration(standing.aside) if standing.aside else "",
    )


def for_programs(listing: Listing) -> dict[str, Any]:
    """The same with plain numbers, of seconds."""
    key, standing = listing
    return {
        "exchange": key.exchange,
        "topic": key.topic,
        "server": key.server,
        "role": str(key.role),
        "host": host_of(standing),
        "node": standing.record.node,
        "member": standing.record.member,
        "pool": standing.record.pool,
        "ttl": standing.ttl,
        "registered": standing.registered,
        "aside": standing.aside,
    }
