# SPDX-License-Identifier: Apache-2.0
"""What a proxy does when a thread of its own fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from zmq_core import Envelope, MessageType, TargetKey
from zmq_matchmaker import MatchmakerURL, load
from zmq_proxy import BACKEND, FRONTEND, ROUTERS, ForwardingFailed, Proxy, Settings, new_config

KEY = TargetKey("openstack", "echo").encoded


def message(number: int) -> Envelope:
    """A message with the id `number`."""
    return Envelope(type=MessageType.CALL, id=number.to_bytes(16, "big"), key=KEY, body=b"x")


@pytest.fixture
def counting(tmp_path: Path, free_port: int) -> Iterator[Proxy]:
    """A router in this process, which counts."""
    conf = new_config()
    conf(
        ["--host", "127.0.0.1", "--role", "router", "--metrics-port", str(free_port)],
        project="test",
    )
    conf.set_override("transport_url", f"zmq+file://{tmp_path}/registry/")
    with Proxy(Settings.load(conf)) as proxy:
        yield proxy


def endpoints(folder: Path) -> tuple[str, str]:
    """Frontend and backend of the one router."""
    matchmaker = load(MatchmakerURL.parse(f"file://{folder}/registry/"))
    try:
        found = {record.member: record.endpoint for record in matchmaker.lookup([ROUTERS])[0]}
    finally:
        matchmaker.close()
    return found[FRONTEND], found[BACKEND]


def test_an_observer_that_fails_ends_the_proxy_and_holds_up_no_message_until_then(
    counting: Proxy,
    tmp_path: Path,
    metrics: Any,
    make_peer: Callable[[str], Any],
    until: Callable[..., None],
) -> None:
    peer = make_peer("peer")
    peer.connect(*endpoints(tmp_path))
    counting.look()
    assert metrics.get("/healthz") == (200, "ok\n")

    router = counting._router
    assert router is not None
    assert router._observer is not None
    del router._observer.traffic
    # More than all queues between the two threads hold.
    for number in range(5000):
        peer.send(peer.name, message(number))
        assert peer.receive()[1].id == message(number).id
    until(lambda: counting.problem)
    status, reason = metrics.get("/healthz")
    assert status == 503
    assert reason.startswith("router forwards no more: ")
    with pytest.raises(ForwardingFailed, match="traffic"):
        counting.look()


def test_a_proxy_that_takes_no_more_connections_is_not_healthy_and_ends(
    counting: Proxy, metrics: Any
) -> None:
    door = counting._door
    assert door is not None
    door.failure = OSError("out of order")
    reason = "no connection is taken any more: out of order"
    assert metrics.get("/healthz") == (503, f"{reason}\n")
    with pytest.raises(ForwardingFailed, match=reason):
        counting.look()


def test_a_data_plane_that_does_not_answer_is_not_healthy(
    counting: Proxy, metrics: Any, until: Callable[..., None]
) -> None:
    router = counting._router
    assert router is not None
    released = threading.Event()
    # As a call that never returns would hold the thread.
    router._tidy = released.wait  # type: ignore[method-assign, assignment]
    try:
        counting.look()
        assert counting.problem == ""
        until(lambda: metrics.get("/healthz")[0] == 503)
        assert metrics.get("/healthz")[1].startswith("router: no sign of life for ")
    finally:
        released.set()
    until(lambda: counting.problem == "")


def test_an_observer_ends_behind_a_message_that_was_left_unfinished(
    counting: Proxy, tmp_path: Path, make_peer: Callable[[str], Any]
) -> None:
    peer = make_peer("peer")
    peer.connect(*endpoints(tmp_path))
    router = counting._router
    assert router is not None
    # What the tap is not told of, as if the thread had failed in the midst of a message.
    router._tap.rest = lambda *_args, **_named: None  # type: ignore[method-assign]
    peer.send(b"nobody", message(1))
    peer.receive()
    threads = {thread.name for thread in threading.enumerate()}
    assert "zmq-proxy-router-observer" in threads
    counting.stop()
    assert not any(thread.name.startswith("zmq-proxy") for thread in threading.enumerate())
