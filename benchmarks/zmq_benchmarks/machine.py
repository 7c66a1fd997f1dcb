# SPDX-License-Identifier: Apache-2.0
"""Where a run took place: hardware, system and versions."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Final

import zmq

__all__ = ["describe_machine", "describe_versions"]

_DISTRIBUTIONS: Final = (
    "zmq-core",
    "zmq-matchmaker",
    "zmq-oslo-driver",
    "oslo.messaging",
    "pyzmq",
    "redis",
    "kombu",
    "amqp",
)


def describe_machine() -> dict[str, str | int | float]:
    """Processors, system, and how busy it is before the run."""
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load_before": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def describe_versions() -> dict[str, str]:
    """Of Python, libzmq and the distributions that matter, where they are installed."""
    versions = {"python": platform.python_version(), "libzmq": zmq.zmq_version()}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
