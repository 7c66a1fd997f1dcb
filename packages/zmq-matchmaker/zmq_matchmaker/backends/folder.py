# SPDX-License-Identifier: Apache-2.0
"""A dynamic registry in a folder, for processes of one host with no server.

One file per record, in a subfolder per key, so that nobody changes another's
file and a lookup reads only what it asks for.  A file is written beside its
place and renamed into it: readers see it whole or not at all.  A record whose
process has ended on this host is collected at once, others when they expire.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

import msgspec

from zmq_matchmaker._backend import Characteristics, Matchmaker
from zmq_matchmaker._encoding import encode_record, escape
from zmq_matchmaker._errors import Unavailable
from zmq_matchmaker._model import Entry, Key, Record
from zmq_matchmaker._url import MatchmakerURL

__all__ = ["FolderMatchmaker"]

LOG = logging.getLogger(__name__)

_SUFFIX: Final = ".record"
_LONGEST_NAME: Final = 200
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class _File(msgspec.Struct, kw_only=True):
    """What a record's file holds."""

    record: Record
    deadline: float | None
    """Seconds since the epoch: all readers are on this host and share its clock."""
    boot: str
    pid: int
    started: int


class FolderMatchmaker(Matchmaker):
    """`file:///some/folder/`.  Safe with any number of processes."""

    characteristics: ClassVar = Characteristics(
        shared_across_processes=True, persistent=True, expiry=True
    )

    def __init__(self, url: MatchmakerURL) -> None:
        super().__init__(url)
        url.settings(())
        self._folder = Path(url.path)

    def register(self, entries: Sequence[Entry], ttl: float | None) -> None:
        """Write a file for each entry."""
        me = _Process.current()
        deadline = None if ttl is None else time.time() + ttl
        try:
            for key, record in entries:
                place = self._file(key, record)
                content = _File(
                    record=record, deadline=deadline, boot=me.boot, pid=me.pid, started=me.started
                )
                place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                draft = place.with_suffix(f".{os.getpid()}-{threading.get_ident()}.draft")
                draft.write_bytes(msgspec.json.encode(content))
                draft.replace(place)
        except OSError as error:
            raise self._unavailable(error) from error

    def unregister(self, entries: Sequence[Entry]) -> None:
        """Remove the entries' files."""
        try:
            for key, record in entries:
                self._file(key, record).unlink(missing_ok=True)
        except OSError as error:
            raise self._unavailable(error) from error

    def lookup(self, keys: Sequence[Key]) -> list[tuple[Record, ...]]:
        """Read the files in each key's subfolder."""
        try:
            return [tuple(sorted(self._read(self._subfolder(key)))) for key in keys]
        except OSError as error:
            raise self._unavailable(error) from error

    def _read(self, folder: Path) -> list[Record]:
        try:
            places = list(folder.iterdir())
        except FileNotFoundError:
            return []
        records = []
        for place in places:
            if place.suffix != _SUFFIX:
                continue
            try:
                content = msgspec.json.decode(place.read_bytes(), type=_File)
            except FileNotFoundError:
                continue  # withdrawn a moment ago
            except (msgspec.DecodeError, UnicodeDecodeError):
                LOG.warning("%s is not a record and is ignored; remove it", place)
                continue
            if _is_live(content):
                records.append(content.record)
            else:
                place.unlink(missing_ok=True)
        return records

    def _subfolder(self, key: Key) -> Path:
        return self._folder.joinpath(*(_file_name(part) for part in key))

    def _file(self, key: Key, record: Record) -> Path:
        digest = hashlib.blake2b(encode_record(record), digest_size=16).hexdigest()
        return self._subfolder(key) / f"{digest}{_SUFFIX}"

    def _unavailable(self, error: OSError) -> Unavailable:
        return Unavailable(
            f"the folder {self._folder} of {self.url} cannot be used: "
            f"{error.strerror} ({error.filename})"
        )


class _Process(msgspec.Struct, frozen=True):
    """This process, so that no other is taken for it, even after a restart of the host."""

    boot: str
    pid: int
    started: int

    @classmethod
    def current(cls) -> _Process:
        pid = os.getpid()
        return cls(_boot_id(), pid, _start_time(pid) or 0)


def _boot_id() -> str:
    return _BOOT_ID.read_text().strip()


def _start_time(pid: int) -> int | None:
    """When process `pid` started, in ticks since boot; None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold anything; the fields after it are numbers.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def _is_live(content: _File) -> bool:
    if content.deadline is not None and content.deadline <= time.time():
        return False
    return content.boot == _boot_id() and _start_time(content.pid) == content.started


def _file_name(part: str) -> str:
    """A file name for any text: readable if short, a digest if not; different for different."""
    name = escape(part)
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:40]}=" + hashlib.blake2b(part.encode(), digest_size=20).hexdigest()
