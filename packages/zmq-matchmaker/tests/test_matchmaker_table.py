# SPDX-License-Identifier: Apache-2.0
"""A static table: formats, faults with their lines, and changes while it is in use."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from zmq_matchmaker import (
    Directory,
    Key,
    MalformedTable,
    Matchmaker,
    MatchmakerURL,
    NotSupported,
    Record,
    Role,
    Unavailable,
    load,
)

JSON = """\
{"listeners": [
  {"exchange": "openstack", "topic": "conductor", "server": "host@lvm",
   "hosts": ["10.0.0.1:49153", "[::1]:49153"]},
  {"topic": "audit", "role": "notification", "hosts": ["host-2:1"]}
]}
"""
TOML = """\
[[listeners]]
exchange = "openstack"
topic = "conductor"
server = "host@lvm"
hosts = ["10.0.0.1:49153", "[::1]:49153"]

[[listeners]]
topic = "audit"
role = "notification"
hosts = ["host-2:1"]
"""
YAML = """\
listeners:
  - exchange: openstack
    topic: conductor
    server: host@lvm
    hosts: ["10.0.0.1:49153", "[::1]:49153"]
  - topic: audit
    role: notification
    hosts:
      - host-2:1
"""
BARE = Key(Role.LISTENER, "openstack", "conductor")
DIRECTED = BARE._replace(server="host@lvm")
FORMATS = [("t.json", JSON), ("t.toml", TOML), ("t.yaml", YAML), ("t.yml", YAML)]


def open_table(folder: Path, name: str, text: str | bytes) -> Matchmaker:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(MatchmakerURL.parse(f"file://{path}"))


def change(path: Path, text: str) -> None:
    """Replace it as editors do, so that its time may be the same but its inode is not."""
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.replace(path)


@pytest.mark.parametrize(("name", "text"), FORMATS)
def test_a_table_answers_for_a_topic_and_for_each_server_of_it(
    tmp_path: Path, name: str, text: str
) -> None:
    table = open_table(tmp_path, name, text)
    ipv4, ipv6 = (
        Record(endpoint=f"tcp://{host}:49153", member="host@lvm") for host in ("10.0.0.1", "[::1]")
    )
    assert table.lookup([BARE, DIRECTED, DIRECTED._replace(server="host")]) == [
        (ipv4, ipv6),
        (ipv4, ipv6),
        (),
    ]
    audit = Key(Role.NOTIFICATION, "openstack", "audit")
    assert table.lookup([audit]) == [(Record(endpoint="tcp://host-2:1"),)]


@pytest.mark.parametrize(
    ("name", "text", "line", "message"),
    [
        ("t.json", JSON.replace('"role": "notification"', '"rôle": 1'), 4, "unknown field"),
        ("t.json", JSON.replace('"hosts": ["host-2:1"]', '"hosts": "host-2:1"'), 4, "array"),
        ("t.json", JSON.replace("host-2:1", "host-2"), 4, "'host-2' is not of the form host:port"),
        ("t.json", JSON.replace("host-2:1", "host-2:65536"), 4, "host:port"),
        ("t.json", JSON.replace("[::1]:49153", "::1:49153"), 2, "host:port"),
        ("t.json", JSON.replace('"audit",', '"audit"'), 4, "malformed"),
        ("t.json", JSON.replace("}\n]}", ""), 5, "truncated"),
        ("t.json", "", 1, "truncated"),
        ("t.json", "[]", 1, "expected a list 'listeners'"),
        ("t.json", '{"listeners": 1}', 1, "expected a list 'listeners'"),
        ("t.json", '{"listeners": [], "x": 1}', 1, "expected a list 'listeners'"),
        ("t.json", b'{"listeners":\n["\xff"]}', 2, "UTF-8"),
        ("t.toml", TOML.replace('topic = "audit"\n', ""), 7, "topic"),
        ("t.toml", TOML.replace('"audit"', "audit"), 8, "nvalid"),
        ("t.toml", TOML.replace('"notification"', '"boss"'), 7, "boss"),
        ("t.yaml", YAML.replace("role: notification", "role: 7"), 6, "role"),
        ("t.yaml", YAML.replace("topic: audit", "topic: [audit"), 7, "expected"),
        ("t.yaml", "listeners:\n\t- x", 2, "token"),
        ("t.yaml", YAML.replace("topic: audit", "topic: 2024-13-45"), 1, "month"),
        ("t.json", "[" * 100_000, 1, "recursion"),
        ("t.yaml", "[" * 10_000, 1, "recursion"),
        ("t.yml", "", 1, "expected a list 'listeners'"),
    ],
)
def test_a_broken_table_is_refused_with_file_line_and_what_is_expected(
    tmp_path: Path, name: str, text: str | bytes, line: int, message: str
) -> None:
    with pytest.raises(MalformedTable) as caught:
        open_table(tmp_path, name, text)
    assert str(caught.value).startswith(f"{tmp_path}/{name}:{line}: ")
    assert message in str(caught.value)
    assert (caught.value.path, caught.value.line) == (f"{tmp_path}/{name}", line)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=f"{tmp_path}/no.toml cannot be read: No such file"):
        load(MatchmakerURL.parse(f"file://{tmp_path}/no.toml"))


def test_a_changed_table_is_read_again(tmp_path: Path) -> None:
    table = open_table(tmp_path, "t.json", JSON)
    change(tmp_path / "t.json", JSON.replace("10.0.0.1", "10.0.0.9"))
    [records] = table.lookup([BARE])
    assert Record(endpoint="tcp://10.0.0.9:49153", member="host@lvm") in records


def test_a_table_that_did_not_change_is_not_read_again(tmp_path: Path) -> None:
    table = open_table(tmp_path, "t.json", JSON)
    path = tmp_path / "t.json"
    status = path.stat()
    path.write_text(JSON.replace("10.0.0.1", "10.0.0.9"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    [records] = table.lookup([BARE])
    assert Record(endpoint="tcp://10.0.0.1:49153", member="host@lvm") in records


def test_while_a_table_is_broken_or_missing_the_last_good_one_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = open_table(tmp_path, "t.json", JSON)
    path = tmp_path / "t.json"
    before = table.lookup([BARE, DIRECTED])
    for spoilt in ("{\n", None):
        if spoilt is None:
            path.unlink()
        else:
            change(path, spoilt)
        for _ in range(100):
            assert table.lookup([BARE, DIRECTED]) == before
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert f"{path}:2: " in warnings[0]
    assert f"{path} cannot be read" in warnings[1]
    path.write_text('{"listeners": []}')
    assert table.lookup([BARE]) == [()]


def test_a_listener_that_the_table_does_not_name_is_told_the_line_to_add_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = open_table(tmp_path, "t.json", JSON)
    listed = Record(endpoint="tcp://10.0.0.1:49153", node="n", member="1")
    table.register([(BARE, listed), (DIRECTED, listed)], 60)
    assert caplog.records == []
    audit = Key(Role.NOTIFICATION, "openstack", "audit")
    for _ in range(3):
        table.register([(audit, listed)], 60)
    [message] = [record.getMessage() for record in caplog.records]
    assert f"{tmp_path}/t.json" in message
    line = (
        '{"exchange": "openstack", "topic": "audit", "role": "notification", '
        '"hosts": ["10.0.0.1:49153"]}'
    )
    assert line in message
    change(tmp_path / "t.json", JSON.replace("\n]}", f",\n{line}]}}"))
    table.register([(audit, listed)], 60)
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1


def test_unregistering_leaves_the_table_alone(tmp_path: Path) -> None:
    table = open_table(tmp_path, "t.json", JSON)
    [(record, _)] = table.lookup([BARE])
    table.unregister([(BARE, record)])
    assert record in table.lookup([BARE])[0]
    assert (tmp_path / "t.json").read_text() == JSON


@pytest.mark.alone
def test_a_changed_table_is_in_use_within_a_second(
    tmp_path: Path, make_directory: Callable[..., Directory], until: Callable[..., None]
) -> None:
    open_table(tmp_path, "t.toml", TOML)
    client = make_directory(f"file://{tmp_path}/t.toml")
    before = client.lookup(BARE, 5)
    assert len(before) == 2
    change(tmp_path / "t.toml", TOML.replace(', "[::1]:49153"', ""))
    until(lambda: client.lookup(BARE, 5) == before[:1], "one host fewer", seconds=1)
    (tmp_path / "t.toml").write_text(TOML)
    until(lambda: client.lookup(BARE, 5) == before, "and again", seconds=1)


def test_a_table_can_be_listed_and_is_not_changed_by_others_than_its_owner(
    tmp_path: Path,
) -> None:
    table = open_table(tmp_path, "t.toml", TOML)
    listed = table.survey()
    assert [key for key, _ in listed] == sorted([BARE, BARE, DIRECTED, DIRECTED, listed[-1].key])
    with pytest.raises(NotSupported, match=r"t\.toml is a table that you write"):
        table.remove([(BARE, listed[0].standing.record)])
