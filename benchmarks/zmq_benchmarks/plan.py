# SPDX-License-Identifier: Apache-2.0
"""What is measured, between whom, and what is to be reached."""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

__all__ = [
    "DEFAULT_SUBJECTS",
    "GOALS",
    "MEASUREMENTS",
    "SUBJECTS",
    "Goal",
    "Kind",
    "Measurement",
    "select",
]

SUBJECTS: Final = {
    "zmq": "the zmq driver",
    "zmq-msgpack": "the same with rpc_zmq_serialization=msgpack",
    "zmq-proxied": "the same through a zmq-proxy: use_router_proxy=true",
    "rabbit": "oslo.messaging's rabbit driver, on a RabbitMQ that is started for it",
    "raw": "pyzmq alone, DEALER to ROUTER: the ceiling of any zmq transport",
    "oslo": "oslo.messaging with no transport, both ends in one process: what it costs itself",
}

DEFAULT_SUBJECTS: Final = ("zmq", "rabbit", "raw")


class Kind(enum.StrEnum):
    """What an operation is."""

    CALLS = "calls"
    CASTS = "casts"


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One column of the result."""

    name: str
    title: str
    kind: Kind = Kind.CALLS
    threads: int = 1
    size: int = 200
    """Of the body, in bytes; an answer is as large."""
    once: bool = False
    """One operation in the whole run, for what takes long."""
    subjects: tuple[str, ...] = tuple(SUBJECTS)


class Goal(msgspec.Struct, frozen=True):
    """`subject` is to be so many times as fast as `other`."""

    measurement: str
    subject: str
    other: str
    factor: float


MEASUREMENTS: Final = (
    Measurement(name="calls-1", title="calls, 1 thread"),
    Measurement(name="calls-16", title="calls, 16 threads", threads=16),
    Measurement(name="calls-64", title="calls, 64 threads", threads=64),
    Measurement(name="casts", title="casts processed", kind=Kind.CASTS),
    Measurement(name="calls-10k", title="calls, 10 kB", size=10_000),
    Measurement(name="calls-1M", title="calls, 1 MB", size=1_000_000),
    Measurement(
        name="calls-64M",
        title="a call, 64 MB",
        size=64_000_000,
        once=True,
        subjects=("zmq", "zmq-msgpack", "zmq-proxied"),
    ),
)

GOALS: Final = (
    Goal("calls-1", "zmq", "rabbit", 4.0),
    Goal("calls-16", "zmq", "rabbit", 6.0),
    Goal("casts", "zmq", "rabbit", 3.0),
    Goal("calls-1", "zmq-proxied", "zmq", 0.6),
    Goal("calls-16", "zmq-proxied", "zmq", 0.6),
)


def select(names: Collection[str]) -> Sequence[Measurement]:
    """The measurements called `names`, or all for none."""
    return [each for each in MEASUREMENTS if not names or each.name in names]
