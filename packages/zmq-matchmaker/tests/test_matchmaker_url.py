# SPDX-License-Identifier: Apache-2.0
"""A matchmaker's URL: its parts, what is refused, and that no password is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmq_matchmaker import Host, InvalidURL, MatchmakerError, MatchmakerURL, UnknownMatchmaker, load


def parse(text: str) -> MatchmakerURL:
    return MatchmakerURL.parse(text)


def test_all_parts_are_found() -> None:
    url = parse("zmq+redis://nova:s%40cret@10.0.0.1:7000/region%20one?db=2&ssl=true")
    assert url.scheme == "redis"
    assert url.hosts == (Host("10.0.0.1", 7000, "nova", "s@cret"),)
    assert url.path == "/region one"
    assert dict(url.query) == {"db": "2", "ssl": "true"}


def test_several_hosts_with_users_and_ipv6_addresses_are_found() -> None:
    assert parse("redis://a:b@h1,[::1]:6380,:pw@h3:1").hosts == (
        Host("h1", None, "a", "b"),
        Host("::1", 6380),
        Host("h3", 1, None, "pw"),
    )


def test_parts_make_the_same_url_as_text() -> None:
    host = Host("h", 1, "u", "p")
    assert MatchmakerURL.make("zmq+redis", [host], "x", {"db": "2"}) == parse(
        "redis://u:p@h:1/x?db=2"
    )


def test_equal_urls_are_one_key_of_a_dictionary() -> None:
    assert len({parse("redis://h/x?a=1&b=2"), parse("redis://h/x?b=2&a=1")}) == 1


@given(st.text(min_size=1))
def test_no_text_of_a_url_tells_the_password(password: str) -> None:
    secret = f"<{password}>"
    url = MatchmakerURL.make("redis", [Host("h", 1, "user", secret)], "x")
    for text in (str(url), repr(url), f"{url}", repr(url.hosts), str(url.hosts[0])):
        assert secret not in text
        assert "user:***@h:1" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("127.0.0.1:6379", "no scheme"),
        ("/some/path", "no scheme"),
        ("redis:6379", "no scheme"),
        ("redis://host:port/", "port of host 'host'"),
        ("redis://host:0/", "port of host 'host'"),
        ("redis://host:65536/", "port of host 'host'"),
        ("redis://[::1/", "brackets"),
        ("redis://user:open#sesame@host/", "%23"),
    ],
)
def test_a_broken_url_is_refused_by_its_broken_part(text: str, message: str) -> None:
    with pytest.raises(InvalidURL, match=message) as caught:
        parse(text)
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("redis://h1,h1:6379/x", "named twice"),
        ("redis://h/x?tls=true", "unknown setting 'tls'.*known: db"),
        ("redis://h/x?db=one", "db='one'"),
        ("redis://h/x?db=-1", "db='-1'"),
        ("redis://h/x?db=", "db=''"),
        ("redis://h/x?socket_timeout=never", "socket_timeout='never'"),
        ("redis://h/x?socket_timeout=0", "socket_timeout='0'"),
        ("redis://h/x?socket_timeout=inf", "socket_timeout='inf'"),
        ("redis://h/x?ssl=maybe", "ssl='maybe'"),
        ("redis://h/x?ssl_cafile=/x", "without ssl=true"),
        ("redis://h/x?ssl=true&ssl_cafile=/does/not/exist", "ssl_cafile='/does/not/exist'"),
        ("dummy://?db=1", "unknown setting 'db'.*known: none"),
        ("file:///tmp/x/?db=1", "unknown setting 'db'"),
        ("file://host/tmp/x/", "no host"),
        ("file://", "no path"),
        ("file:///tmp/nonexistent-folder/table.txt", "neither a folder nor a table"),
    ],
)
def test_a_backend_refuses_what_it_cannot_use_and_names_it(text: str, message: str) -> None:
    with pytest.raises(InvalidURL, match=message):
        load(parse(text))


def test_an_unknown_matchmaker_lists_those_there_are() -> None:
    with pytest.raises(UnknownMatchmaker, match=r"'zookeeper'; installed: .*dummy, file, .*redis"):
        load(parse("zmq+zookeeper://h"))


def test_every_error_is_of_one_family() -> None:
    assert issubclass(InvalidURL, MatchmakerError)
    assert issubclass(UnknownMatchmaker, MatchmakerError)
