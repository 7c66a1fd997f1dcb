# SPDX-License-Identifier: Apache-2.0
"""Different keys never become the same text, and strange bytes never become an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmq_matchmaker import Key, Record, Role, decode_record, encode_key, encode_record, escape
from zmq_matchmaker.backends._record_file import file_name

parts = st.text() | st.text(alphabet="ab.:/@%-~ =", max_size=6)
keys = st.builds(Key, st.sampled_from(Role), parts, parts, parts)
writable = st.text(alphabet=st.characters(exclude_categories=["Cs"]))
records = st.builds(Record, endpoint=writable, node=writable, member=writable, pool=writable)


@given(keys, keys)
def test_two_keys_have_the_same_text_only_if_they_are_equal(one: Key, other: Key) -> None:
    assert (encode_key(one) == encode_key(other)) == (one == other)
    assert (encode_key(one, "/") == encode_key(other, "/")) == (one == other)


@given(parts, parts)
def test_two_names_are_the_same_file_only_if_they_are_equal(one: str, other: str) -> None:
    assert (file_name(one) == file_name(other)) == (one == other)
    assert (file_name(one * 99) == file_name(other * 99)) == (one * 99 == other * 99)


@given(st.text())
def test_an_escaped_name_is_fit_for_a_path(part: str) -> None:
    text = escape(part)
    assert text not in ("", ".", "..")
    assert not set(text) & set("/:.\x00\n")
    assert len(file_name(part)) <= 255


@given(records)
def test_a_record_survives_its_encoding(record: Record) -> None:
    assert decode_record(encode_record(record)) == record


@given(st.binary())
def test_any_bytes_are_a_record_or_none(data: bytes) -> None:
    found = decode_record(data)
    assert found is None or isinstance(found, Record)


@pytest.mark.parametrize(
    "data", [b"", b"null", b"{}", b'{"endpoint": 1}', b'{"endpoint": "\xff"}', b"[" * 100_000]
)
def test_what_is_no_record_is_none(data: bytes) -> None:
    assert decode_record(data) is None


def test_fields_of_a_newer_version_are_ignored() -> None:
    data = b'{"endpoint": "tcp://h:1", "curve_key": "x", "weight": {"a": [1]}}'
    assert decode_record(data) == Record(endpoint="tcp://h:1")


def test_equal_records_have_equal_bytes() -> None:
    one = Record(endpoint="tcp://h:1", pool="p", node="n")
    assert encode_record(one) == encode_record(Record(node="n", pool="p", endpoint="tcp://h:1"))
