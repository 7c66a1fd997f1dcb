# SPDX-License-Identifier: Apache-2.0
"""The same code under eventlet's monkey-patching, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from zmq_matchmaker.testing import RedisServer

PROGRAM = """
import eventlet
eventlet.monkey_patch()
import os, sys, time
from zmq_matchmaker import *

url, pid = sys.argv[1], int(sys.argv[2])
key = Key(Role.LISTENER, "openstack", "conductor")
record = Record(endpoint="tcp://10.0.0.1:49153")
longest = 0.0

def beat():
    global longest
    while True:
        began = time.monotonic()
        eventlet.sleep(0.005)
        longest = max(longest, time.monotonic() - began)

eventlet.spawn(beat)
server, client = (Directory(load(MatchmakerURL.parse(url))) for _ in range(2))
server.announce([(key, record)])
assert client.lookup(key, 5) == (record,)

if pid:
    os.kill(pid, 19)
    waiting = [eventlet.spawn(client.lookup, key._replace(topic=str(n)), 0.5) for n in range(100)]
    began = time.monotonic()
    for thread in waiting:
        try:
            thread.wait()
        except Unavailable:
            pass
        else:
            raise AssertionError("a Redis that is stopped has answered")
    assert time.monotonic() - began < 1.5, time.monotonic() - began
    assert client.lookup(key, 0) == (record,)
    os.kill(pid, 18)

client.close()
server.close()
print("longest", longest)
"""


def run(url: str, pid: int = 0) -> float:
    """The longest time, in seconds, for which the hub stood still."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, url, str(pid)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    name, _, seconds = done.stdout.rpartition(" ")
    assert name == "longest"
    return float(seconds)


@pytest.mark.parametrize("scheme", ["dummy", "file"])
def test_green_threads_announce_and_look_up(scheme: str, tmp_path: Path) -> None:
    assert run(f"{scheme}://{tmp_path}/registry/") < 0.5


def test_a_redis_that_hangs_stops_no_green_thread(redis: RedisServer) -> None:
    with redis.client() as client:
        pid = client.info("server")["process_id"]
    assert run(f"{redis.url}/x", int(pid)) < 0.5
