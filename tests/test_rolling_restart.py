# SPDX-License-Identifier: Apache-2.0
"""Servers that are restarted one after another, and servers that are killed, under load."""

from __future__ import annotations

import pytest

from harness.cloud import Cloud
from harness.leaks import wait_until
from harness.services import Service
from harness.traffic import Callers, client
from zmq_oslo_driver.errors import ServerLost

pytestmark = pytest.mark.alone

NAMES = ("one", "two", "three")
ROADS = {
    "direct": {"use_router_proxy": False, "use_pub_sub": False},
    "routers": {"use_router_proxy": True, "use_pub_sub": False},
    "publishers": {"use_router_proxy": False, "use_pub_sub": True},
}
_ROLES = {"routers": "router", "publishers": "publisher"}


@pytest.fixture(params=ROADS)
def road(request: pytest.FixtureRequest, cloud: Cloud) -> Cloud:
    """A cloud with each kind of road between its services, and the proxies for it."""
    cloud.configure(**ROADS[request.param])
    if request.param in _ROLES:
        cloud.proxies(2, role=_ROLES[request.param])
    return cloud


def test_a_rolling_restart_of_three_servers_costs_no_call_and_no_pause(road: Cloud) -> None:
    services = dict(zip(NAMES, road.services(NAMES), strict=True))
    caller = client(road.transport(), timeout=30)

    def await_answer_of(service: Service) -> None:
        wait_until(lambda: caller.call({}, "whoami")[1] == service.pid, "the new one is used")

    with Callers(lambda: caller.call({}, "echo", value=1)) as callers:
        callers.more(200)
        for name in NAMES:
            services[name].stop()
            callers.more(100)
            services[name] = road.service(name)
            await_answer_of(services[name])
    assert callers.failures == []
    assert callers.longest_gap < 1


def test_f03_a_killed_server_costs_the_calls_that_it_held_and_nobody_stalls(road: Cloud) -> None:
    services = road.services(NAMES)
    caller = client(road.transport(), timeout=60)
    with Callers(lambda: caller.call({}, "echo", value=1)) as callers:
        callers.more(500)
        services[0].kill()
        callers.more(2000)
    assert len(callers.failures) <= 8, "each caller has one call out"
    assert all(isinstance(error, ServerLost) for _, error in callers.failures)
    assert callers.longest < 5, "a caller learns it long before its timeout"
    assert callers.longest_gap < 2
