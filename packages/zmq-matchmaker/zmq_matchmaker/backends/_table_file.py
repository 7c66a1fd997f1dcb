# SPDX-License-Identifier: Apache-2.0
"""A static table's file, in three formats, to keys and records; faults come with their line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from zmq_matchmaker._errors import MalformedTable, MatchmakerError
from zmq_matchmaker._model import Entry, Key, Record, Role

__all__ = ["SUFFIXES", "Table", "read_table"]

SUFFIXES: Final = (".json", ".toml", ".yaml", ".yml")
_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.%\w]+\]|[^\s:/\[\]]+):(\d{1,5})")
_EXPECTED: Final = (
    "expected a list 'listeners' of tables with 'topic', 'hosts' (a list of 'host:port') and, "
    "if need be, 'exchange', 'server' and 'role'"
)

Table = dict[Key, tuple[Record, ...]]
Parsed = tuple[Any, list[int]]
"""The data, and in which line each item of its list begins."""


class _Listener(msgspec.Struct, forbid_unknown_fields=True):
    topic: str
    hosts: list[str]
    exchange: str = "openstack"
    server: str = ""
    role: Role = Role.LISTENER


def read_table(path: Path) -> Table:
    """The table in the file `path`, whose suffix tells the format.

    :raises MalformedTable: it cannot be understood; says in which line.
    :raises OSError: it cannot be read.
    """
    content = path.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise MalformedTable(str(path), line, "not UTF-8; expected a text file") from error
    data, lines = _PARSERS[path.suffix](path, text)
    if not isinstance(data, dict) or not isinstance(data.get("listeners"), list) or len(data) != 1:
        raise MalformedTable(str(path), 1, _EXPECTED)
    table: dict[Key, dict[Record, None]] = {}
    for number, item in enumerate(data["listeners"]):
        line = lines[number] if number < len(lines) else 1
        for key, record in _entries(path, line, item):
            table.setdefault(key, {})[record] = None
    return {key: tuple(sorted(records)) for key, records in table.items()}


def _entries(path: Path, line: int, item: Any) -> list[Entry]:
    try:
        listener = msgspec.convert(item, _Listener)
    except msgspec.ValidationError as error:
        raise MalformedTable(str(path), line, f"{error}; {_EXPECTED}") from error
    found = []
    for host in listener.hosts:
        match = _HOST.fullmatch(host)
        if match is None or not 0 < int(match[2]) < 65536:
            raise MalformedTable(str(path), line, f"{host!r} is not of the form host:port")
        record = Record(endpoint=f"tcp://{host}", member=listener.server)
        bare = Key(listener.role, listener.exchange, listener.topic)
        found.append((bare, record))
        if listener.server:
            found.append((bare._replace(server=listener.server), record))
    return found


def _parse_toml(path: Path, text: str) -> Parsed:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"line (\d+)", str(error))
        line = int(at[1]) if at else text.count("\n") + 1
        raise MalformedTable(str(path), line, str(error)) from error
    header = re.compile(r"\s*\[\[\s*listeners\s*\]\]")
    return data, [n for n, row in enumerate(text.split("\n"), 1) if header.match(row)]


def _parse_json(path: Path, text: str) -> Parsed:
    try:
        data = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        at = re.search(r"byte (\d+)", str(error))
        line = text.encode()[: int(at[1])].count(b"\n") + 1 if at else text.count("\n") + 1
        raise MalformedTable(str(path), line, str(error)) from error
    return data, _json_lines(text)


def _json_lines(text: str) -> list[int]:
    """The lines in which the items of the list in the outer object begin."""
    lines, depth, in_string, escaped, line = [], 0, False, False, 1
    for character in text:
        if character == "\n":
            line += 1
        if in_string:
            in_string = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            in_string = True
        elif character in "{[":
            depth += 1
            if depth == 3:
                lines.append(line)
        elif character in "}]":
            depth -= 1
    return lines


def _parse_yaml(path: Path, text: str) -> Parsed:
    try:
        import yaml
    except ImportError as error:
        raise MatchmakerError(
            f"{path}: a table in YAML needs PyYAML; install zmq-matchmaker[yaml]"
        ) from error
    try:
        data = yaml.safe_load(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
        raise MalformedTable(str(path), line, f"{getattr(error, 'problem', error)}") from error
    if not isinstance(root, yaml.MappingNode):
        return data, []
    return data, [
        item.start_mark.line + 1
        for _, value in root.value
        if isinstance(value, yaml.SequenceNode)
        for item in value.value
    ]


_PARSERS: Final[dict[str, Callable[[Path, str], Parsed]]] = {
    ".json": _parse_json,
    ".toml": _parse_toml,
    ".yaml": _parse_yaml,
    ".yml": _parse_yaml,
}
