# SPDX-License-Identifier: Apache-2.0
"""A static table in a file: an operator says who listens where."""

from __future__ import annotations

import logging
import os
import re
import threading
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec

from zmq_matchmaker._backend import Characteristics, Matchmaker
from zmq_matchmaker._errors import MalformedTable, MatchmakerError, Unavailable
from zmq_matchmaker._model import Entry, Key, Record, Role
from zmq_matchmaker._url import MatchmakerURL

__all__ = ["SUFFIXES", "Table", "TableMatchmaker", "read_table"]

LOG = logging.getLogger(__name__)

SUFFIXES: Final = (".json", ".toml", ".yaml", ".yml")
_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.%\w]+\]|[^\s:/\[\]]+):(\d{1,5})")
_EXPECTED: Final = (
    "expected a list 'listeners' of tables with 'topic', 'hosts' (a list of 'host:port') and, "
    "if need be, 'exchange', 'server' and 'role'"
)

Table = dict[Key, tuple[Record, ...]]


class _Listener(msgspec.Struct, forbid_unknown_fields=True):
    topic: str
    hosts: list[str]
    exchange: str = "openstack"
    server: str = ""
    role: Role = Role.LISTENER


@dataclass(frozen=True, slots=True)
class _Stamp:
    """Tells whether a file has changed."""

    modified: int
    size: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> _Stamp:
        status = os.stat(path)
        return cls(status.st_mtime_ns, status.st_size, status.st_ino)


class TableMatchmaker(Matchmaker):
    """`file:///some/table.toml`: reread when it changes; the last good one is kept."""

    characteristics: ClassVar = Characteristics(
        shared_across_processes=True, shared_across_hosts=True, persistent=True, writable=False
    )

    def __init__(self, url: MatchmakerURL) -> None:
        super().__init__(url)
        url.settings(())
        self._path = Path(url.path)
        self._lock = threading.Lock()
        self._stamp: _Stamp | None = None
        self._table: Table | None = None
        self._told: set[Entry] = set()

    def check(self) -> None:
        """Read the table now.

        :raises MalformedTable: it cannot be understood.
        :raises Unavailable: it cannot be read.
        """
        self._current()

    def lookup(self, keys: Sequence[Key]) -> list[tuple[Record, ...]]:
        """What the table says."""
        table = self._current()
        return [table.get(key, ()) for key in keys]

    def register(self, entries: Sequence[Entry], ttl: float | None) -> None:
        """Check that the table lists the entries; warn, once each, of those that it does not."""
        table = self._current()
        for entry in entries:
            key, record = entry
            listed = any(other.endpoint == record.endpoint for other in table.get(key, ()))
            if not listed and entry not in self._told:
                self._told.add(entry)
                LOG.warning(
                    "%s does not list %s for the %s, so that nobody finds it; add "
                    '{"exchange": "%s", "topic": "%s", "server": "%s", "hosts": ["%s"]}',
                    self._path,
                    record.endpoint,
                    key,
                    key.exchange,
                    key.topic,
                    key.server,
                    record.endpoint.removeprefix("tcp://"),
                )

    def unregister(self, entries: Sequence[Entry]) -> None:
        """The table is the operator's: nothing to do."""

    def _current(self) -> Table:
        with self._lock:
            try:
                stamp = _Stamp.of(self._path)
                if self._table is None or stamp != self._stamp:
                    self._stamp = stamp
                    self._table = read_table(self._path)
            except OSError as error:
                self._keep(Unavailable(f"the table {self._path} cannot be read: {error.strerror}"))
            except MalformedTable as error:
                self._keep(error)
            assert self._table is not None
            return self._table

    def _keep(self, error: MatchmakerError) -> None:
        """Go on with the last good table, if there is one."""
        if self._table is None:
            raise error
        LOG.warning("%s; the table that was read before stays in use", error)


def read_table(path: Path) -> Table:
    """The table in the file `path`, whose suffix tells the format.

    :raises MalformedTable: it cannot be understood; says in which line.
    :raises OSError: it cannot be read.
    """
    text = path.read_text()
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


def _parse_toml(path: Path, text: str) -> tuple[Any, list[int]]:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"line (\d+)", str(error))
        line = int(at[1]) if at else text.count("\n") + 1
        raise MalformedTable(str(path), line, str(error)) from error
    header = re.compile(r"\s*\[\[\s*listeners\s*\]\]")
    return data, [n for n, row in enumerate(text.splitlines(), 1) if header.match(row)]


def _parse_json(path: Path, text: str) -> tuple[Any, list[int]]:
    try:
        data = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
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


def _parse_yaml(path: Path, text: str) -> tuple[Any, list[int]]:
    try:
        import yaml
    except ImportError as error:
        raise MatchmakerError(
            f"{path}: a table in YAML needs PyYAML; install zmq-matchmaker[yaml]"
        ) from error
    try:
        data = yaml.safe_load(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
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


_PARSERS: Final = {
    ".json": _parse_json,
    ".toml": _parse_toml,
    ".yaml": _parse_yaml,
    ".yml": _parse_yaml,
}
