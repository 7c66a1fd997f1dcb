# SPDX-License-Identifier: Apache-2.0
"""A process that may open no more descriptors says so, goes on, and recovers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

AT_THE_LIMIT = """
import os, resource, time
from zmq_core import *

KEY = TargetKey("openstack", "echo")
OPTIONS = NodeOptions(bind_address="127.0.0.1", connect_timeout=1)
spare = {spare}

def hoard():
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096))
    hoard = []
    try:
        while True:
            hoard.append(os.open("/dev/null", 0))
    except OSError:
        for _ in range(spare):
            os.close(hoard.pop())
        return hoard

with Node(OPTIONS) as server, Node(OPTIONS) as old:
    server.serve(KEY, lambda incoming: incoming.reply(incoming.body))
    endpoint = server.bind()
    assert old.request(endpoint, KEY, b"before", timeout=10).body == b"before"
    hoarded = hoard()
    with Node(OPTIONS) as new:
        for use in (new.bind, lambda: new.request(endpoint, KEY, b"x", timeout=5)):
            try:
                use()
            except (SocketLimitReached, PeerUnreachable) as error:
                assert "limit of open files" in str(error), error
            else:
                raise AssertionError("found descriptors where there were none")
        assert old.request(endpoint, KEY, b"meanwhile", timeout=10).body == b"meanwhile"
        began, used = time.monotonic(), time.process_time()
        try:
            server.request(endpoint, TargetKey("openstack", "nobody"), b"", timeout=0.5)
        except (NotDelivered, PeerLost):  # it hangs up on itself
            pass
        assert time.process_time() - used < 0.3
        for fd in hoarded:
            os.close(fd)
        assert new.request(endpoint, KEY, b"after", timeout=10).body == b"after"
        new.bind()
print("recovered")
"""


@pytest.mark.parametrize("spare", [0, 1, 2, 4, 8, 15])
def test_node_without_descriptors_says_so_and_recovers(
    run_python: Callable[..., str], spare: int
) -> None:
    assert run_python(AT_THE_LIMIT.format(spare=spare)) == "recovered\n"


def test_known_connection_without_room_for_another_fails_at_once_and_only_then(
    run_python: Callable[..., str],
) -> None:
    script = """
import os, resource
from zmq_core import *

KEY = TargetKey("openstack", "echo")
OPTIONS = NodeOptions(bind_address="127.0.0.1", connect_timeout=1)
with Node(OPTIONS) as one, Node(OPTIONS) as other, Node(OPTIONS) as client:
    for server in (one, other):
        server.serve(KEY, lambda incoming: incoming.reply(incoming.body))
    endpoints = one.bind(), other.bind()
    assert client.request(endpoints[0], KEY, b"1", timeout=10).body == b"1"
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096))
    hoard = []
    try:
        while True:
            hoard.append(os.open("/dev/null", 0))
    except OSError:
        os.close(hoard.pop())
    for _ in range(50):
        try:
            client.request(endpoints[1], KEY, b"2", timeout=10)
        except PeerUnreachable as error:
            assert "limit of open files" in str(error), error
        else:
            raise AssertionError("connected without a descriptor")
        assert client.request(endpoints[0], KEY, b"1", timeout=10).body == b"1"
    for fd in hoard:
        os.close(fd)
    assert client.request(endpoints[1], KEY, b"2", timeout=10).body == b"2"
print("recovered")
"""
    assert run_python(script) == "recovered\n"
