# SPDX-License-Identifier: Apache-2.0
"""What a refusal tells the one who waits for the answer."""

from __future__ import annotations

import logging
import time

import msgspec
import pytest

from zmq_core import (
    CoreError,
    Envelope,
    MessageType,
    NackCode,
    NotDelivered,
    QueueFull,
    RateLimitedLog,
    Refused,
    TargetKey,
    encode,
)
from zmq_core._outstanding import Outstanding
from zmq_core._pending import FOREVER, Patience, PendingRequest
from zmq_core._statistics import Statistics

CALL = Envelope(type=MessageType.CALL, id=b"0123456789abcdef", key=TargetKey("a", "b").encoded)


def outcome(nack: Envelope) -> Envelope | CoreError:
    returned: list[Envelope] = []
    log = RateLimitedLog(logging.getLogger(__name__))
    outstanding = Outstanding("tcp://h:1", Statistics(), log, returned.append)
    pending = PendingRequest(Patience(time.monotonic(), FOREVER, None))
    outstanding.add(CALL.id, pending)
    answered = outstanding.take(encode(nack))
    assert answered is not None
    assert answered[0] is pending
    assert returned == []
    return answered[1]


@pytest.mark.parametrize("code", set(NackCode) - {NackCode.QUEUE_FULL})
def test_a_refusal_tells_its_code_and_that_nobody_has_the_message(code: NackCode) -> None:
    error = outcome(CALL.refused(code))
    assert isinstance(error, Refused)
    assert isinstance(error, NotDelivered)
    assert error.code is code
    assert code.name.lower().replace("_", " ") in str(error)


def test_a_full_queue_of_a_proxy_is_one_like_that_of_a_peer() -> None:
    error = outcome(CALL.refused(NackCode.QUEUE_FULL))
    assert isinstance(error, QueueFull)
    assert "tcp://h:1" in str(error)


def test_a_refused_cast_without_a_key_brings_nothing_back() -> None:
    cast = Envelope(type=MessageType.CAST, id=CALL.id, key=CALL.key, body=b"x")
    nack = cast.refused(NackCode.UNKNOWN_KEY)
    assert nack.returned() == cast
    assert msgspec.structs.replace(nack, key=b"").returned() is None
