# SPDX-License-Identifier: Apache-2.0
"""Who else is there while a node is fuzzed: a stranger, and a pair that must not notice."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import zmq

from zmq_core import (
    Envelope,
    MessageType,
    NackCode,
    Node,
    NodeOptions,
    TargetKey,
    decode,
    encode,
)

__all__ = ["HONEST", "LARGEST", "OPTIONS", "PATIENCE", "HonestPair", "Stranger"]

HONEST: Final = TargetKey("honest", "echo")
LARGEST: Final = 3500
"""Octets of a frame; a key of the greatest length is a little shorter."""
PATIENCE: Final = 20.0
"""Seconds for anything to happen, on a busy machine."""
OPTIONS: Final = NodeOptions(
    bind_address="127.0.0.1", linger=0.2, max_message_size=LARGEST, heartbeat_timeout=PATIENCE
)
_SIGN_OF_LIFE: Final = bytes(16)


class HonestPair:
    """A node that calls another: each call must be answered, over the same connection.

    Either may be the node under test.
    """

    def __init__(self, caller: Node, server: Node) -> None:
        self._caller = caller
        self._endpoint = server.bind()
        server.serve(HONEST, lambda incoming: incoming.reply(incoming.body))
        self._numbers = itertools.count()
        self.check()
        self._link = caller.links[self._endpoint]

    def check(self) -> None:
        """Fail unless a call is answered."""
        body = b"%d" % next(self._numbers)
        reply = self._caller.request(self._endpoint, HONEST, body, timeout=PATIENCE)
        assert reply.body == body, f"{body!r} was answered with {reply}"

    def check_connection(self) -> None:
        """Fail if the connection is another."""
        assert self._caller.links[self._endpoint] is self._link, "the honest peer was cut off"


class Stranger:
    """A DEALER that sends any frames to the node at `endpoint`."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._numbers = itertools.count(1)
        self._connect()

    def _connect(self) -> None:
        self._dealer = self._context.socket(zmq.DEALER)
        self._dealer.set(zmq.LINGER, 0)
        self._dealer.set(zmq.RECONNECT_IVL, -1)
        self._dealer.set(zmq.SNDTIMEO, int(PATIENCE * 1000))
        self._ends = self._dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._dealer.connect(self._endpoint)

    def _disconnect(self) -> None:
        self._dealer.disable_monitor()
        self._ends.close(0)
        self._dealer.close(0)

    def send(self, frames: Sequence[bytes]) -> None:
        """Send a message; one without frames cannot be sent, and is one of an empty frame."""
        self._dealer.send_multipart(list(frames) or [b""])

    def answers(self) -> list[Envelope]:
        """What was answered to all that was sent until now, asked for with a PROBE behind it."""
        probe = Envelope(type=MessageType.PROBE, id=b"a probe:" + self.number())
        self._dealer.send_multipart(encode(probe))
        answers: list[Envelope] = []
        while True:
            assert self._dealer.poll(int(PATIENCE * 1000)), f"no answer but {answers}"
            answer = decode(self._dealer.recv_multipart())
            if answer == probe.refused(NackCode.UNKNOWN_ID):
                return answers
            if answer != Envelope(type=MessageType.HEARTBEAT, id=_SIGN_OF_LIFE):
                answers.append(answer)

    def number(self) -> bytes:
        """Eight octets that were not given out before."""
        return next(self._numbers).to_bytes(8, "big")

    def expect_end(self) -> None:
        """Fail unless the node ends the connection; then make another."""
        assert self._ends.poll(int(PATIENCE * 1000)), "the connection did not end"
        self._disconnect()
        self._connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._disconnect()
        self._context.term()
