# SPDX-License-Identifier: Apache-2.0
"""What README.md and docs/protocol.md show is what happens."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from zmq_core import (
    Envelope,
    Flag,
    MessageType,
    NackCode,
    Serializer,
    TargetKey,
    UnsupportedVersion,
    decode,
    encode,
)
from zmq_core._envelope import HEADER_SIZE
from zmq_core._key import MAX_PART_SIZE

PACKAGE = Path(__file__).parent.parent
README = (PACKAGE / "README.md").read_text(encoding="utf-8")
PROTOCOL = (PACKAGE.parent.parent / "docs" / "protocol.md").read_text(encoding="utf-8")

ID = bytes(range(16))
KEY = TargetKey("nova", "compute", "h1").encoded
CALL = Envelope(
    type=MessageType.CALL, id=ID, key=KEY, body=b'{"a":1}', serializer=Serializer.JSON, ttl=60
)
CAST = Envelope(type=MessageType.CAST, id=ID, key=KEY, body=b"hi")
EXAMPLES = {
    "call": CALL,
    "cast": CAST,
    "cast-acknowledged": Envelope(
        type=MessageType.CAST, id=ID, key=KEY, body=b"hi", flags=Flag.ACK_WANTED
    ),
    "fanout": Envelope(
        type=MessageType.FANOUT, id=ID, key=TargetKey("nova", "compute").encoded, body=b"hi"
    ),
    "notify": Envelope(
        type=MessageType.NOTIFY,
        id=ID,
        key=TargetKey("nova", "notifications.info", "pool-a").encoded,
        body=b"\x81\xa1a\x01",
        serializer=Serializer.MSGPACK,
    ),
    "reply": Envelope(type=MessageType.REPLY, id=ID, body=b'{"b":2}', serializer=Serializer.JSON),
    "reply-failed": Envelope(type=MessageType.REPLY, id=ID, body=b"why", flags=Flag.FAILED),
    "ack": Envelope(type=MessageType.ACK, id=ID),
    "nack-call": CALL.refused(NackCode.UNKNOWN_KEY),
    "nack-cast": CAST.refused(NackCode.UNKNOWN_KEY),
    "nack-version": Envelope(type=MessageType.NACK, id=ID, code=UnsupportedVersion(2, ID).code),
    "heartbeat": Envelope(type=MessageType.HEARTBEAT, id=ID),
    "heartbeat-node": Envelope(type=MessageType.HEARTBEAT, id=bytes(16)),
    "probe": Envelope(type=MessageType.PROBE, id=ID),
    "nack-probe": Envelope(type=MessageType.PROBE, id=ID).refused(NackCode.UNKNOWN_ID),
}
SHOWN = dict(re.findall(r"```frames (\S+)\n(.*?)```", PROTOCOL, re.DOTALL))


def test_every_message_type_has_an_example() -> None:
    assert SHOWN.keys() == EXAMPLES.keys()
    assert {envelope.type for envelope in EXAMPLES.values()} == set(MessageType)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_of_the_protocol_is_what_is_sent_and_understood(name: str) -> None:
    frames = [bytes.fromhex(line.split()[1].replace("-", "")) for line in SHOWN[name].splitlines()]
    assert encode(EXAMPLES[name]) == frames
    assert decode(frames) == EXAMPLES[name]


def test_grammar_gives_the_codes_that_are_sent() -> None:
    grammar = PROTOCOL.partition("```abnf")[2].partition("```")[0]
    for member in (*MessageType, *Serializer):
        assert re.search(rf"^{member.name.lower()} += %x{member:02X}$", grammar, re.MULTILINE)
    for code in NackCode:
        assert f"| {int(code)} | {code.name} |" in PROTOCOL
    for flag in Flag:
        assert f"| 0x{flag:02X} | {flag.name} |" in PROTOCOL
    assert f"| header | {HEADER_SIZE} octets |" in PROTOCOL
    assert f"{MAX_PART_SIZE} octets; key: {3 * (MAX_PART_SIZE + 2)} octets" in PROTOCOL


def test_example_of_the_readme_runs_as_it_stands(run_python: Callable[..., str]) -> None:
    example = README.partition("```python\n")[2].partition("```")[0]
    assert len([line for line in example.splitlines() if line]) <= 10
    assert run_python(example) == "hello world\n"


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (PACKAGE / target).is_file(), target
