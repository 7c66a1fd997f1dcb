# SPDX-License-Identifier: Apache-2.0
"""A dynamic registry in a folder, for processes of one host with no server.

One file per record, in a subfolder per key, so that nobody changes another's
file and a lookup reads only what it asks for.  A file is written beside its
place and renamed into it: readers see it whole or not at all.  A record whose
process has ended is collected at once, one of which that cannot be known (its
process runs in another container) when it expires.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

import msgspec

from zmq_matchmaker._backend import Characteristics, Matchmaker
from zmq_matchmaker._encoding import encode_record, escape
from zmq_matchmaker._errors import Unavailable
from zmq_matchmaker._health import RateLimitedLog
from zmq_matchmaker._model import Entry, Key, Record
from zmq_matchmaker._url import MatchmakerURL
from zmq_matchmaker.backends._process import Processes, ProcessId

__all__ = ["FolderMatchmaker"]

LOG = logging.getLogger(__name__)

_RECORD: Final = ".record"
_DRAFT: Final = ".draft"
_DRAFT_LIFETIME: Final = 60.0
_LONGEST_NAME: Final = 200
_MKDIR_TRIES: Final = 100


class _File(msgspec.Struct, kw_only=True):
    """What a record's file holds."""

    record: Record
    process: ProcessId
    until: float | None
    """Seconds since the epoch, for readers that do not share the writer's monotonic clock."""
    until_uptime: float | None
    """Seconds since the host was started, for those that do: nobody can set that clock."""


class FolderMatchmaker(Matchmaker):
    """`file:///some/folder/`.  Safe with any number of processes."""

    characteristics: ClassVar = Characteristics(
        shared_across_processes=True, persistent=True, expiry=True
    )

    def __init__(self, url: MatchmakerURL) -> None:
        super().__init__(url)
        url.settings(())
        self._folder = Path(url.path)
        self._log = RateLimitedLog(LOG, time.monotonic)
        self._drafts = itertools.count()

    def register(self, entries: Sequence[Entry], ttl: float | None) -> None:
        """Write a file for each entry."""
        try:
            me = ProcessId.current()
            for key, record in entries:
                content = _File(
                    record=record,
                    process=me,
                    until=None if ttl is None else time.time() + ttl,
                    until_uptime=None if ttl is None else _uptime() + ttl,
                )
                self._write(self._file(key, record), msgspec.json.encode(content))
        except OSError as error:
            raise self._unavailable(error) from error

    def _write(self, place: Path, content: bytes) -> None:
        draft = place.with_suffix(f".{os.getpid()}-{next(self._drafts)}{_DRAFT}")
        for attempt in itertools.count(1):
            try:
                # Others should not see who listens here, nor add to it.
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                draft.write_bytes(content)
                draft.replace(place)
            except (FileNotFoundError, FileExistsError):
                # Whoever removed the key's last record removed its folder just now.  (It "exists"
                # if mkdir found it, and it was gone when mkdir looked whether it is a folder.)
                if attempt >= _MKDIR_TRIES:
                    raise
            else:
                return

    def unregister(self, entries: Sequence[Entry]) -> None:
        """Remove the entries' files."""
        try:
            for key, record in entries:
                place = self._file(key, record)
                place.unlink(missing_ok=True)
                _remove_if_empty(place.parent)
        except OSError as error:
            raise self._unavailable(error) from error

    def lookup(self, keys: Sequence[Key]) -> list[tuple[Record, ...]]:
        """Read the files in each key's subfolder."""
        try:
            processes = Processes()
            return [tuple(sorted(self._read(self._subfolder(key), processes))) for key in keys]
        except OSError as error:
            raise self._unavailable(error) from error

    def _read(self, folder: Path, processes: Processes) -> list[Record]:
        records = []
        for place in _files(folder):
            if place.suffix == _DRAFT:
                _collect_draft(place)
            if place.suffix != _RECORD:
                continue
            try:
                with place.open("rb") as file:
                    inode = os.fstat(file.fileno()).st_ino
                    content = msgspec.json.decode(file.read(), type=_File)
            except FileNotFoundError:
                continue  # withdrawn a moment ago
            except (msgspec.DecodeError, UnicodeDecodeError):
                self._log.warning(place, "%s is not a record and is ignored; remove it", place)
                continue
            except (PermissionError, IsADirectoryError) as error:
                self._log.warning(
                    place, "%s cannot be read and is ignored: %s", place, error.strerror
                )
                continue
            if _is_live(content, processes):
                records.append(content.record)
            else:
                _collect(place, inode)
        return records

    def _subfolder(self, key: Key) -> Path:
        return self._folder.joinpath(*(_file_name(part) for part in key))

    def _file(self, key: Key, record: Record) -> Path:
        digest = hashlib.blake2b(encode_record(record), digest_size=16).hexdigest()
        return self._subfolder(key) / f"{digest}{_RECORD}"

    def _unavailable(self, error: OSError) -> Unavailable:
        return Unavailable(
            f"the folder {self._folder} of {self.url} cannot be used: "
            f"{error.strerror} ({error.filename})"
        )


def _is_live(content: _File, processes: Processes) -> bool:
    same_clock = processes.same_boot(content.process)
    deadline = content.until_uptime if same_clock else content.until
    if deadline is not None and deadline <= (_uptime() if same_clock else time.time()):
        return False
    return processes.may_run(content.process)


def _uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _files(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _collect(place: Path, inode: int) -> None:
    """Remove a dead record, unless its process has just written it anew."""
    try:
        if place.stat().st_ino == inode:
            place.unlink()
    except FileNotFoundError:
        return  # somebody else was faster


def _collect_draft(place: Path) -> None:
    """Remove what a process left that was killed while it wrote."""
    try:
        if time.time() - place.stat().st_mtime > _DRAFT_LIFETIME:
            place.unlink()
    except FileNotFoundError:
        return  # finished, or collected by somebody else


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # others listen too, or it was never made


def _file_name(part: str) -> str:
    """A file name for any text: readable if short, a digest if not; different for different."""
    name = escape(part)
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.blake2b(part.encode(errors="surrogatepass"), digest_size=20).hexdigest()
    return f"{name[:40]}={digest}"
