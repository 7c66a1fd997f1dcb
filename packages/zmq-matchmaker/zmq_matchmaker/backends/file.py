# SPDX-License-Identifier: Apache-2.0
"""`file`: a static table or a dynamic folder, as the path says."""

from __future__ import annotations

from pathlib import Path

from zmq_matchmaker._backend import Matchmaker
from zmq_matchmaker._errors import InvalidURL
from zmq_matchmaker._url import MatchmakerURL
from zmq_matchmaker.backends.folder import FolderMatchmaker
from zmq_matchmaker.backends.table import SUFFIXES, TableMatchmaker

__all__ = ["file_matchmaker"]


def file_matchmaker(url: MatchmakerURL) -> Matchmaker:
    """A path with the suffix of a table is one, unless it is a folder; any other is a folder.

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
    if path.suffix in SUFFIXES and not path.is_dir():
        table = TableMatchmaker(url)
        table.check()
        return table
    if path.exists() and not path.is_dir():
        raise InvalidURL(
            f"file://{path} is neither a folder nor a table; tables end in {', '.join(SUFFIXES)}"
        )
    return FolderMatchmaker(url)
