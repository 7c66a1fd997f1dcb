# SPDX-License-Identifier: Apache-2.0
"""What `[matchmaker_redis]` and the matchmaker's options in `[oslo_messaging_zmq]` do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from oslo_config import cfg

from zmq_matchmaker import Directory, InvalidURL, Key, MatchmakerURL, Record, Role, load
from zmq_matchmaker.configuration import (
    GROUP,
    OPTIONS,
    REDIS_GROUP,
    REDIS_OPTIONS,
    DirectorySettings,
    complete,
    register,
)
from zmq_matchmaker.testing import RedisSentinels, RedisServer

KEY = Key(Role.LISTENER, "openstack", "conductor")
ONE, TWO = Record(endpoint="tcp://127.0.0.1:1"), Record(endpoint="tcp://127.0.0.1:2")


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., cfg.ConfigOpts]:
    """A configuration read from a file with these options of `[matchmaker_redis]`, or others."""

    def make(group: str = REDIS_GROUP, **options: object) -> cfg.ConfigOpts:
        file = tmp_path / "service.conf"
        lines = [f"{name} = {value}" for name, value in options.items()]
        file.write_text("\n".join([f"[{group}]", *lines, ""]))
        conf = cfg.ConfigOpts()
        register(conf)
        register(conf)
        conf(args=[], default_config_files=[str(file)])
        return conf

    return make


Configure = Callable[..., cfg.ConfigOpts]


def completed(text: str, conf: cfg.ConfigOpts) -> MatchmakerURL:
    return complete(MatchmakerURL.parse(text), conf)


def test_host_and_port_serve_a_url_without_any(configure: Configure, redis: RedisServer) -> None:
    url = completed("zmq+redis:///x", configure(host="127.0.0.1", port=redis.port))
    matchmaker = load(url)
    matchmaker.register([(KEY, ONE)], 60)
    matchmaker.close()
    with redis.client() as admin:
        assert admin.exists("zmq:{x}:leases")


def test_what_the_url_says_counts_for_more(configure: Configure) -> None:
    conf = configure(host="other", port=1, password="wrong", db=3, socket_timeout=100)
    url = completed("redis://u:right@h:2/x?db=4&socket_timeout=7", conf)
    assert url.hosts == MatchmakerURL.parse("redis://u:right@h:2").hosts
    assert dict(url.query) == {"db": "4", "socket_timeout": "7"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://h/x", "redis://nova:secret@h"),
        ("redis://glance@h/x", "redis://glance:secret@h"),
        ("redis://:mine@h/x", "redis://nova:mine@h"),
        ("redis://glance:mine@h,other/x", "redis://glance:mine@h,glance:mine@other"),
        ("redis://glance@/x", "redis://glance:secret@127.0.0.1:6379"),
    ],
)
def test_what_a_login_in_the_url_leaves_open_is_taken_from_the_file(
    configure: Configure, text: str, expected: str
) -> None:
    url = completed(text, configure(username="nova", password="secret"))
    assert url.hosts == MatchmakerURL.parse(expected).hosts


def test_a_user_without_a_password_is_used(configure: Configure) -> None:
    with RedisServer() as server:
        with server.client() as admin:
            admin.execute_command("ACL SETUSER nova on nopass ~zmq:* resetchannels &zmq:* +@all")
            admin.execute_command("ACL SETUSER default off")
        for url in (
            MatchmakerURL.parse(f"redis://nova@127.0.0.1:{server.port}/x"),
            completed(f"redis://127.0.0.1:{server.port}/x", configure(username="nova")),
        ):
            matchmaker = load(url)
            matchmaker.register([(KEY, ONE)], 60)
            assert matchmaker.lookup([KEY]) == [(ONE,)]
            matchmaker.close()


def test_user_password_and_database_are_used(configure: Configure) -> None:
    with RedisServer(user="nova", password="p@ss") as server:
        conf = configure(username="nova", password="p@ss", db=2)
        for text in (
            f"redis://127.0.0.1:{server.port}/x",
            f"redis://nova:p%40ss@127.0.0.1:{server.port}/x",
        ):
            matchmaker = load(completed(text, conf))
            matchmaker.register([(KEY, ONE)], 60)
            assert matchmaker.lookup([KEY]) == [(ONE,)]
            matchmaker.close()
        with server.client() as admin:
            assert admin.info("keyspace").keys() == {"db2"}


def test_sentinels_of_the_file_are_asked_for_the_master_of_the_group(
    configure: Configure, sentinels: RedisSentinels
) -> None:
    conf = configure(
        sentinel_hosts=sentinels.hosts, sentinel_group_name="zmq", password="p w", host="nowhere"
    )
    matchmaker = load(completed("zmq+redis:///conf", conf))
    matchmaker.register([(KEY, ONE)], 60)
    matchmaker.close()
    by_url = load(MatchmakerURL.parse(f"sentinel://:p%20w@{sentinels.hosts}/zmq/conf"))
    assert by_url.lookup([KEY]) == [(ONE,)]
    by_url.close()


def test_without_a_group_the_only_one_is_used_and_the_path_is_the_deployment(
    configure: Configure, sentinels: RedisSentinels
) -> None:
    conf = configure(sentinel_hosts=sentinels.hosts, password="p w")
    matchmaker = load(completed("zmq+redis:///alone", conf))
    matchmaker.register([(KEY, ONE)], 60)
    matchmaker.close()
    by_url = load(MatchmakerURL.parse(f"sentinel://:p%20w@{sentinels.hosts}/zmq/alone"))
    assert by_url.lookup([KEY]) == [(ONE,)]
    by_url.close()


def test_tls_settings_become_those_of_the_url(configure: Configure) -> None:
    url = completed("redis://h/x", configure(ssl=True, ssl_cafile="/ca", ssl_check_hostname=False))
    assert dict(url.query) == {
        "socket_timeout": "2.0",
        "ssl": "true",
        "ssl_check_hostname": "false",
        "ssl_cafile": "/ca",
    }


def test_tls_files_serve_a_url_that_asks_for_tls_and_not_one_that_wants_none(
    configure: Configure,
) -> None:
    conf = configure(ssl_cafile="/ca", ssl_check_hostname=False)
    asked = dict(completed("redis://h/x?ssl=true", conf).query)
    assert (asked["ssl_cafile"], asked["ssl_check_hostname"]) == ("/ca", "false")
    unasked = completed("redis://h/x?ssl=no", configure(ssl=True, ssl_cafile="/ca"))
    assert dict(unasked.query) == {"socket_timeout": "2.0", "ssl": "no"}


def test_tls_files_without_tls_are_an_error(configure: Configure) -> None:
    with pytest.raises(InvalidURL, match="ssl_… settings without ssl=true"):
        load(completed("redis://h/x", configure(ssl_cafile="/ca")))


def test_socket_timeout_is_how_long_a_redis_that_hangs_is_waited_for(
    configure: Configure, redis: RedisServer
) -> None:
    matchmaker = load(completed(redis.url, configure(socket_timeout=150)))
    matchmaker.lookup([KEY])
    redis.stop()
    began = time.monotonic()
    with pytest.raises(Exception, match=r"did not answer within 0.15 s"):
        matchmaker.lookup([KEY])
    assert time.monotonic() - began < 1
    redis.cont()
    matchmaker.close()


def test_wait_timeout_is_the_longest_pause_between_attempts(
    configure: Configure, redis: RedisServer, until: Callable[..., None]
) -> None:
    conf = configure(wait_timeout=100)
    settings = DirectorySettings.load(conf[GROUP].__getitem__, conf)
    directory = settings.directory(load(MatchmakerURL.parse(redis.url)))
    redis.kill()
    directory.announce([(KEY, ONE)])
    began = time.monotonic()
    until(lambda: directory.statistics.failures >= 15, "tried often")
    assert time.monotonic() - began < 5  # with the default it would take more than a minute
    directory.close()


def test_a_longest_pause_that_would_make_clients_lose_routes_is_cut(configure: Configure) -> None:
    conf = configure(wait_timeout=60000)
    assert DirectorySettings.load(conf[GROUP].__getitem__, conf).longest_wait == 10


def test_records_that_would_expire_before_they_are_refreshed_are_refused(
    configure: Configure,
) -> None:
    conf = configure(GROUP, zmq_target_expire=60, zmq_target_update=31)
    with pytest.raises(ValueError, match=r"zmq_target_update \(31 s\) .* zmq_target_expire \(60"):
        DirectorySettings.load(conf[GROUP].__getitem__, conf)
    conf = configure(GROUP, zmq_target_expire=0, zmq_target_update=31)
    assert DirectorySettings.load(conf[GROUP].__getitem__, conf).update == 31


@pytest.mark.parametrize("text", ["file:///etc/table.toml", "dummy:///x", "mine://h/x"])
def test_other_matchmakers_are_left_as_they_are(configure: Configure, text: str) -> None:
    assert completed(text, configure(host="h", password="p")) == MatchmakerURL.parse(text)


@pytest.mark.alone
def test_the_first_and_the_longest_pause_of_a_host_that_does_not_answer(
    configure: Configure, redis: RedisServer, until: Callable[..., None]
) -> None:
    conf = configure(GROUP, zmq_nack_pause=0.2, zmq_nack_pause_max=0.8)
    settings = DirectorySettings.load(conf[GROUP].__getitem__, conf)
    directory: Directory = settings.directory(load(MatchmakerURL.parse(redis.url)))
    directory.announce([(KEY, ONE), (KEY, TWO)])
    pauses = []
    for _ in range(4):
        assert directory.lookup(KEY, 5) == (ONE, TWO)
        directory.nack(KEY, ONE)
        began = time.monotonic()
        until(lambda: directory.lookup(KEY, 5) == (ONE, TWO), "tried again")
        pauses.append(time.monotonic() - began)
    directory.close()
    assert 0.2 <= pauses[0] < 0.35
    assert 0.4 <= pauses[1] < 0.6
    assert all(0.8 <= pause < 1 for pause in pauses[2:])


def test_every_option_is_described_and_the_password_is_a_secret() -> None:
    for option in (*OPTIONS, *REDIS_OPTIONS):
        assert option.help
    assert [option.dest for option in REDIS_OPTIONS if option.secret] == ["password"]
