# SPDX-License-Identifier: Apache-2.0
"""Scanners, web clients and connections that say nothing: F26."""

from __future__ import annotations

import itertools
import os
import socket
import struct
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from harness.cloud import Cloud
from harness.leaks import wait_until
from harness.strangers import dial, was_cut_off

HANDSHAKE = 1.0
"""Seconds for which a connection may say nothing."""
LINES = (b"", b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", b"\xff" + bytes(8), b"\x16\x03\x01\x02\x00")


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def ports(pid: int) -> list[int]:
    """Those on which it listens."""
    return [
        connection.laddr.port
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]


@pytest.mark.parametrize("road", ["direct", "routers"])
def test_f26_strangers_disturb_no_call_and_take_no_descriptor_for_long(
    road: str, cloud: Cloud, tmp_path: Path
) -> None:
    cloud.configure(
        use_router_proxy=road == "routers", use_pub_sub=False, zmq_connect_timeout=HANDSHAKE
    )
    proxies = cloud.proxies(1) if road == "routers" else []
    journal = str(tmp_path / "journal")
    service = cloud.service("one", journal=journal)
    sender = cloud.caller(name="sender", journal=journal, threads=2, pause=0.005)
    sender.until(lambda report: report["answers"].get("one", 0) > 20, "answers")
    targets = [service.pid, *(proxy.pid for proxy in proxies)]
    before = {pid: descriptors(pid) for pid in targets}
    doors = [port for pid in targets for port in ports(pid)]
    with ExitStack() as held:
        for port in doors:
            for _ in range(100):  # a scan: half of them end with a reset
                with dial(port) as scanner:
                    scanner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                dial(port).close()
        strangers = [held.enter_context(dial(port)) for port in doors for _ in range(40)]
        for stranger, line in zip(strangers, itertools.cycle(LINES)):
            with suppress(OSError):
                stranger.sendall(line)
        wait_until(lambda: all(map(was_cut_off, strangers)), "they are hung up on", timeout=15)
        wait_until(
            lambda: all(descriptors(pid) <= before[pid] for pid in targets),
            "their descriptors are free",
        )
    answered = sender.until(lambda _: True, "a report")["answers"]["one"]
    sender.until(lambda report: report["answers"]["one"] > answered + 50, "it goes on")
    report = sender.stop()
    assert report["failures"] == {}
    assert report["longest"] < 2
