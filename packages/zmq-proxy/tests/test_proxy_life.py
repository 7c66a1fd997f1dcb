# SPDX-License-Identifier: Apache-2.0
"""Registration, the end, and what is left of it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from zmq_core import Envelope, MessageType, TargetKey
from zmq_matchmaker import MatchmakerURL, load
from zmq_matchmaker.testing import RedisServer
from zmq_proxy import BACKEND, FRONTEND, ROUTERS, Proxy, RouterStatistics, Settings, new_config

KEY = TargetKey("openstack", "echo").encoded


def cast(number: int) -> Envelope:
    """A message with the id `number`."""
    return Envelope(type=MessageType.CAST, id=number.to_bytes(16, "big"), key=KEY, body=b"x")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unregisters_and_exits_with_0_within_the_linger_time(
    deployment: Any, number: int
) -> None:
    process = deployment.start()
    deployment.endpoints(process)
    began = time.monotonic()
    assert process.end(number) == 0, process.output
    assert time.monotonic() - began < 5
    assert deployment.records() == ()
    assert f"stopping on {signal.Signals(number).name}" in process.output


def test_a_receiver_that_never_reads_delays_the_end_by_the_linger_time_only(
    deployment: Any, make_peer: Callable[[str], Any]
) -> None:
    process = deployment.start(config=deployment.config("zmq_linger = 1"))
    endpoints = deployment.endpoints(process)
    stuck = make_peer("stuck")
    stuck.dealer.set(zmq.RCVHWM, 1)
    stuck.connect(*endpoints)
    for number in range(200):
        message = Envelope(
            type=MessageType.CAST, id=number.to_bytes(16, "big"), key=KEY, body=bytes(100_000)
        )
        stuck.send(stuck.name, message)
    began = time.monotonic()
    assert process.end() == 0, process.output
    assert time.monotonic() - began < 3


def test_what_is_inside_when_the_proxy_is_told_to_stop_is_delivered(
    deployment: Any, make_peer: Callable[[str], Any]
) -> None:
    process = deployment.start()
    endpoints = deployment.endpoints(process)
    client, server = make_peer("client"), make_peer("server")
    client.connect(*endpoints)
    server.connect(*endpoints)
    count = 900
    for number in range(count):
        client.send(server.name, cast(number))
    client.send(client.name, cast(count))
    client.receive()  # the last one has come out, so all have come in
    process.process.send_signal(signal.SIGTERM)
    received = [int.from_bytes(server.receive()[1].id, "big") for _ in range(count)]
    assert received == list(range(count))
    assert process.process.wait(10) == 0


def test_a_conversation_that_goes_on_after_the_proxy_unregistered_is_not_cut_short(
    deployment: Any, make_peer: Callable[[str], Any], until: Callable[..., None]
) -> None:
    process = deployment.start()
    endpoints = deployment.endpoints(process)
    peer = make_peer("peer")
    peer.connect(*endpoints)
    process.process.send_signal(signal.SIGTERM)
    number = 0

    def goes_on() -> None:
        nonlocal number
        peer.send(peer.name, cast(number))
        assert int.from_bytes(peer.receive()[1].id, "big") == number
        number += 1

    def unregistered() -> bool:
        goes_on()
        return not deployment.records()

    until(unregistered)
    for _ in range(100):
        goes_on()
    assert process.process.wait(10) == 0


def test_a_proxy_that_was_killed_leaves_no_record_that_lasts(deployment: Any) -> None:
    process = deployment.start()
    deployment.endpoints(process)
    process.end(signal.SIGKILL)
    assert deployment.records() == ()


def test_several_proxies_are_found_side_by_side(
    deployment: Any, make_peer: Callable[[str], Any]
) -> None:
    processes = [deployment.start() for _ in range(3)]
    endpoints = [deployment.endpoints(process) for process in processes]
    assert len({record.node for record in deployment.records()}) == 3
    for number, pair in enumerate(endpoints):
        peer = make_peer(f"peer-{number}")
        peer.connect(*pair)


def test_a_proxy_registers_in_redis_when_it_comes_and_unregisters_at_the_end(
    deployment: Any, until: Callable[..., None]
) -> None:
    with RedisServer() as server:
        server.kill()
        url = f"{server.url}/zone"
        config = f"[DEFAULT]\ntransport_url = zmq+{url}\n[zmq_proxy_opts]\nhost = 127.0.0.1\n"
        process = deployment.start(config=config)
        until(lambda: "trying on" in process.output)
        server.start()
        matchmaker = load(MatchmakerURL.parse(url))
        try:
            until(lambda: len(matchmaker.lookup([ROUTERS])[0]) == 2, 15)
            members = {record.member for record in matchmaker.lookup([ROUTERS])[0]}
            assert members == {FRONTEND, BACKEND}
            assert process.end() == 0, process.output
            assert matchmaker.lookup([ROUTERS]) == [()]
        finally:
            matchmaker.close()


def test_a_stopped_proxy_leaves_no_thread_and_no_descriptor(tmp_path: Path) -> None:
    conf = new_config()
    file = tmp_path / "proxy.conf"
    file.write_text(f"[DEFAULT]\ntransport_url = zmq+file://{tmp_path}/registry/\n")
    conf(["--config-file", str(file), "--host", "127.0.0.1"], project="test")
    threads = set(threading.enumerate())
    for _ in range(3):
        with Proxy(Settings.load(conf)) as proxy:
            proxy.look()
            assert proxy.statistics.router == RouterStatistics()
        proxy.stop()  # twice is harmless
    assert set(threading.enumerate()) == threads
