# SPDX-License-Identifier: Apache-2.0
"""Connections that the kernel made of a port with itself.  None leaves a descriptor behind."""

from __future__ import annotations

import os
import socket

from zmq_core._waiting import met_itself


def test_a_port_that_is_connected_to_itself_is_known() -> None:
    with socket.socket() as end:
        end.bind(("127.0.0.1", 0))
        end.connect(end.getsockname())
        assert met_itself(end.fileno())


def test_a_connection_to_somebody_else_is_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as end:
            assert not met_itself(end.fileno())
        assert not met_itself(server.fileno())


def test_a_descriptor_that_was_closed_or_is_something_elses_by_now_is_none() -> None:
    fd = os.eventfd(0)
    assert not met_itself(fd)
    os.close(fd)
    assert not met_itself(fd)
