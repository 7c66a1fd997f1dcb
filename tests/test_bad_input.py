# SPDX-License-Identifier: Apache-2.0
"""Bad input gets a clear error that names the option, the host or the line."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import oslo_messaging
import pytest
from oslo_config import cfg
from oslo_messaging import MessagingTimeout, Target

from harness.leaks import wait_until
from harness.services import Service
from zmq_matchmaker.testing import RedisServer
from zmq_oslo_driver.errors import InvalidConfiguration

MakeService = Callable[..., Service]
MakeTransport = Callable[..., Any]
ZMQ = "oslo_messaging_zmq"


def server_on(transport: Any, topic: str = "work") -> Any:
    class Endpoint:
        def echo(self, ctxt: Any, value: Any) -> Any:
            return value

    target = Target(topic=topic, server="one")
    return oslo_messaging.get_rpc_server(transport, target, [Endpoint()], executor="threading")


def client_of(transport: Any, timeout: float = 10) -> Any:
    return oslo_messaging.get_rpc_client(transport, Target(topic="work"), timeout=timeout)


def test_a_range_whose_ports_are_all_in_use_is_named(
    file_url: str, make_transport: MakeTransport, conf: cfg.ConfigOpts
) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        conf.set_override("rpc_zmq_min_port", port, group=ZMQ)
        conf.set_override("rpc_zmq_max_port", port + 1, group=ZMQ)
        server = server_on(make_transport(file_url))
        with pytest.raises(InvalidConfiguration, match=f"ports range exceeded.*{port}"):
            server.start()


def test_a_malformed_table_is_named_with_its_line(
    make_transport: MakeTransport, tmp_path: Path
) -> None:
    table = tmp_path / "table.json"
    table.write_text('{"listeners": [\n  {"topic": "work",\n   "hosts": ["one:1"],,}\n]}\n')
    with pytest.raises(InvalidConfiguration, match=rf"{table}:3: "):
        make_transport(f"zmq+file://{table}")


def test_an_unreachable_redis_is_named_and_the_server_registers_when_it_comes(
    make_transport: MakeTransport, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisServer() as redis:
        url = f"zmq+{redis.url}/late"
        redis.kill()
        transport = make_transport(url)
        server = server_on(transport)
        started = time.monotonic()
        with caplog.at_level(logging.WARNING):
            server.start()
            assert time.monotonic() - started < 10
            wait_until(
                lambda: f"redis at 127.0.0.1:{redis.port} cannot be reached" in caplog.text,
                "the warning",
            )
        with pytest.raises(MessagingTimeout, match=f"127.0.0.1:{redis.port}"):
            client_of(make_transport(f"{url}?zmq_linger=1"), timeout=1).call({}, "echo", value=1)
        redis.start()
        caller = client_of(make_transport(f"{url}?zmq_linger=1"), timeout=20)
        assert caller.call({}, "echo", value=2) == 2
        server.stop()
        server.wait()
        transport.cleanup()


def test_a_wrong_password_is_named_without_showing_it(
    make_transport: MakeTransport, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisServer("--requirepass", "the-right-one", password="the-right-one") as redis:
        url = f"zmq+redis://:hunter2@127.0.0.1:{redis.port}/x"
        with (
            caplog.at_level(logging.DEBUG),
            pytest.raises(MessagingTimeout, match=f"127.0.0.1:{redis.port} denies") as caught,
        ):
            client_of(make_transport(url), timeout=1).call({}, "echo", value=1)
        assert "hunter2" not in caplog.text
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\xff" * 4096,
        b"\x00",
    ],
)
def test_another_protocol_on_our_port_disturbs_nobody(
    file_url: str, make_transport: MakeTransport, garbage: bytes
) -> None:
    transport = make_transport(file_url)
    server = server_on(transport)
    server.start()
    caller = client_of(make_transport(f"{file_url}?zmq_linger=1"))
    assert caller.call({}, "echo", value=1) == 1
    endpoint = server.listener._entries[0][1].endpoint
    host, port = endpoint.removeprefix("tcp://").split(":")
    for _ in range(20):
        with socket.create_connection((host, int(port))) as stranger:
            stranger.sendall(garbage)
            assert caller.call({}, "echo", value=2) == 2
    server.stop()
    server.wait()


def usurp(make_service: MakeService, url: str) -> Service:
    """Kill a server of topic `work` and let a service of topic `else` take its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    one_port = {"rpc_zmq_min_port": port, "rpc_zmq_max_port": port + 1}
    make_service(url, ("", "work", "victim"), options=one_port).kill()
    return make_service(url, ("", "else", "usurper"), options=one_port)


def test_a_stale_record_on_a_port_that_another_service_took_is_refused(
    redis_url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    usurper = usurp(make_service, redis_url)
    transport = make_transport(redis_url)
    with pytest.raises(MessagingTimeout, match="refused"):
        client_of(transport, timeout=1).call({}, "echo", value=1)
    make_service(redis_url, ("", "work", "two"))
    caller = client_of(transport)
    for _ in range(5):
        assert caller.call({}, "whoami")[0] == "two"
    other = oslo_messaging.get_rpc_client(transport, Target(topic="else"), timeout=10)
    assert other.call({}, "whoami") == ["usurper", usurper.pid]


def test_a_cast_that_a_stale_record_misled_reaches_another_server(
    redis_url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    usurp(make_service, redis_url)
    make_service(redis_url, ("", "work", "two"))
    caller = client_of(make_transport(redis_url))
    for number in range(6):
        caller.cast({}, "note", text=str(number))
    two = caller.prepare(server="two")
    wait_until(lambda: len(two.call({}, "noted")) == 6, "all casts executed")
    assert sorted(two.call({}, "noted")) == list("012345")
