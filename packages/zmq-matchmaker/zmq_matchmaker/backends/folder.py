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
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

import msgspec

from zmq_matchmaker._backend import Changed, Characteristics, Matchmaker, Watch
from zmq_matchmaker._encoding import encode_record
from zmq_matchmaker._errors import Unavailable
from zmq_matchmaker._health import RateLimitedLog
from zmq_matchmaker._model import Entry, Found, Key, Listing, Record, Standing
from zmq_matchmaker._url import MatchmakerURL
from zmq_matchmaker.backends._inotify import DirectoryWatch, cannot_be_watched
from zmq_matchmaker.backends._process import Processes, ProcessId
from zmq_matchmaker.backends._record_file import (
    ASIDE,
    RecordFile,
    aside_until,
    collect,
    collect_draft,
    collect_mark,
    content_of,
    digest,
    file_name,
    files_of,
    make_folder,
    removed_if_empty,
    unlinked,
    uptime,
    write_for_all,
)

__all__ = ["FolderMatchmaker"]

LOG = logging.getLogger(__name__)

_RECORD: Final = ".record"
_DRAFT: Final = ".draft"
_CHANGES: Final = ".changes"
"""A subfolder with a file for each key, written to when its records change: what is watched."""
_MKDIR_TRIES: Final = 100


class _FolderWatch(Watch):
    """Follows keys by the names of their files."""

    def __init__(self, directory: DirectoryWatch, names: dict[str, Key]) -> None:
        self._directory = directory
        self._names = names
        self._followed: dict[Key, str] = {}

    def follow(self, keys: Collection[Key]) -> None:
        wanted = set(keys)
        for key in wanted - self._followed.keys():
            name = self._followed[key] = digest(key)
            self._names[name] = key
        for key in self._followed.keys() - wanted:
            del self._names[self._followed.pop(key)]

    def close(self) -> None:
        self._directory.close()


