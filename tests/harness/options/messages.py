# SPDX-License-Identifier: Apache-2.0
"""What is seen of the options that are about messages."""

from __future__ import annotations

import itertools
import time
from typing import Any

import msgspec
import oslo_messaging
import zmq
from oslo_messaging import MessageDeliveryFailure

from harness.leaks import wait_until
from harness.options.bench import Bench, Endpoint, client
from harness.options.peers import Ear, FakeServer
from zmq_core import Envelope, Flag, MessageType, encode
from zmq_oslo_driver.errors import SerializationError

__all__ = [
    "casts_accepted",
    "copies_sent",
    "growth_of_the_pause",
    "runs_of_a_repeated_message",
    "seconds_for_a_cast_to_nobody",
    "seconds_for_a_notification",
    "seconds_to_the_second_copy",
    "takes_100_kilobytes",
    "wants_an_acknowledgement",
    "way_of_writing",
]


def way_of_writing(bench: Bench) -> tuple[str, bytes]:
    """What the header says of a message's body, and how that begins."""
    envelope = _first_cast(bench)
    return envelope.serializer.name, envelope.body[:1]


def takes_100_kilobytes(bench: Bench) -> str:
    """What comes of a call with so much in it."""
    with bench.server(bench.registry), bench.transport(bench.registry) as transport:
        try:
            client(transport).call({}, "echo", text="x" * 100_000)
        except SerializationError as error:
            return "refused" if "zmq_max_message_size" in str(error) else str(error)
        return "answered"


def seconds_for_a_cast_to_nobody(bench: Bench) -> float:
    """How long a cast waits for somebody to listen."""
    with bench.transport(bench.registry) as transport:
        began = time.monotonic()
        assert not _is_delivered(client(transport))
        return time.monotonic() - began


def seconds_for_a_notification(bench: Bench) -> float:
    """How long a notification waits for a listener that cannot be reached."""
    with Ear() as mute:
        url = bench.table(mute.port, role="notification", topic="events.info")
        with bench.transport(url, notifications=True) as transport:
            notifier = oslo_messaging.Notifier(
                transport, "publisher", driver="messaging", topics=["events"]
            )
            began = time.monotonic()
            notifier.info({}, "event", {})
            return time.monotonic() - began


def casts_accepted(bench: Bench) -> int:
    """How many casts a server accepts while its only worker is busy."""
    options: dict[str, Any] = {
        "rpc_use_acks": True,
        "rpc_ack_timeout_base": 1.0,
        "rpc_retry_attempts": 0,
    }
    with (
        bench.server(bench.registry, workers=1),
        bench.transport(bench.registry, tried=False, **options) as transport,
    ):
        caller = client(transport)
        for number in itertools.count():
            if not _is_delivered(caller, "wait"):
                return number
    raise AssertionError("never")


# -- acknowledgements ------------------------------------------------------------------


def wants_an_acknowledgement(bench: Bench) -> tuple[bool, bool]:
    """Whether a cast asks for one, and counts as delivered without."""
    with FakeServer() as server:
        delivered = _cast(bench, server, rpc_retry_attempts=0)
        wait_until(lambda: _casts(server), "it came")
        return bool(_casts(server)[0][1].flags & Flag.ACK_WANTED), delivered


def copies_sent(bench: Bench) -> int:
    """How often a cast is sent that nobody acknowledges."""
    with FakeServer() as server:
        assert not _cast(bench, server, rpc_use_acks=True, rpc_ack_timeout_multiplier=1)
        copies = _casts(server)
        assert len({envelope.id for _, envelope in copies}) == 1
        return len(copies)


def seconds_to_the_second_copy(bench: Bench) -> float:
    """After how long a cast is sent again that was not acknowledged."""
    with FakeServer() as server:
        assert not _cast(
            bench, server, rpc_use_acks=True, rpc_retry_attempts=1, rpc_ack_timeout_multiplier=1
        )
        (first, _), (second, _) = _casts(server)
        return second - first


def growth_of_the_pause(bench: Bench) -> float:
    """How much longer the second acknowledgement is waited for than the first, in seconds."""
    with FakeServer() as server:
        options = {
            "rpc_use_acks": True,
            "rpc_ack_timeout_base": 0.2,
            "rpc_retry_attempts": 2,
            "zmq_send_timeout": 4,
        }
        assert not _cast(bench, server, **options)
        times = [moment for moment, _ in _casts(server)]
        return (times[2] - times[1]) - (times[1] - times[0])


def runs_of_a_repeated_message(bench: Bench) -> int:
    """How often a server executes a message that comes again half a second later."""
    message = _first_cast(bench, rpc_use_acks=True)
    other = msgspec.structs.replace(message, id=bytes(16))
    with bench.server(bench.registry) as endpoint:
        [record] = bench.records(bench.registry)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            dealer = context.socket(zmq.DEALER)
            dealer.connect(record.endpoint)
            _send_for_acknowledgement(dealer, message)
            repeat_at = time.monotonic() + 0.5
            wait_until(lambda: time.monotonic() >= repeat_at, "time passes")
            for envelope in (other, message):
                _send_for_acknowledgement(dealer, envelope)
            return _runs(endpoint)
        finally:
            context.destroy(linger=0)


def _runs(endpoint: Endpoint) -> int:
    """Of `message`, when both have been executed and no more comes; the other ran once."""
    wait_until(lambda: len(endpoint.noted) >= 2, "both were executed")
    until = time.monotonic() + 0.1
    wait_until(lambda: len(endpoint.noted) > 2 or time.monotonic() > until, "one more may come")
    return len(endpoint.noted) - 1


def _send_for_acknowledgement(dealer: zmq.Socket[bytes], envelope: Envelope) -> None:
    dealer.send_multipart(encode(envelope))
    assert dealer.poll(5000), "no acknowledgement"
    dealer.recv_multipart()


def _first_cast(bench: Bench, **options: Any) -> Envelope:
    """What goes on the wire for a cast."""
    with FakeServer() as server:
        _cast(bench, server, rpc_retry_attempts=0, **options)
        wait_until(lambda: _casts(server), "it came")
        return _casts(server)[0][1]


def _cast(bench: Bench, server: FakeServer, **options: Any) -> bool:
    """Send a cast to a server that acknowledges nothing; whether it counts as delivered."""
    options = {"rpc_ack_timeout_base": 0.1, **options}
    with bench.transport(bench.table(server.port), **options, zmq_linger=1) as transport:
        return _is_delivered(client(transport))


def _is_delivered(caller: Any, method: str = "note") -> bool:
    try:
        caller.cast({}, method, **({"text": "x"} if method == "note" else {}))
    except MessageDeliveryFailure:
        return False
    return True


def _casts(server: FakeServer) -> list[tuple[float, Envelope]]:
    return [item for item in server.received if item[1].type is MessageType.CAST]
