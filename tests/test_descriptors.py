# SPDX-License-Identifier: Apache-2.0
"""A service that may open no more descriptors: F27."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import psutil
import pytest
from oslo_messaging import MessageDeliveryFailure, MessagingTimeout

from harness.cloud import Cloud
from harness.leaks import wait_until
from harness.services import Service
from harness.strangers import dial, was_cut_off
from harness.traffic import client
from zmq_matchmaker import Key, Role

LOOKED_AT = 2.0
"""Seconds for which its processor time is measured."""


def port_of(service: Service) -> int:
    """Where it listens."""
    [port] = [
        connection.laddr.port
        for connection in psutil.Process(service.pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    return int(port)


def descriptors(pid: int) -> list[int]:
    """The numbers of those that it has open."""
    return [int(name) for name in os.listdir(f"/proc/{pid}/fd")]


def processor_time(service: Service) -> float:
    times = psutil.Process(service.pid).cpu_times()
    return float(times.user + times.system)


@pytest.mark.parametrize("room", [80, 0], ids=["nearly used up", "used up"])
def test_f27_a_service_at_its_descriptor_limit_serves_those_it_has_and_rests_and_recovers(
    room: int, cloud: Cloud
) -> None:
    service = cloud.service("one")
    caller = client(cloud.transport())
    caller.call({}, "echo", value=0)
    port = port_of(service)
    # A descriptor below the limit may be free, and is used first.
    limit = max(descriptors(service.pid)) + 1 + room
    before = resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    with ExitStack() as held:
        newcomers = [held.enter_context(dial(port)) for _ in range(room + 60)]
        wait_until(lambda: sum(map(was_cut_off, newcomers)) >= 50, "most are turned away")
        used, began = processor_time(service), time.monotonic()
        calls = 0
        while time.monotonic() < began + LOOKED_AT:
            wait_until(lambda: caller.call({}, "echo", value=1) == 1, "an answer")
            calls += 1
        spent = processor_time(service) - used
        assert spent < 0.001 * calls + 0.2 * LOOKED_AT, "it rests but for the calls"
        assert service.errors.count("hung up on a new connection") == 1
        assert f"the process may have {limit} open descriptors" in service.errors
    resource.prlimit(service.pid, resource.RLIMIT_NOFILE, before)
    newcomer = client(cloud.transport(), timeout=20)
    assert newcomer.call({}, "echo", value=2) == 2
    wait_until(lambda: len(descriptors(service.pid)) < limit - room + 4, "theirs are free again")


def test_f27_a_client_at_its_descriptor_limit_is_told_so_and_goes_on_with_those_it_knows(
    cloud: Cloud,
) -> None:
    cloud.service("known")
    transport = cloud.transport()
    known = client(transport, server="known")
    known.call({}, "echo", value=0)
    cloud.service("new")
    new = client(transport, server="new")
    # Its record is to be known, so that nothing stands in the way but the connection.
    directory = transport._driver._use().directory
    key = Key(Role.LISTENER, "openstack", "work", "new")
    wait_until(lambda: directory.refresh(key, 5), "it is found")
    with no_descriptors_left():
        with pytest.raises(MessagingTimeout, match="limit of open files"):
            new.prepare(timeout=1).call({}, "echo", value=1)
        with pytest.raises(MessageDeliveryFailure, match="limit of open files"):
            new.prepare(retry=0).cast({}, "note", text="lost")
        assert known.call({}, "echo", value=2) == 2
    assert new.call({}, "echo", value=3) == 3
    assert new.call({}, "noted") == []


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """This process can open nothing."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(descriptors(os.getpid())) + 1, before[1]))
    with ExitStack() as hoard:
        with suppress(OSError):
            while True:
                hoard.enter_context(open(os.devnull))  # below the limit
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
