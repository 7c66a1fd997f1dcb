# SPDX-License-Identifier: Apache-2.0
"""`file`: a static table or a dynamic folder, as the path says."""

from __future__ import annotations

from pathlib import Path

from zmq_matchmaker._backend import Matchmaker
from zmq_matchmaker._errors import InvalidURL
from zmq_matchmaker._url import MatchmakerURL
from zmq_matchmaker.backends._table_file import SUFFIXES
from zmq_matchmaker.backends.folder import FolderMatchmaker
from zmq_matchmaker.backends.table import TableMatchmaker

__all__ = ["file_matchmaker"]


def file_matchmaker(url: MatchmakerURL) -> Matchmaker:
    """A table if the path has the suffix of one; a folder if there is one, or ends in `/`.

    A table is read at once, so that a broken one shows when a service starts.

    :raises InvalidURL: no path, or a host in the URL.
    :raises MalformedTable: the table cannot be understood.
    :raises Unavailable: the table cannot be read.
    """
    if url.hosts:
        raise InvalidURL(
            f"file://{url.hosts[0]}…: the URL of a file has no host; write file:///path"
        )
    path = Path(url.path)
    if url.path in ("", "/"):
        raise InvalidURL("file://: the URL has no path; write file:///path/to/folder/")
    if path.is_dir() or url.path.endswith("/"):
        return FolderMatchmaker(url)
    if path.suffix in SUFFIXES:
        table = TableMatchmaker(url)
        table.check()
        return table
    if path.suffix or path.exists():
        raise InvalidURL(
            f"file://{path} is neither a folder nor a table: tables end in {', '.join(SUFFIXES)}; "
            "the path of a folder that is to be made ends in /"
        )
    return FolderMatchmaker(url)
