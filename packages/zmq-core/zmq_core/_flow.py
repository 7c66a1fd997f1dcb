# SPDX-License-Identifier: Apache-2.0
"""How much is under way to each peer by each proxy.  No I/O, no clock.

A proxy does not slow a sender down: what does not fit, it sends back.  So that
not too much comes back at once, every so many messages are followed by a PROBE on
the same road.  Its answer, whatever it is, says that all before it have been
taken or refused; and what was refused has come back before it.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Collection
from typing import Final

from zmq_core._envelope import ID_SIZE
from zmq_core._uplink import Uplink

__all__ = ["Flows"]

_MARK_AT: Final = 50
_WINDOW: Final = 100
_PEERS_MOST: Final = 4096

_Road = tuple[Uplink, bytes]


class _Flow:
    __slots__ = ("marker", "sent", "sent_before_marker")

    def __init__(self) -> None:
        self.sent = 0
        self.marker = b""
        self.sent_before_marker = 0


class Flows:
    """What was sent, by uplink and peer, and is not known to be through.  Not thread-safe."""

    def __init__(self) -> None:
        self._flows: OrderedDict[_Road, _Flow] = OrderedDict()
        self._roads: dict[bytes, _Road] = {}

    def full(self, peer: bytes, uplinks: Collection[Uplink]) -> list[Uplink]:
        """Those of `uplinks` by which enough is under way to `peer`."""
        flows = self._flows
        return [
            uplink
            for uplink in uplinks
            if (flow := flows.get((uplink, peer))) is not None and flow.sent >= _WINDOW
        ]

    def sent(self, uplink: Uplink, peer: bytes, message_id: bytes) -> bool:
        """A message went to `peer`; true if a PROBE with its id is to follow."""
        flow = self._flows.get((uplink, peer))
        if flow is None:
            flow = self._flows[uplink, peer] = _Flow()
            if len(self._flows) > _PEERS_MOST:
                _, oldest = self._flows.popitem(last=False)
                self._roads.pop(oldest.marker, None)
        flow.sent += 1
        if flow.marker or flow.sent < _MARK_AT:
            return False
        self._mark(flow, (uplink, peer), message_id)
        return True

    def _mark(self, flow: _Flow, road: _Road, marker: bytes) -> None:
        flow.marker, flow.sent_before_marker = marker, flow.sent
        self._roads[marker] = road

    def markers(self, peer: bytes, uplinks: Collection[Uplink]) -> list[tuple[Uplink, bytes]]:
        """The PROBEs to `peer` that are not answered, and by which uplink each is to go again.

        More may be under way than the window and a half, since many threads can find it open
        at the same time: then it is full without a PROBE, and gets one of its own.
        """
        found = []
        for uplink in uplinks:
            flow = self._flows.get((uplink, peer))
            if flow is not None and not flow.marker and flow.sent >= _WINDOW:
                self._mark(flow, (uplink, peer), os.urandom(ID_SIZE))
            if flow is not None and flow.marker:
                found.append((uplink, flow.marker))
        return found

    def confirmed(self, marker: bytes) -> bool:
        """The PROBE with that id was answered; false if it was none of these."""
        road = self._roads.pop(marker, None)
        flow = None if road is None else self._flows.get(road)
        if flow is None:
            return road is not None
        flow.sent -= flow.sent_before_marker
        flow.marker = b""
        return True

    def forget(self, uplink: Uplink) -> None:
        """`uplink` has ended."""
        for road in [road for road in self._flows if road[0] is uplink]:
            self._roads.pop(self._flows.pop(road).marker, None)
