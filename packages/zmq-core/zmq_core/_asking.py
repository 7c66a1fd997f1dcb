# SPDX-License-Identifier: Apache-2.0
"""Requests of ours that are out through proxies: who waits for which, and asking after them.

What an answer means is decided in `_routed.py`; here are the table, the timer and the probes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from typing import Final

from zmq_core._envelope import Envelope
from zmq_core._errors import ProxyLost
from zmq_core._options import NodeOptions
from zmq_core._reactor import Reactor
from zmq_core._ring import Ring
from zmq_core._roster import Roster
from zmq_core._routed import Asked, judge, probe_of
from zmq_core._silent import SilentPeers
from zmq_core._uplink import Uplink

__all__ = ["AskedRequests"]

_LOOKS: Final = 4
"""In a heartbeat interval, for requests that are to be asked after."""


class AskedRequests:
    """Those of one node, which is called `name`.  Thread-safe; times are in seconds."""

    def __init__(
        self,
        name: bytes,
        roster: Roster[Uplink],
        ring: Ring[Uplink],
        silent: SilentPeers,
        reactor: Reactor,
        options: NodeOptions,
    ) -> None:
        self._name = name
        self._roster = roster
        self._ring = ring
        self._silent = silent
        self._reactor = reactor
        self._interval = options.heartbeat_interval
        self._timeout = options.heartbeat_timeout
        self._lock = threading.Lock()
        self._asked: dict[bytes, Asked] = {}
        self._probing = False
        self._closed = False

    def add(self, message_id: bytes, asked: Asked) -> None:
        """A request is about to go out: from now on its answer is recognised."""
        with self._lock:
            self._asked[message_id] = asked

    def forget(self, message_id: bytes) -> None:
        """Nobody waits for that one any more."""
        with self._lock:
            self._asked.pop(message_id, None)

    def sent(self, message_id: bytes, asked: Asked, uplink: Uplink) -> None:
        """The request has gone by `uplink`: from now on it is asked after."""
        asked.pending.sign_of_life()
        with self._lock:
            asked.uplink = uplink
            asked.probe_at = time.monotonic() + self._interval
            probing, self._probing = self._probing, True
            lost = not self._roster.ready and self._asked.pop(message_id, None) is asked
        if not probing:
            self._look_later()
        if lost:
            asked.pending.complete(ProxyLost(asked.endpoint, _loss(uplink)))

    def take(self, sender: bytes, answer: Envelope, uplink: Uplink) -> bool:
        """An answer has come from `sender`; false if nobody waits for it."""
        with self._lock:
            asked = self._asked.get(answer.id)
            if asked is None or not asked.concerns(sender, answer):
                return False
            outcome = judge(asked, answer, uplink, self._roster.ready)
            if outcome is not None:
                del self._asked[answer.id]
            elif uplink in asked.denied_by:
                self._ask_others_soon(asked)
        if outcome is not None:
            asked.pending.complete(outcome)
        return True

    def ended(self, last: Uplink) -> None:
        """If no proxy is left to ask after the requests that are out, fail them."""
        with self._lock:
            if self._roster.ready:
                return
            sent = {id_: asked for id_, asked in self._asked.items() if asked.uplink is not None}
            for message_id in sent:
                del self._asked[message_id]
        for asked in sent.values():
            asked.pending.complete(ProxyLost(asked.endpoint, _loss(last)))

    def close(self, reason: str) -> None:
        """Fail all, and ask no more.  Idempotent."""
        with self._lock:
            self._closed = True
            requests, self._asked = list(self._asked.values()), {}
        for asked in requests:
            asked.pending.complete(ProxyLost(asked.endpoint, reason))

    # -- asking after them, on the reactor's thread ----------------------------------

    def _ask_others_soon(self, asked: Asked) -> None:
        """One proxy knows nothing of the peer: whether another does is worth less of a wait.

        Where there is no other, the peer has a heartbeat interval to connect again.
        """
        if not asked.denied_by.issuperset(self._roster.ready):
            asked.probe_at = min(asked.probe_at, time.monotonic() + self._interval / _LOOKS)

    def _look_later(self) -> None:
        self._reactor.call_later(self._interval / _LOOKS, self._look)

    def _look(self) -> None:
        """Ask after the requests that are out for long; give those up that get no answer."""
        now, proxies = time.monotonic(), len(self._roster.ready)
        with self._lock:
            due = [item for item in self._asked.items() if item[1].probe_at <= now]
            # Counted and not timed: this process may have stood still itself.
            silent = {
                id_ for id_, asked in due if asked.silent(self._timeout / self._interval, proxies)
            }
            for message_id in silent:
                del self._asked[message_id]
            probing = self._probing = bool(self._asked) and not self._closed
        for message_id, asked in due:
            if message_id in silent:
                self._silent.add(asked.peer)
                asked.pending.complete(asked.silence(self._interval + self._timeout))
                continue
            asked.probe_at = now + self._interval
            if uplinks := self._probe(message_id, asked):
                asked.probed(uplinks)
        if probing:
            self._look_later()

    def _probe(self, message_id: bytes, asked: Asked) -> Collection[Uplink]:
        """Ask after a request; by which uplinks.

        By another than those by which that was for nothing: they, or the roads to them, may
        be at fault.  Where one proxy has no connection to the peer, by all others at once.
        """
        probe = probe_of(asked.peer, self._name, message_id)
        if asked.denied_by:
            others = [it for it in self._roster.ready if it not in asked.denied_by]
            if sent := [uplink for uplink in others if uplink.send(probe)]:
                return sent
        uplink = self._ring.offer(probe, asked.asked_by) or self._ring.offer(probe)
        return () if uplink is None else (uplink,)


def _loss(uplink: Uplink) -> str:
    return f"the proxy {uplink.proxy.name}: {uplink.reason}"
