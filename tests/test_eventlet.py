# SPDX-License-Identifier: Apache-2.0
"""The same code under eventlet's monkey-patching, on both ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness.services import Child, Service, python

pytestmark = pytest.mark.alone

MakeService = Callable[..., Service]

HUB_STALL = 0.05
"""Longest that the hub may stand still while a call waits, in seconds."""


@pytest.fixture(params=["green server", "native server"])
def report(
    url: str, make_service: MakeService, request: pytest.FixtureRequest
) -> list[dict[str, Any]]:
    """What a green client says of its calls to a service."""
    service = make_service(url, ("", "work", "one"), eventlet=request.param == "green server")
    with Child(python("-W", "ignore", "-m", "harness.green_client", url)) as client:
        said = [client.hear(timeout=60) for _ in range(4)]
        client.process.wait(timeout=20)
    said.append(service.stop())
    return said


def test_f28_green_threads_call_side_by_side_and_the_hub_goes_on(
    report: list[dict[str, Any]],
) -> None:
    slow, many, timeout, end, server = report
    assert 1.0 <= slow["slow_calls"] < 2.0, "20 calls of one second, at once"
    assert many["right"], "1000 green threads each got their own answer"
    assert timeout["timed_out"]
    stalls = timeout["stalls"]
    assert stalls[int(len(stalls) * 0.95)] < HUB_STALL, "the hub ran while a call waited"
    assert end["cleanup"] < 3
    for name in ("threads", "native threads", "descriptors", "children"):
        # The hub keeps a descriptor or two of its own once it has been used.
        spare = 3 if name == "descriptors" else 0
        assert end["after"][name] <= end["before"][name] + spare, (name, end)
        assert server["after"][name] <= server["before"][name] + spare, (name, server)
    assert server["seconds"] < 3
