# SPDX-License-Identifier: Apache-2.0
"""The files of a dynamic registry: what is in one, whether it still holds, and who cleans up."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Final

import msgspec

from zmq_matchmaker._encoding import encode_key, escape
from zmq_matchmaker._model import Key, Record
from zmq_matchmaker.backends._process import Processes, ProcessId

__all__ = [
    "ASIDE",
    "RecordFile",
    "aside_until",
    "collect",
    "collect_draft",
    "collect_mark",
    "content_of",
    "digest",
    "file_name",
    "files_of",
    "make_folder",
    "removed_if_empty",
    "unlinked",
    "uptime",
    "write_for_all",
]

ASIDE: Final = ".aside"
_DRAFT_LIFETIME: Final = 60.0
_LONGEST_NAME: Final = 200


class RecordFile(msgspec.Struct, kw_only=True):
    """What a record's file holds."""

    key: Key
    record: Record
    owner: str
    """Whose it is: one matchmaker of one process."""
    registered: float
    """Seconds since the epoch."""
    process: ProcessId
    until: float | None
    """Seconds since the epoch, for readers that do not share the writer's monotonic clock."""
    until_uptime: float | None
    """Seconds since the host was started, for those that do: nobody can set that clock."""

    def left(self, processes: Processes) -> float | None:
        """Seconds until it expires; None: never."""
        if self.until is None or self.until_uptime is None:
            return None
        if processes.same_boot(self.process):
            return self.until_uptime - uptime()
        return self.until - time.time()

    def is_live(self, processes: Processes) -> bool:
        """Whether it has neither expired nor lost its process."""
        left = self.left(processes)
        return (left is None or left > 0) and processes.may_run(self.process)


def uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def files_of(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def digest(key: Key) -> str:
    return hashlib.blake2b(encode_key(key).encode(), digest_size=16).hexdigest()


def content_of(place: Path) -> RecordFile | None:
    try:
        return msgspec.json.decode(place.read_bytes(), type=RecordFile)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def aside_until(mark: Path) -> float:
    """In seconds of the host's uptime; 0 if it is not set aside."""
    try:
        return float(mark.read_bytes())
    except (FileNotFoundError, ValueError):
        return 0.0


def make_folder(folder: Path, top: Path) -> None:
    """Make `folder` below `top`, for all who may use that, which is our user alone if we make it.

    Others should not see who listens here, nor add to it, unless an operator has
    made `top` for them.
    """
    if folder.is_dir():
        return
    top.mkdir(mode=0o700, parents=True, exist_ok=True)
    missing = [place for place in (folder, *folder.parents) if place.is_relative_to(top)]
    for place in reversed(missing[:-1]):
        try:
            place.mkdir(mode=0o700)
        except FileExistsError:
            continue
        place.chmod(top.stat().st_mode & 0o777)


def write_for_all(place: Path, content: bytes, top: Path) -> None:
    """Write a file that all who may use the folder `top` may read, replace, and remove."""
    fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        if os.fstat(fd).st_uid == os.geteuid():
            os.fchmod(fd, top.stat().st_mode & 0o666)
        file.write(content)


def unlinked(place: Path) -> bool:
    try:
        place.unlink()
    except FileNotFoundError:
        return False
    return True


def collect(place: Path, inode: int) -> None:
    """Remove a dead record, unless its process has just written it anew."""
    try:
        if place.stat().st_ino == inode:
            place.unlink()
            unlinked(place.with_suffix(ASIDE))
    except OSError:
        return  # somebody else was faster, or it is not ours to remove


def collect_draft(place: Path) -> None:
    """Remove what a process left that was killed while it wrote."""
    try:
        if time.time() - place.stat().st_mtime > _DRAFT_LIFETIME:
            place.unlink()
    except OSError:
        return  # finished, or collected by somebody else, or not ours to remove


def collect_mark(place: Path) -> None:
    """Remove a mark whose time is over, be there a record beside it or not."""
    try:
        if aside_until(place) <= uptime():
            place.unlink()
    except OSError:
        return  # somebody else was faster, or it is not ours to remove


def removed_if_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False  # others listen too, or it was never made
    return True


def file_name(part: str) -> str:
    """A file name for any text: readable if short, a digest if not; different for different."""
    name = escape(part)
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.blake2b(part.encode(errors="surrogatepass"), digest_size=20).hexdigest()
    return f"{name[:40]}={digest}"
