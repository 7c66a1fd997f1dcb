# SPDX-License-Identifier: Apache-2.0
"""Settings, addresses and ports: what cannot work is refused, by name."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmq_core import (
    ConfigurationError,
    Endpoint,
    Node,
    NodeOptions,
    PeerUnreachable,
    PortsRangeExceeded,
    TargetKey,
    UnknownAdapter,
    resolve_bind_address,
)

KEY = TargetKey("openstack", "echo")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("min_port", 0),
        ("min_port", 65536),
        ("max_port", 1),
        ("max_port", 65537),
        ("linger", -1),
        ("linger", float("nan")),
        ("linger", float("inf")),
        ("connect_timeout", -0.1),
        ("connect_timeout", 0),
        ("heartbeat_interval", 0),
        ("heartbeat_interval", 0.0001),
        ("heartbeat_timeout", 0),
        ("heartbeat_timeout", 1e6),
        ("heartbeat_timeout", 7000),
        ("send_hwm", 0),
        ("send_hwm", 2**31),
        ("recv_hwm", -1),
        ("max_message_size", 0),
        ("max_message_size", 2**63),
        ("bind_retries", 0),
        ("io_threads", 0),
        ("io_threads", 100_000),
        ("max_links", -1),
        ("tcp_keepalive_idle", 0),
        ("tcp_keepalive_count", -2),
        ("tcp_keepalive_interval", 0),
        ("tcp_keepalive_interval", 2**31),
    ],
)
def test_value_that_cannot_work_names_its_option(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=option) as caught:
        NodeOptions(**{option: value})
    assert caught.value.option == option


@pytest.mark.parametrize(("low", "high"), [(5000, 5000), (5001, 5000)])
def test_empty_port_range_names_both_ends(low: int, high: int) -> None:
    with pytest.raises(ConfigurationError, match=f"from {low}.*max_port {high} is empty"):
        NodeOptions(min_port=low, max_port=high)


def test_every_option_that_is_accepted_makes_a_working_node(make_node: Callable[..., Node]) -> None:
    node = make_node(
        heartbeat_interval=0.001,
        heartbeat_timeout=6000,
        connect_timeout=86399,
        linger=0,
        send_hwm=2**31 - 1,
        recv_hwm=1,
        max_message_size=2**63 - 1,
        tcp_keepalive=True,
        tcp_keepalive_idle=32767,
        tcp_keepalive_count=127,
        tcp_keepalive_interval=32767,
        io_threads=2,
    )
    node.serve(KEY, lambda incoming: incoming.reply(b"yes"))
    assert node.request(node.bind(), KEY, b"", timeout=10).body == b"yes"


def test_adapter_name_means_its_address() -> None:
    address = resolve_bind_address("lo")
    assert address.host == address.advertise == "127.0.0.1"


def test_unknown_adapter_is_refused_with_the_names_of_those_there_are() -> None:
    with pytest.raises(UnknownAdapter, match="'eth77'") as caught:
        resolve_bind_address("eth77")
    for name in psutil.net_if_addrs():
        assert name in str(caught.value)
    assert caught.value.option == "bind_address"


@pytest.mark.parametrize(
    ("bind_address", "host"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("[::1]", "::1")]
)
def test_ip_address_is_bound_and_advertised(bind_address: str, host: str) -> None:
    address = resolve_bind_address(bind_address)
    assert (address.host, address.advertise) == (host, host)
    assert resolve_bind_address(bind_address, "other").advertise == "other"


@pytest.mark.parametrize("bind_address", ["*", "0.0.0.0", "::"])
def test_every_address_is_advertised_by_a_name_that_resolves(bind_address: str) -> None:
    advertised = resolve_bind_address(bind_address).advertise
    assert advertised not in ("*", "0.0.0.0", "::")
    assert Endpoint(advertised, 1).resolve()


@pytest.mark.parametrize(
    ("bind_address", "reached_at"),
    [
        ("*", ["127.0.0.1", "::1"]),
        ("0.0.0.0", ["127.0.0.1"]),
        ("::", ["::1"]),
        ("127.0.0.1", ["127.0.0.1", "localhost"]),
        ("::1", ["::1"]),
        ("[::1]", ["::1"]),
        ("lo", ["127.0.0.1"]),
    ],
)
def test_f33_node_is_reached_at_the_address_that_it_binds(
    make_node: Callable[..., Node], bind_address: str, reached_at: list[str]
) -> None:
    server, client = make_node(bind_address=bind_address), make_node()
    server.serve(KEY, lambda incoming: incoming.reply(incoming.body))
    port = Endpoint.parse(server.bind()).port
    for host in reached_at:
        endpoint = str(Endpoint(host, port))
        assert client.request(endpoint, KEY, b"x", timeout=10).body == b"x"


def test_address_of_another_host_cannot_be_bound(make_node: Callable[..., Node]) -> None:
    with pytest.raises(
        ConfigurationError, match=r"bind_address: cannot bind tcp://198\.51\.100\.1"
    ):
        make_node(bind_address="198.51.100.1").bind()


def two_free_ports() -> int:
    """The first of two neighbouring ports that are free."""
    for low in range(20000, 30000, 2):
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", low))
                other.bind(("127.0.0.1", low + 1))
            except OSError:
                continue
            return low
    raise AssertionError("no two free ports")


def test_range_of_two_ports_holds_two_nodes_and_the_third_is_told_so(
    make_node: Callable[..., Node],
) -> None:
    low = two_free_ports()
    ports = {"min_port": low, "max_port": low + 2}
    one, other, third = (make_node(**ports) for _ in range(3))
    bound = {Endpoint.parse(one.bind()).port, Endpoint.parse(other.bind()).port}
    assert bound == {low, low + 1}
    with pytest.raises(PortsRangeExceeded, match=f"ports range exceeded.*{low}.*{low + 2}"):
        third.bind()
    one.close()
    assert Endpoint.parse(third.bind()).port in bound


def test_no_more_ports_are_tried_than_retries_are_set(make_node: Callable[..., Node]) -> None:
    low = two_free_ports()
    make_node(min_port=low, max_port=low + 1).bind()
    with pytest.raises(PortsRangeExceeded, match="1 of the 1 ports"):
        make_node(min_port=low, max_port=low + 1, bind_retries=50).bind()


def test_binding_twice_keeps_the_port(make_node: Callable[..., Node]) -> None:
    node = make_node()
    assert node.bind() == node.bind()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tcp://",
        "tcp://host",
        "tcp://host:",
        "tcp://:80",
        "tcp://[]:80",
        "tcp://host:x",
        "tcp://host:-1",
        "tcp://host:٣",
        "tcp://host:0",
        "tcp://host:65536",
        "tcp://host:" + "1" * 5000,
        "ipc://path:1",
        "host:80",
        "tcp://a b:80",
        "tcp://a\0b:80",
        "tcp://a\nb:80",
    ],
)
def test_text_that_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="endpoint: "):
        Endpoint.parse(text)


@given(st.text(max_size=40))
def test_any_text_is_an_endpoint_or_refused(text: str) -> None:
    for candidate in (text, f"tcp://{text}", f"tcp://{text}:80"):
        try:
            endpoint = Endpoint.parse(candidate)
        except ConfigurationError:
            continue
        assert 0 < endpoint.port < 65536


@pytest.mark.parametrize("host", ["h", "10.0.0.1", "::1", "fe80::1"])
def test_endpoint_is_parsed_as_it_is_written(host: str) -> None:
    assert Endpoint.parse(str(Endpoint(host, 80))) == Endpoint(host, 80)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 64 + ".invalid"])
def test_name_that_does_not_resolve_is_an_unreachable_peer(
    make_node: Callable[..., Node], host: str
) -> None:
    with pytest.raises(PeerUnreachable, match="does not resolve"):
        make_node().request(f"tcp://{host}:4000", KEY, b"", timeout=5)


def test_next_address_of_a_name_is_tried_when_the_first_refuses(
    make_node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = make_node(), make_node()
    server.serve(KEY, lambda incoming: incoming.reply(b"second"))
    port = Endpoint.parse(server.bind()).port
    resolved: list[str] = []

    def resolve(host: str, *_: Any, **__: Any) -> list[tuple[Any, ...]]:
        resolved.append(host)
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", port)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    reply = client.request(f"tcp://some-host:{port}", KEY, b"", timeout=10)
    assert reply.body == b"second"
    assert resolved == ["some-host"]


def test_name_is_resolved_anew_for_each_connection(
    make_node: Callable[..., Node],
    monkeypatch: pytest.MonkeyPatch,
    free_port: Callable[[], int],
    until: Callable[..., None],
) -> None:
    port = free_port()
    here = "127.0.0.1"

    def resolve(*_: Any, **__: Any) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (here, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    client = make_node()
    for here in ("127.0.0.1", "127.0.0.2"):
        server = make_node(bind_address=here, min_port=port, max_port=port + 1)
        server.serve(KEY, lambda incoming: incoming.reply(incoming.body))
        assert client.request(f"tcp://moving:{port}", KEY, b"x", timeout=10).body == b"x"
        server.close()
        until(lambda: not client.links)


def test_nodes_that_bind_at_once_get_different_ports(make_node: Callable[..., Node]) -> None:
    low = two_free_ports()
    nodes = [make_node(min_port=low, max_port=low + 40) for _ in range(8)]
    endpoints: list[str] = []
    threads = [
        threading.Thread(target=lambda node=node: endpoints.append(node.bind())) for node in nodes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(endpoints)) == 8
