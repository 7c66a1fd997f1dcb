# SPDX-License-Identifier: Apache-2.0
"""A static table in a file: an operator says who listens where."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from zmq_matchmaker._backend import Changed, Characteristics, Matchmaker, Watch
from zmq_matchmaker._errors import MalformedTable, MatchmakerError, NotSupported, Unavailable
from zmq_matchmaker._forking import tell_of_forks
from zmq_matchmaker._health import RateLimitedLog
from zmq_matchmaker._model import Entry, Key, Listing, Record, Role, Standing
from zmq_matchmaker._url import MatchmakerURL
from zmq_matchmaker.backends._inotify import DirectoryWatch, cannot_be_watched
from zmq_matchmaker.backends._table_file import Table, read_table

__all__ = ["TableMatchmaker"]

LOG = logging.getLogger(__name__)


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
        shared_across_processes=True,
        shared_across_hosts=True,
        persistent=True,
        push=True,
        survey=True,
        writable=False,
    )

    def __init__(self, url: MatchmakerURL) -> None:
        super().__init__(url)
        url.settings(())
        self._path = Path(url.path)
        self._lock = threading.Lock()
        self._stamp: _Stamp | None = None
        self._table: Table | None = None
        self._told: set[Entry] = set()
        self._log = RateLimitedLog(LOG, time.monotonic)
        tell_of_forks(self)

    def begin_in_child(self) -> None:
        """A thread that is not here may have held the lock."""
        self._lock = threading.Lock()

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
                    "%s does not list %s for the %s, so that nobody finds it; add %s",
                    self._path,
                    record.endpoint,
                    key,
                    json.dumps(_line(key, record)),
                )

    def remove(self, entries: Sequence[Entry]) -> None:
        """The table is the operator's to edit."""
        raise NotSupported(f"{self._path} is a table that you write; remove the hosts from it")

    def survey(self) -> list[Listing]:
        """All that the table says."""
        table = self._current()
        return sorted(
            Listing(key, Standing(record=record)) for key in table for record in table[key]
        )

    def watch(self, changed: Changed) -> Watch | None:
        """Has the kernel tell when the file is written or replaced; that needs a thread."""

        def told(files: set[str] | None) -> None:
            if files is None or self._path.name in files:
                changed(None)

        try:
            return DirectoryWatch(self._path.parent, told)
        except OSError as error:
            self._log.warning("watch", "%s", cannot_be_watched(self._path, error))
            return None

    def unregister(self, entries: Sequence[Entry]) -> None:
        """The table is the operator's: nothing to do."""

    def _current(self) -> Table:
        with self._lock:
            try:
                stamp = _Stamp.of(self._path)
                if self._table is None or stamp != self._stamp:
                    self._read(stamp)
            except OSError as error:
                self._keep(Unavailable(f"the table {self._path} cannot be read: {error.strerror}"))
            except MalformedTable as error:
                self._stamp = stamp
                self._keep(error)
            assert self._table is not None
            return self._table

    def _read(self, stamp: _Stamp) -> None:
        again = self._table is not None
        self._table = read_table(self._path)
        self._stamp = stamp
        self._told.clear()
        if again:
            LOG.info("%s has changed and was read again", self._path)

    def _keep(self, error: MatchmakerError) -> None:
        """Go on with the last good table, if there is one."""
        if self._table is None:
            raise error
        self._log.warning(
            type(error).__name__, "%s; the table that was read before stays in use", error
        )


def _line(key: Key, record: Record) -> dict[str, object]:
    """What a table has to say for `record` to be found under `key`."""
    line: dict[str, object] = {"exchange": key.exchange, "topic": key.topic}
    if key.server:
        line["server"] = key.server
    if key.role is not Role.LISTENER:
        line["role"] = key.role
    return {**line, "hosts": [record.endpoint.removeprefix("tcp://")]}
