# SPDX-License-Identifier: Apache-2.0
"""What a process holds, to compare before and after."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil


def open_descriptors() -> dict[int, str]:
    """Each open descriptor and what it is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the one that lists the folder
    return found


def holdings() -> dict[str, int]:
    """How many threads, descriptors and children this process has."""
    return {
        "threads": threading.active_count(),
        "native threads": psutil.Process().num_threads(),
        "descriptors": len(open_descriptors()),
        "children": len(psutil.Process().children()),
    }


def peak_memory(pid: int | str = "self") -> int:
    """The most octets of memory that a process has had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"the system does not tell the memory of process {pid}")


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended may stay a zombie until somebody collects it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def settled_holdings(before: dict[str, int], timeout: float = 3.0) -> dict[str, int]:
    """What this process has once it is no more than `before`, or else after `timeout` seconds.

    A thread that was joined is gone for Python a moment before it is for the system.
    """
    deadline = time.monotonic() + timeout
    while True:
        now = holdings()
        if all(now[name] <= before[name] for name in before) or time.monotonic() > deadline:
            return now
        time.sleep(0.01)


def wait_until(condition: Callable[[], object], what: str, timeout: float = 10.0) -> None:
    """Return as soon as `condition()` is true; fail with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(0.01)


def assert_nothing_left(before: dict[str, int], timeout: float = 10.0) -> None:
    """Fail unless this process holds no more than `before`, at the latest after `timeout`."""

    def surplus() -> dict[str, int]:
        now = holdings()
        return {name: now[name] - count for name, count in before.items() if now[name] > count}

    try:
        wait_until(lambda: not surplus(), "everything released", timeout)
    except AssertionError:
        raise AssertionError(
            f"left behind: {surplus()}; threads {[t.name for t in threading.enumerate()]}; "
            f"descriptors {open_descriptors()}"
        ) from None
