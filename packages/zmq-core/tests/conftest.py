# SPDX-License-Identifier: Apache-2.0
"""Real nodes, real child processes, and the proof that nothing of them is left."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from zmq_core import Node, NodeOptions

# A node in a process of its own: it prints its endpoint, then serves until its
# standard input ends.  What it does with a message stands in the body.
CHILD = """
import os, sys, threading, time
from zmq_core import Node, NodeOptions, TargetKey

executed = 0

def handle(incoming):
    global executed
    executed += 1
    body = incoming.body
    if body == b"die":
        os.kill(os.getpid(), 9)
    elif body == b"silence":
        return
    elif body == b"count":
        incoming.reply(str(executed - 1).encode())
    elif body == b"pid":
        incoming.reply(str(os.getpid()).encode())
    elif body.startswith(b"after "):
        threading.Timer(float(body[6:]), incoming.reply, (body,)).start()
    else:
        incoming.reply(body)

options = {name: float(value) for name, value in (a.split("=") for a in sys.argv[2:])}
low = int(sys.argv[1])
with Node(NodeOptions(bind_address="127.0.0.1", min_port=low or 49153,
                      max_port=low + 1 if low else 65536, **options)) as node:
    node.serve(TargetKey("openstack", "echo"), handle)
    print(node.bind(), flush=True)
    sys.stdin.read()
"""


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Return once `condition()` is true; fail if it is not so in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        time.sleep(0.002)


def open_files() -> list[str]:
    """What this process has open, apart from the files that Python itself may keep."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue  # the descriptor by which the folder itself was listed
    return sorted(found)


def child_processes() -> set[str]:
    """The ids of this process's children; psutil would look at every process of the machine."""
    found = set()
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children") as children:
                found.update(children.read().split())
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread that has ended meanwhile has no children of its own
    return found


def _surplus(before: list[str]) -> list[str]:
    rest = list(before)
    surplus = []
    for name in open_files():
        if name in rest:
            rest.remove(name)
        else:
            surplus.append(name)
    return surplus


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fail a test after which a thread, a descriptor or a child process is left."""
    threads = set(threading.enumerate())
    files = open_files()
    children = child_processes()
    yield

    def clean() -> bool:
        return (
            set(threading.enumerate()) <= threads
            and not _surplus(files)
            and child_processes() <= children
        )

    deadline = time.monotonic() + 5
    while not clean() and time.monotonic() < deadline:
        gc.collect()  # what a failed test's traceback held
        time.sleep(0.01)
    assert set(threading.enumerate()) <= threads
    assert _surplus(files) == []
    assert child_processes() <= children


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait for a condition, with a deadline."""
    return wait_for


@pytest.fixture
def make_node(nothing_is_left: None) -> Iterator[Callable[..., Node]]:
    """Make nodes on 127.0.0.1 that are closed at the end."""
    nodes: list[Node] = []

    def make(*, role: str = "test", returned: Any = None, **options: Any) -> Node:
        settings: dict[str, Any] = {"bind_address": "127.0.0.1", "linger": 1.0, **options}
        node = Node(NodeOptions(**settings), role=role, returned=returned)
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.close()


class ChildNode:
    """An echoing node in another process, on the key openstack/echo."""

    def __init__(self, port: int, options: dict[str, float]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(port), *(f"{k}={v}" for k, v in options.items())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            text=True,
        )
        assert self.process.stdout is not None
        self.endpoint = self.process.stdout.readline().strip()
        assert self.endpoint, "the child did not come up; see its output"

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self.process.pid

    def signal(self, number: int) -> None:
        """Send a signal to the child."""
        self.process.send_signal(number)

    def stop(self) -> None:
        """Stop the child, as an operator's SIGSTOP does, and wait until it stands."""
        self.signal(signal.SIGSTOP)
        process = psutil.Process(self.pid)
        wait_for(lambda: process.status() == psutil.STATUS_STOPPED)

    def end(self) -> None:
        """End the child if it still lives, and free its pipes."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def child_node(nothing_is_left: None) -> Iterator[Callable[..., ChildNode]]:
    """Start echoing nodes in processes of their own."""
    children: list[ChildNode] = []

    def start(port: int = 0, **options: float) -> ChildNode:
        child = ChildNode(port, options)
        children.append(child)
        return child

    yield start
    for child in children:
        child.end()


@pytest.fixture
def run_python(nothing_is_left: None) -> Callable[..., str]:
    """Run a script in a process of its own; returns what it printed, fails if it failed."""

    def run(script: str, *arguments: str, timeout: float = 60) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            capture_output=True,
            timeout=timeout,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A TCP port of 127.0.0.1 that was free a moment ago."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find
