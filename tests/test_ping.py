# SPDX-License-Identifier: Apache-2.0
"""`zmq-matchmaker ping` with real services, which execute nothing of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import oslo_messaging
from oslo_messaging import Target

from harness.services import Service, child_environment

MakeService = Callable[..., Service]
MakeTransport = Callable[..., Any]


def ping(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "zmq_matchmaker.cli", "ping", *arguments],
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_hosts_of_a_topic_answer_as_long_as_they_can(
    redis_url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    _, two = (make_service(redis_url, ("", "work", name)) for name in ("one", "two"))
    where = ("--url", redis_url, "work", "--timeout", "2")
    code, said = ping(*where, "-c", "2")
    assert code == 0, said
    assert said.count("answers in") == 4
    os.kill(two.pid, signal.SIGSTOP)
    code, said = ping(*where)
    os.kill(two.pid, signal.SIGCONT)
    assert code == 1
    assert said.count("answers in") == 1
    assert said.count("does not answer") == 1
    assert ping("--url", redis_url, "nobody")[0] == 3
    client = oslo_messaging.get_rpc_client(make_transport(redis_url), Target(topic="work"))
    assert client.call({}, "noted") == []


def test_an_address_needs_no_matchmaker_and_another_protocol_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        code, said = ping(f"127.0.0.1:{port}", "--timeout", "0.5")
    assert code == 1
    assert f"127.0.0.1:{port}  does not answer" in said