class FolderMatchmaker(Matchmaker):
    """`file:///some/folder/`.  Safe with any number of processes."""

    characteristics: ClassVar = Characteristics(
        shared_across_processes=True,
        persistent=True,
        expiry=True,
        push=True,
        availability=True,
        survey=True,
    )

    def __init__(self, url: MatchmakerURL) -> None:
        super().__init__(url)
        url.settings(())
        self._folder = Path(url.path)
        self._log = RateLimitedLog(LOG, time.monotonic)
        self._drafts = itertools.count()
        self._changes = self._folder / _CHANGES
        self._token = uuid.uuid4().hex
        self._registered: dict[tuple[str, Entry], float] = {}

    def register(self, entries: Sequence[Entry], ttl: float | None) -> None:
        """Write a file for each entry."""
        now, up = time.time(), uptime()
        changed: dict[Key, None] = {}
        try:
            me, owner = ProcessId.current(), self._whose()
            for key, record in entries:
                place = self._file(key, record)
                mine = (owner, (key, record))
                registered = self._registered.get(mine)
                was_aside = unlinked(place.with_suffix(ASIDE))
                if registered is None or was_aside or not place.exists():
                    self._registered[mine] = registered = now
                    changed[key] = None
                content = RecordFile(
                    key=key,
                    record=record,
                    owner=owner,
                    process=me,
                    registered=registered,
                    until=None if ttl is None else now + ttl,
                    until_uptime=None if ttl is None else up + ttl,
                )
                self._write(place, msgspec.json.encode(content))
            self._tell(changed)
        except OSError as error:
            raise self._unavailable(error) from error

    def _whose(self) -> str:
        """The name under which this matchmaker registers; in a forked child another one."""
        return f"{self._token}/{os.getpid()}"

    def _tell(self, keys: Iterable[Key]) -> None:
        """Let those who watch know that something has changed."""
        for key in keys:
            make_folder(self._changes, self._folder)
            write_for_all(self._changes / digest(key), b"", self._folder)

    def _write(self, place: Path, content: bytes) -> None:
        draft = place.with_suffix(f".{os.getpid()}-{next(self._drafts)}{_DRAFT}")
        for attempt in itertools.count(1):
            try:
                make_folder(place.parent, self._folder)
                write_for_all(draft, content, self._folder)
                draft.replace(place)
            except (FileNotFoundError, FileExistsError):
                # Whoever removed the key's last record removed its folder just now.  (It "exists"
                # if mkdir found it, and it was gone when mkdir looked whether it is a folder.)
                if attempt >= _MKDIR_TRIES:
                    raise
            else:
                return

    def unregister(self, entries: Sequence[Entry]) -> None:
        """Remove the files of those entries that this process has registered."""
        owner = self._whose()

        def is_mine(place: Path) -> bool:
            content = content_of(place)
            return content is None or content.owner == owner

        for entry in entries:
            self._registered.pop((owner, entry), None)
        self._remove(entries, is_mine)

    def remove(self, entries: Sequence[Entry]) -> None:
        """Remove the entries' files."""
        self._remove(entries, lambda place: True)

    def _remove(self, entries: Sequence[Entry], which: Callable[[Path], bool]) -> None:
        changed: dict[Key, None] = {}
        try:
            for key, record in entries:
                place = self._file(key, record)
                if which(place) and unlinked(place):
                    changed[key] = None
                    unlinked(place.with_suffix(ASIDE))
            self._tell(changed)
            self._forget(dict.fromkeys(key for key, _ in entries))
        except OSError as error:
            raise self._unavailable(error) from error

    def _forget(self, keys: Iterable[Key]) -> None:
        """Remove what is left of keys that nobody listens on any more."""
        for key in keys:
            if removed_if_empty(self._subfolder(key)):
                unlinked(self._changes / digest(key))

    def set_aside(self, pauses: Mapping[Entry, float]) -> None:
        """Write beside each record's file until when it is to be left alone."""
        changed: dict[Key, None] = {}
        try:
            for (key, record), pause in pauses.items():
                place = self._file(key, record)
                mark = place.with_suffix(ASIDE)
                until = uptime() + pause
                if pause <= 0:
                    if unlinked(mark):
                        changed[key] = None
                elif place.exists() and aside_until(mark) < until:
                    if aside_until(mark) <= uptime():
                        changed[key] = None
                    self._write(mark, repr(until).encode())
            self._tell(changed)
        except OSError as error:
            raise self._unavailable(error) from error

    def lookup(self, keys: Sequence[Key]) -> list[tuple[Record, ...]]:
        """Read the files in each key's subfolder."""
        return [found.records for found in self.find(keys)]

    def find(self, keys: Sequence[Key]) -> list[Found]:
        """The same, with how they stand."""
        try:
            processes = Processes()
            found = []
            for key in keys:
                contents = self._read(self._subfolder(key), processes)
                standings = sorted(self._standing(content, processes) for content in contents)
                found.append(Found(tuple(standings)))
        except OSError as error:
            raise self._unavailable(error) from error
        return found

    def survey(self) -> list[Listing]:
        """All records in the folder."""
        try:
            processes = Processes()
            return sorted(
                Listing(content.key, self._standing(content, processes))
                for folder in {place.parent for place in self._folder.rglob(f"*{_RECORD}")}
                for content in self._read(folder, processes)
            )
        except OSError as error:
            raise self._unavailable(error) from error

    def watch(self, changed: Changed) -> Watch | None:
        """Has the kernel tell of changes in the subfolder of changes; that needs a thread."""
        names: dict[str, Key] = {}

        def told(files: set[str] | None) -> None:
            keys = None if files is None else [names.get(file) for file in files]
            for key in [None] if keys is None else keys:
                if key is not None or keys is None:
                    changed(key)

        try:
            make_folder(self._changes, self._folder)
            return _FolderWatch(DirectoryWatch(self._changes, told), names)
        except OSError as error:
            self._log.warning("watch", "%s", cannot_be_watched(self._changes, error))
            return None

    def _standing(self, content: RecordFile, processes: Processes) -> Standing:
        mark = self._file(content.key, content.record).with_suffix(ASIDE)
        return Standing(
            record=content.record,
            ttl=content.left(processes),
            registered=content.registered,
            aside=max(0.0, aside_until(mark) - uptime()),
        )

    def _read(self, folder: Path, processes: Processes) -> list[RecordFile]:
        contents = []
        died: dict[Key, None] = {}
        for place in files_of(folder):
            if place.suffix == _DRAFT:
                collect_draft(place)
            if place.suffix == ASIDE:
                collect_mark(place)
            if place.suffix != _RECORD:
                continue
            try:
                with place.open("rb") as file:
                    inode = os.fstat(file.fileno()).st_ino
                    content = msgspec.json.decode(file.read(), type=RecordFile)
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
            if content.is_live(processes):
                contents.append(content)
            else:
                collect(place, inode)
                died[content.key] = None
        self._forget(died)
        return contents

    def _subfolder(self, key: Key) -> Path:
        return self._folder.joinpath(*(file_name(part) for part in key))

    def _file(self, key: Key, record: Record) -> Path:
        name = hashlib.blake2b(encode_record(record), digest_size=16).hexdigest()
        return self._subfolder(key) / f"{name}{_RECORD}"

    def _unavailable(self, error: OSError) -> Unavailable:
        return Unavailable(
            f"the folder {self._folder} of {self.url} cannot be used: "
            f"{error.strerror} ({error.filename})"
        )
