# SPDX-License-Identifier: Apache-2.0
"""The envelope: what goes in comes out, and no bytes do harm."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmq_core import (
    Envelope,
    Flag,
    MalformedMessage,
    MessageType,
    NackCode,
    Serializer,
    TargetKey,
    UnsupportedVersion,
    decode,
    encode,
)

ID = bytes(range(16))
KEY = TargetKey("e", "t", "s")
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=64)
KEYS = st.builds(TargetKey, NAMES, NAMES, NAMES)
ASKING = [MessageType.CALL, MessageType.CAST, MessageType.FANOUT, MessageType.NOTIFY]
ENVELOPES = st.builds(
    Envelope,
    type=st.sampled_from(MessageType),
    id=st.binary(min_size=16, max_size=16),
    key=KEYS.map(lambda key: key.encoded),
    body=st.binary(max_size=2000),
    serializer=st.sampled_from(Serializer),
    flags=st.integers(0, 255),
    code=st.integers(0, 255),
    subject=st.integers(0, 255),
    ttl=st.integers(0, 2**32 - 1).map(lambda milliseconds: milliseconds / 1000),
)


@given(ENVELOPES)
def test_envelope_comes_out_as_it_went_in(envelope: Envelope) -> None:
    assert decode(encode(envelope)) == envelope


@given(st.lists(st.binary(max_size=200), max_size=6))
def test_any_frames_are_a_message_or_malformed(frames: list[bytes]) -> None:
    try:
        assert isinstance(decode(frames), Envelope)
    except MalformedMessage:
        return


@given(ENVELOPES, st.data())
def test_mutated_messages_are_a_message_or_malformed(
    envelope: Envelope, data: st.DataObject
) -> None:
    frames = encode(envelope)
    which = data.draw(st.integers(0, 1))
    frame = bytearray(frames[which])
    for _ in range(data.draw(st.integers(1, 4))):
        if frame:
            frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    frames[which] = bytes(frame[: data.draw(st.integers(0, len(frame)))])
    try:
        decoded = decode(frames)
    except MalformedMessage:
        return
    assert decode(encode(decoded)) == decoded
    if decoded.type in ASKING:
        TargetKey.decode(decoded.key)


@pytest.mark.parametrize("kind", ASKING)
def test_message_that_needs_a_listener_but_names_no_key_is_malformed(kind: MessageType) -> None:
    with pytest.raises(MalformedMessage, match="target key"):
        decode(encode(Envelope(type=kind, id=ID)))


@pytest.mark.parametrize("kind", [kind for kind in MessageType if kind not in ASKING])
def test_answers_need_no_key(kind: MessageType) -> None:
    assert decode(encode(Envelope(type=kind, id=ID))).key == b""


def test_other_version_is_refused_by_number_with_the_message_id() -> None:
    header = bytearray(encode(Envelope(type=MessageType.CALL, id=ID, key=KEY.encoded))[0])
    header[2] = 2
    with pytest.raises(UnsupportedVersion, match="version 2") as caught:
        decode([bytes(header), KEY.encoded, b""])
    assert caught.value.version == 2
    assert caught.value.message_id == ID
    assert caught.value.code is NackCode.UNSUPPORTED_VERSION


@pytest.mark.parametrize("more_frames", [0, 1, 5])
def test_longer_header_of_a_newer_version_still_tells_its_id(more_frames: int) -> None:
    header = bytearray(encode(Envelope(type=MessageType.CALL, id=ID))[0])
    header[2] = 9
    with pytest.raises(UnsupportedVersion) as caught:
        decode([bytes(header) + b"new fields", *[b"x"] * more_frames])
    assert caught.value.message_id == ID


def test_longer_header_of_this_version_is_malformed_and_tells_its_id() -> None:
    header, key, body = encode(Envelope(type=MessageType.CALL, id=ID, key=KEY.encoded))
    with pytest.raises(MalformedMessage, match="29 bytes") as caught:
        decode([header + b"x", key, body])
    assert caught.value.message_id == ID
    assert caught.value.code is NackCode.MALFORMED


def test_shorter_header_of_another_version_has_no_id() -> None:
    with pytest.raises(UnsupportedVersion) as caught:
        decode([b"Zo\x07\x01"])
    assert caught.value.message_id == b""


@pytest.mark.parametrize(
    ("offset", "value", "problem"),
    [(3, 0, "unknown message type 0"), (3, 99, "message type 99"), (5, 77, "serializer 77")],
)
def test_unknown_type_or_serializer_is_named_and_the_message_id_known(
    offset: int, value: int, problem: str
) -> None:
    frames = encode(Envelope(type=MessageType.CALL, id=ID, key=KEY.encoded))
    header = bytearray(frames[0])
    header[offset] = value
    with pytest.raises(MalformedMessage, match=problem) as caught:
        decode([bytes(header), *frames[1:]])
    assert caught.value.message_id == ID


@pytest.mark.parametrize(
    ("seconds", "milliseconds"),
    [
        (0.0, 0),
        (-1.0, 0),
        (1e-9, 1),
        (0.001, 1),
        (1.001, 1001),
        (1.5, 1500),
        (2**32 / 1000, 2**32 - 1),
        (1e300, 2**32 - 1),
        (float("inf"), 2**32 - 1),
    ],
)
def test_time_to_live_is_cut_to_what_the_header_holds(seconds: float, milliseconds: int) -> None:
    header = encode(Envelope(type=MessageType.CALL, id=ID, ttl=seconds))[0]
    assert struct.unpack_from("!I", header, 8) == (milliseconds,)


def test_id_of_another_length_is_an_error_here_rather_than_padding_on_the_wire() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        encode(Envelope(type=MessageType.CALL, id=b"short"))


@pytest.mark.parametrize("kind", [MessageType.CAST, MessageType.NOTIFY])
def test_refusal_of_what_nobody_waits_for_brings_it_back_whole(kind: MessageType) -> None:
    sent = Envelope(
        type=kind, id=ID, key=KEY.encoded, body=b"body", serializer=Serializer.JSON, ttl=2.5
    )
    nack = decode(encode(sent.refused(NackCode.UNKNOWN_KEY)))
    assert nack.type is MessageType.NACK
    assert nack.nack_code is NackCode.UNKNOWN_KEY
    assert nack.returned() == sent


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        (MessageType.CALL, 0),
        (MessageType.FANOUT, 0),
        (MessageType.CAST, Flag.ACK_WANTED),
        (MessageType.NOTIFY, Flag.ACK_WANTED),
    ],
)
def test_refusal_of_what_its_sender_still_holds_brings_no_body(
    kind: MessageType, flags: int
) -> None:
    sent = Envelope(type=kind, id=ID, key=KEY.encoded, body=b"body", flags=flags)
    nack = decode(encode(sent.refused(NackCode.UNKNOWN_KEY)))
    assert nack.body == b""
    assert nack.id == ID
    assert nack.returned() is None


def test_nack_code_of_a_newer_peer_counts_as_malformed() -> None:
    assert Envelope(type=MessageType.NACK, id=ID, code=200).nack_code is NackCode.MALFORMED


@given(KEYS)
def test_key_comes_out_as_it_went_in(key: TargetKey) -> None:
    assert TargetKey.decode(key.encoded) == key


@given(KEYS, KEYS)
def test_different_keys_have_different_encodings(one: TargetKey, other: TargetKey) -> None:
    assert (one == other) == (one.encoded == other.encoded)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("nova", "compute", ""), ("neutron", "compute", "")),
        (("nova", "compute", ""), ("nova", "compute-x", "")),
        (("nova", "a.b", "c"), ("nova", "a", "b.c")),
        (("nova", "cinder-volume", "host@lvm"), ("nova", "cinder-volume.host@lvm", "host")),
        (("a", "b", ""), ("a", "", "b")),
        (("a/b", "c", ""), ("a", "b/c", "")),
        (("x", "y\0z", ""), ("x", "y", "z")),
        (("é", "t", ""), ("e\u0301", "t", "")),
    ],
)
def test_keys_that_read_alike_are_apart(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    first, second = TargetKey(*one), TargetKey(*other)
    assert first.encoded != second.encoded
    assert TargetKey.decode(first.encoded) == first
    assert TargetKey.decode(second.encoded) == second


def test_encoded_key_is_never_a_prefix_of_another() -> None:
    short, longer = TargetKey("e", "nova"), TargetKey("e", "nova-x")
    assert not longer.encoded.startswith(short.encoded)
    assert not TargetKey("e", "nova", "x").encoded.startswith(short.encoded)


@pytest.mark.parametrize("part", ["exchange", "topic", "server"])
def test_key_part_that_is_no_text_or_too_long_is_named(part: str) -> None:
    parts = {"exchange": "e", "topic": "t", "server": "s"}
    with pytest.raises(ValueError, match=part):
        TargetKey(**{**parts, part: "\ud800"})
    with pytest.raises(ValueError, match=f"{part} has 1025 bytes"):
        TargetKey(**{**parts, part: "x" * 1025})


def test_longest_key_part_is_a_kibibyte_of_utf8() -> None:
    key = TargetKey("é" * 512, "t")
    assert TargetKey.decode(key.encoded) == key
    with pytest.raises(ValueError, match="1026 bytes"):
        TargetKey("é" * 513, "t")


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"\0",
        b"\0\1",
        b"\0\1a\0\1b",
        KEY.encoded + b"\0",
        b"\0\1\xff" + b"\0\0" * 2,
        b"\xff\xff" + b"a" * 65535 + b"\0\0" * 2,
        b"\x04\x01" + b"a" * 1025 + b"\0\0" * 2,
    ],
)
def test_bytes_that_are_no_key_are_malformed(encoded: bytes) -> None:
    with pytest.raises(MalformedMessage, match="target key"):
        TargetKey.decode(encoded)


def test_key_says_what_it_is_to_a_reader_of_logs() -> None:
    assert str(TargetKey("nova", "compute")) == "exchange 'nova' topic 'compute'"
    assert str(TargetKey("nova", "compute", "h1")).endswith("server 'h1'")
