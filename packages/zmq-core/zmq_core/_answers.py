# SPDX-License-Identifier: Apache-2.0
"""Answers to what came through a proxy: by the same, or by another if that has gone."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Sequence
from typing import Final

from zmq_core._envelope import Envelope, encode
from zmq_core._linkcontext import LinkContext
from zmq_core._options import NodeOptions, check_size
from zmq_core._ring import Ring
from zmq_core._uplink import Uplink

__all__ = ["Answers"]

_RETRY: Final = 0.02


class Answers:
    """Takes answers to a message that came by `uplink`.  Thread-safe."""

    __slots__ = ("_context", "_name", "_options", "_pid", "_ring", "_uplink")

    def __init__(
        self,
        uplink: Uplink,
        ring: Ring[Uplink],
        context: LinkContext,
        name: bytes,
        options: NodeOptions,
    ) -> None:
        self._uplink = uplink
        self._ring = ring
        self._context = context
        self._name = name
        self._options = options
        self._pid = os.getpid()

    def answer(self, peer: bytes, envelope: Envelope, *, patience: float = 0.0) -> bool:
        """Send an answer, trying again for `patience` seconds.

        Does not block.  Returns false if it is known by now that it cannot be sent.

        :raises MessageTooLarge: the peer would not take it.
        """
        check_size(envelope.body, self._options)
        if self._pid != os.getpid():
            return False  # a fork's copy: the peer is the parent's
        frames = [peer, self._name, *encode(envelope)]
        return self._try(frames, envelope, time.monotonic() + patience)

    def _try(self, frames: Sequence[bytes], answer: Envelope, deadline: float) -> bool:
        uplink, requests = self._uplink, self._context.reception.requests
        if uplink.send(frames) or (uplink.closed and self._ring.offer(frames)):
            requests.answered(frames[0], answer, time.monotonic())
            return True
        if time.monotonic() + _RETRY < deadline and not self._ring.closed:
            # Who asks after it meanwhile, by another proxy, is told that it is here.
            again = functools.partial(self._try_again, frames, answer, deadline)
            self._context.reactor.call_later(_RETRY, again)
            return True
        requests.answered(frames[0], answer, time.monotonic())
        self._context.statistics.replies_dropped += 1
        self._context.log.warning(
            ("answer", frames[0]),
            "dropped a %s to %r: no proxy takes it",
            answer.type.name,
            frames[0],
        )
        return False

    def _try_again(self, frames: Sequence[bytes], answer: Envelope, deadline: float) -> None:
        self._try(frames, answer, deadline)
