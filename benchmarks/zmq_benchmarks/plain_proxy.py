# SPDX-License-Identifier: Apache-2.0
"""A process that does nothing but libzmq's `zmq_proxy`, between two sockets with its defaults.

Started as `python -m zmq_benchmarks.plain_proxy CONFIG`; tells where the two listen, and ends
with its standard input.
"""

from __future__ import annotations

import os
import sys
import threading

import msgspec
import zmq

from zmq_benchmarks.protocol import Ready

__all__ = ["PlainConfig", "main"]


class PlainConfig(msgspec.Struct, frozen=True):
    """The kinds of the two sockets, such as `ROUTER`."""

    frontend: str
    backend: str


def _bound(context: zmq.Context[zmq.Socket[bytes]], kind: str) -> zmq.Socket[bytes]:
    made = context.socket(zmq.SocketType[kind])
    made.bind("tcp://127.0.0.1:*")
    return made


def main(arguments: list[str]) -> None:
    """Forward until the standard input ends."""
    config = msgspec.json.decode(arguments[0], type=PlainConfig)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    frontend, backend = _bound(context, config.frontend), _bound(context, config.backend)
    ends = " ".join(each.get_string(zmq.LAST_ENDPOINT) for each in (frontend, backend))
    sys.stdout.buffer.write(msgspec.json.encode(Ready(ends)) + b"\n")
    sys.stdout.buffer.flush()
    threading.Thread(target=zmq.proxy, args=(frontend, backend), daemon=True).start()
    sys.stdin.buffer.read()
    os._exit(0)  # zmq_proxy knows no end


if __name__ == "__main__":
    main(sys.argv[1:])
