# SPDX-License-Identifier: Apache-2.0
"""Bodies: what goes in comes out, and what cannot go in says so."""

from __future__ import annotations

import datetime
import json
import sys
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmq_core import Serializer
from zmq_oslo_driver.errors import SerializationError, UnreadableMessage
from zmq_oslo_driver.serialization import (
    Request,
    describe_failure,
    dump,
    load,
    load_failure,
    load_request,
)

SERIALIZERS = [Serializer.JSON, Serializer.MSGPACK]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize("serializer", SERIALIZERS)
@given(values)
def test_values_survive_the_round_trip(serializer: Serializer, value: Any) -> None:
    assert load(dump(value, serializer), serializer) == value


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_both_formats_turn_dates_and_uuids_into_the_same_text(serializer: Serializer) -> None:
    value = {
        "date": datetime.datetime(2026, 1, 2, 3, 4, 5, 6),
        "id": uuid.UUID(int=7),
    }
    assert load(dump(value, serializer), serializer) == {
        "date": "2026-01-02T03:04:05.000006",
        "id": "00000000-0000-0000-0000-000000000007",
    }


def test_a_circular_value_is_not_serialisable_and_the_error_names_the_format() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(SerializationError, match="not serialisable as json"):
        dump(loop, Serializer.JSON)


def test_a_number_beyond_64_bits_is_not_serialisable_as_msgpack() -> None:
    with pytest.raises(SerializationError, match="not serialisable as msgpack"):
        dump(2**70, Serializer.MSGPACK)


def test_the_formats_differ_in_keys_that_are_numbers_and_in_bytes() -> None:
    assert load(dump({1: 2}, Serializer.JSON), Serializer.JSON) == {"1": 2}
    assert load(dump({1: 2}, Serializer.MSGPACK), Serializer.MSGPACK) == {1: 2}
    assert load(dump(b"text", Serializer.JSON), Serializer.JSON) == "text"
    assert load(dump(b"\xff", Serializer.MSGPACK), Serializer.MSGPACK) == b"\xff"
    with pytest.raises(SerializationError, match="not serialisable as json"):
        dump(b"\xff", Serializer.JSON)


@pytest.mark.parametrize("serializer", SERIALIZERS)
@given(st.binary())
def test_any_bytes_are_read_or_refused(serializer: Serializer, body: bytes) -> None:
    try:
        load_request(body, serializer)
    except UnreadableMessage:
        return


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_request_carries_context_message_and_monitor_interval(serializer: Serializer) -> None:
    body = Request({"user": "me"}, {"method": "go"}, 3).dump(serializer)
    request = load_request(body, serializer)
    assert (request.context, request.message, request.monitor) == (
        {"user": "me"},
        {"method": "go"},
        3,
    )


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        b"[1, 2, 3]",
        b"7",
        b"[{}, 7, null]",
        b"[{}, null, null]",
        b'[{}, {}, "soon"]',
        b"[{}, {}, -1]",
        b"[{}, {}, NaN]",
        b"[{}, {}, 1e999]",
        b"[{}, {}, 1e300]",
    ],
)
def test_json_that_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(UnreadableMessage, match="not a list of context, message"):
        load_request(body, Serializer.JSON)


def test_raw_bodies_belong_to_other_applications() -> None:
    with pytest.raises(UnreadableMessage, match="does not use"):
        load(b"anything", Serializer.RAW)


@pytest.mark.parametrize(
    "described",
    [
        7,
        None,
        "why",
        "7",
        '{"tb": 7}',
        '{"message": 7, "class": "KeyError", "module": "builtins"}',
        '{"class": "ExceptionGroup", "module": "builtins", "args": ["why", []]}',
    ],
)
def test_a_failure_that_cannot_be_read_is_shown_as_it_came(described: Any) -> None:
    body = dump(described, Serializer.JSON)
    with pytest.raises(UnreadableMessage, match="the call failed") as caught:
        load_failure(body, Serializer.JSON, [])
    assert str(described) in str(caught.value)


def test_a_failure_comes_back_as_the_exception_that_it_was() -> None:
    body = dump(describe_failure(_failure(KeyError("the key"))), Serializer.JSON)
    failure = load_failure(body, Serializer.JSON, [])
    assert isinstance(failure, KeyError)
    assert "the key" in str(failure)


class _Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


def _failure(error: Exception) -> Any:
    try:
        raise error
    except type(error):
        return sys.exc_info()


def test_a_failure_with_unserialisable_arguments_keeps_class_text_and_traceback() -> None:
    loop: list[Any] = []
    loop.append(loop)
    described = json.loads(describe_failure(_failure(KeyError("the key", loop))))
    assert described["class"] == "KeyError"
    assert "the key" in described["message"]
    assert any("in _failure" in line for line in described["tb"])


def test_a_failure_whose_text_cannot_be_made_is_described_all_the_same() -> None:
    described = json.loads(describe_failure(_failure(_Silent())))
    assert described["class"] == "_Silent"
    assert "cannot be made" in described["message"]
