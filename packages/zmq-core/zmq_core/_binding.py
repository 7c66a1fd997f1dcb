# SPDX-License-Identifier: Apache-2.0
"""Finding a port to listen on."""

from __future__ import annotations

import errno
import random

import zmq

from zmq_core._address import BindAddress
from zmq_core._errors import ConfigurationError, PortsRangeExceeded
from zmq_core._options import NodeOptions
from zmq_core._sockets import Socket

__all__ = ["bind_in_range"]


def bind_in_range(socket: Socket, address: BindAddress, options: NodeOptions) -> int:
    """Bind `socket` to a free port of the configured range and return the port.

    Ports are tried from a random one on, so that processes which start together
    do not contend for the same.

    :raises PortsRangeExceeded: every port that was tried is in use.
    :raises ConfigurationError: the address cannot be bound at all.
    """
    size = options.max_port - options.min_port
    start = random.randrange(size)
    tried = min(size, options.bind_retries)
    for offset in range(tried):
        port = options.min_port + (start + offset) % size
        try:
            socket.bind(address.endpoint(port))
        except zmq.ZMQError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            raise ConfigurationError(
                "bind_address", f"cannot bind {address.endpoint(port)}: {error.strerror}"
            ) from error
        return port
    raise PortsRangeExceeded(
        "min_port",
        f"ports range exceeded: {tried} of the {size} ports from {options.min_port} up to, not "
        f"including, {options.max_port} were tried on {address.host!r} and all are in use; "
        "widen the range or stop what holds it",
    )
