# SPDX-License-Identifier: Apache-2.0
"""Who listens where: pluggable discovery for brokerless messaging.

`Directory` is what applications use; `Matchmaker` is what backends implement;
`load` finds the backend of a `MatchmakerURL`.
"""

from zmq_matchmaker._backend import Changed, Characteristics, Matchmaker, Watch
from zmq_matchmaker._directory import Directory
from zmq_matchmaker._encoding import decode_record, encode_key, encode_record, escape
from zmq_matchmaker._errors import (
    AccessDenied,
    Closed,
    InvalidRecord,
    InvalidURL,
    MalformedTable,
    MatchmakerError,
    NotSupported,
    Unavailable,
    UnknownMatchmaker,
)
from zmq_matchmaker._loader import NAMESPACE, load
from zmq_matchmaker._model import (
    Entry,
    Finding,
    Found,
    Key,
    Listing,
    Record,
    Role,
    Severity,
    Standing,
)
from zmq_matchmaker._statistics import DirectoryStatistics
from zmq_matchmaker._url import Host, MatchmakerURL

__version__ = "0.1.0"

__all__ = [
    "NAMESPACE",
    "AccessDenied",
    "Changed",
    "Characteristics",
    "Closed",
    "Directory",
    "DirectoryStatistics",
    "Entry",
    "Finding",
    "Found",
    "Host",
    "InvalidRecord",
    "InvalidURL",
    "Key",
    "Listing",
    "MalformedTable",
    "Matchmaker",
    "MatchmakerError",
    "MatchmakerURL",
    "NotSupported",
    "Record",
    "Role",
    "Severity",
    "Standing",
    "Unavailable",
    "UnknownMatchmaker",
    "Watch",
    "decode_record",
    "encode_key",
    "encode_record",
    "escape",
    "load",
]
