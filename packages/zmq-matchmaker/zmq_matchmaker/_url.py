# SPDX-License-Identifier: Apache-2.0
"""The address of a matchmaker, in parts that are checked once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from zmq_matchmaker._errors import InvalidURL

__all__ = ["Host", "MatchmakerURL"]


class Host(NamedTuple):
    """One server of a matchmaker."""

    name: str
    port: int | None = None
    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"Host({self})"

    def __str__(self) -> str:
        user = f"{self.username or ''}:***@" if self.password else ""
        if self.username and not self.password:
            user = f"{self.username}@"
        name = f"[{self.name}]" if ":" in self.name else self.name
        return f"{user}{name}" + (f":{self.port}" if self.port else "")


class MatchmakerURL(NamedTuple):
    """Scheme, hosts, path and settings.  Immutable, hashable; its text hides passwords."""

    scheme: str
    hosts: tuple[Host, ...] = ()
    path: str = ""
    query: tuple[tuple[str, str], ...] = ()

    @classmethod
    def make(
        cls,
        scheme: str,
        hosts: Iterable[Host] = (),
        path: str = "",
        query: Mapping[str, str] | None = None,
    ) -> Self:
        """From parts that somebody else has parsed; `path` without its leading slash is fine."""
        if not path.startswith("/"):
            path = f"/{path}"
        name = scheme.removeprefix("zmq+")
        return cls(name, tuple(hosts), path, tuple(sorted((query or {}).items())))

    @classmethod
    def parse(cls, text: str) -> Self:
        """From text such as `redis://user:password@host:6379/deployment?db=2`.

        Characters of a user or a password that mean something in a URL are to be
        written with a percent sign, such as %40 for @.

        :raises InvalidURL: no scheme, or a port that is none.
        """
        try:
            parts = urlsplit(text)
        except ValueError as error:
            raise InvalidURL("a host of the matchmaker URL has unpaired brackets") from error
        if not parts.scheme or "://" not in text:
            raise InvalidURL("the matchmaker URL has no scheme, such as redis:// or file://")
        if parts.fragment:
            raise InvalidURL(
                f"the matchmaker URL {parts.scheme}://… has a '#'; in a password write it as %23"
            )
        hosts = [_host(host) for host in parts.netloc.split(",") if host]
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        return cls.make(parts.scheme, hosts, unquote(parts.path), query)

    def __str__(self) -> str:
        return f"{self.scheme}://{','.join(map(str, self.hosts))}{self.path}"

    def __repr__(self) -> str:
        return f"MatchmakerURL({self})"

    def settings(self, known: Iterable[str]) -> dict[str, str]:
        """The query, of which every name must be one of `known`.

        :raises InvalidURL: there is another; the message lists those that are known.
        """
        names = sorted(known)
        for name, _ in self.query:
            if name not in names:
                raise InvalidURL(
                    f"{self.scheme}: unknown setting {name!r} in the URL's query; "
                    f"known: {', '.join(names) or 'none'}"
                )
        return dict(self.query)


def _host(text: str) -> Host:
    user, _, address = text.rpartition("@")
    username, colon, password = user.partition(":")
    if address.startswith("["):
        name, _, port = address[1:].partition("]")
        port = port.removeprefix(":")
    else:
        name, _, port = address.partition(":")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InvalidURL(f"the port of host {name!r} in the matchmaker URL is not a port")
    return Host(
        unquote(name),
        int(port) if port else None,
        unquote(username) if username else None,
        unquote(password) if colon else None,
    )
