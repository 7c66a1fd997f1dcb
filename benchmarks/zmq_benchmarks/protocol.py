# SPDX-License-Identifier: Apache-2.0
"""What the benchmark and its worker processes say to each other: one JSON object a line."""

from __future__ import annotations

import enum

import msgspec

__all__ = [
    "Calls",
    "CastReport",
    "Casts",
    "Command",
    "Counted",
    "Forget",
    "LoadReport",
    "Ready",
    "Role",
    "Usage",
    "UsageReport",
    "WorkerConfig",
]


class Role(enum.StrEnum):
    """Which end of a transport a worker process is."""

    SERVER = "server"
    CLIENT = "client"
    BOTH = "both"


class WorkerConfig(msgspec.Struct, frozen=True):
    """What a worker process is started with."""

    kind: str
    """`oslo`: a driver chosen by `url`; `inprocess`: no transport; `raw`: pyzmq alone."""
    role: Role
    url: str = ""


class Ready(msgspec.Struct, frozen=True):
    """The worker can be used.  `address` is where a raw server listens."""

    address: str = ""


class Calls(msgspec.Struct, frozen=True, tag=True):
    """Call from so many threads for so many seconds, with a body of `size` bytes."""

    threads: int
    seconds: float
    size: int
    limit: int = 0
    """Calls per thread at the most; 0: as many as fit."""


class Casts(msgspec.Struct, frozen=True, tag=True):
    """Cast from one thread for so many seconds, with a body of `size` bytes."""

    seconds: float
    size: int


class Forget(msgspec.Struct, frozen=True, tag=True):
    """Count the casts from 0 again."""


class Counted(msgspec.Struct, frozen=True, tag=True):
    """Say which casts were processed."""


class Usage(msgspec.Struct, frozen=True, tag=True):
    """Say how much processor time was used."""


Command = Calls | Casts | Forget | Counted | Usage


class LoadReport(msgspec.Struct, frozen=True):
    """What a client did.  `latencies` are in microseconds, one for each operation."""

    count: int
    seconds: float
    latencies: list[float]


class CastReport(msgspec.Struct, frozen=True):
    """Casts processed by a server, and the seconds between the first and the last."""

    count: int
    seconds: float


class UsageReport(msgspec.Struct, frozen=True):
    """Processor seconds that the worker has used, in user and system mode."""

    seconds: float
