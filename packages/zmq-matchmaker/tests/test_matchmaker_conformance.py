# SPDX-License-Identifier: Apache-2.0
"""Every backend of this package keeps the contract."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from zmq_matchmaker import AccessDenied, Key, MatchmakerURL, Record, Role, Unavailable, load
from zmq_matchmaker.testing import RedisServer, TLSFiles
from zmq_matchmaker.testing.conformance import MatchmakerConformance, ReadingConformance

KEY = Key(Role.LISTENER, "openstack", "conductor")
# What docs/matchmaker.md tells operators to allow, and no more.
LEAST_ACL = (
    "~zmq:* resetchannels &zmq:* -@all +eval +evalsha +time +get +set +setnx +del +pttl +pexpire "
    "+pexpireat +persist +hget +hset +hdel +hexists +hgetall +sadd +smembers +srem +zadd +zrem "
    "+zremrangebyscore +zscore +zrange +zrangebyscore +publish +subscribe +unsubscribe +ping"
)


@pytest.fixture(scope="module")
def restricted_redis() -> Iterator[RedisServer]:
    with RedisServer(user="nova", password="p@ss:w/rd#%", acl=LEAST_ACL) as server:
        yield server


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> TLSFiles:
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def tls_redis(authority: TLSFiles) -> Iterator[RedisServer]:
    with ExitStack() as stack:
        try:
            server = stack.enter_context(RedisServer(password="secret", tls=authority))
        except RuntimeError as error:
            if "Bad directive" not in str(error):
                raise
            pytest.skip("this redis-server was built without TLS")
        yield server


class TestDummy(MatchmakerConformance):
    @pytest.fixture
    def url(self) -> MatchmakerURL:
        return MatchmakerURL.parse(f"dummy:///{uuid.uuid4().hex}")


class TestFolder(MatchmakerConformance):
    @pytest.fixture
    def url(self, tmp_path: Path) -> MatchmakerURL:
        return MatchmakerURL.parse(f"file://{tmp_path}/registry/")


class TestTable(ReadingConformance):
    @pytest.fixture
    def url(self, tmp_path: Path) -> MatchmakerURL:
        table = tmp_path / "table.json"
        listener = {"exchange": "openstack", "topic": "conductor", "hosts": ["10.0.0.1:49153"]}
        table.write_text(json.dumps({"listeners": [listener]}))
        return MatchmakerURL.parse(f"file://{table}")


class TestRedis(MatchmakerConformance):
    @pytest.fixture
    def url(self, redis_url: str) -> MatchmakerURL:
        return MatchmakerURL.parse(redis_url)


class TestRedisWithUserWhoMayDoNoMoreThanNeeded(MatchmakerConformance):
    @pytest.fixture
    def server(self, restricted_redis: RedisServer) -> RedisServer:
        return restricted_redis

    @pytest.fixture
    def url(self, server: RedisServer) -> MatchmakerURL:
        return MatchmakerURL.parse(f"{server.url}/{uuid.uuid4().hex}?db=0")

    def test_a_wrong_password_is_named_but_not_told(self, server: RedisServer) -> None:
        wrong = MatchmakerURL.parse(f"redis://nova:guess@127.0.0.1:{server.port}/x")
        matchmaker = load(wrong)
        with pytest.raises(AccessDenied, match=f"127.0.0.1:{server.port}.*user and password") as e:
            matchmaker.lookup([KEY])
        assert "guess" not in f"{e.value!r} {matchmaker.url!r} {matchmaker.url}"
        matchmaker.close()

    def test_no_password_is_said_to_be_missing(self, server: RedisServer) -> None:
        matchmaker = load(MatchmakerURL.parse(f"redis://127.0.0.1:{server.port}/x"))
        with pytest.raises(AccessDenied, match="password"):
            matchmaker.lookup([KEY])
        matchmaker.close()

    def test_a_command_that_is_not_allowed_is_said_to_be_so(self, server: RedisServer) -> None:
        with server.client() as admin:
            admin.execute_command(
                *("ACL", "SETUSER", "reader", "on", ">secret", "~zmq:*"),
                *("+eval", "+evalsha", "+time", "+get", "+hgetall", "+zrange", "+zscore"),
            )
        matchmaker = load(MatchmakerURL.parse(f"redis://reader:secret@127.0.0.1:{server.port}/x"))
        assert matchmaker.lookup([KEY]) == [()]
        with pytest.raises(AccessDenied, match="permissions"):
            matchmaker.register([(KEY, Record(endpoint="tcp://127.0.0.1:1"))], 60)
        matchmaker.close()


class TestRedisOverTLS(MatchmakerConformance):
    @pytest.fixture
    def server(self, tls_redis: RedisServer) -> RedisServer:
        return tls_redis

    @pytest.fixture
    def url(self, server: RedisServer, authority: TLSFiles) -> MatchmakerURL:
        path = uuid.uuid4().hex
        return MatchmakerURL.parse(f"{server.url}/{path}?ssl=true&ssl_cafile={authority.ca}")

    def test_a_server_of_another_authority_is_not_trusted(
        self, server: RedisServer, tmp_path: Path
    ) -> None:
        other = make_certificates(tmp_path)
        matchmaker = load(MatchmakerURL.parse(f"{server.url}/x?ssl=true&ssl_cafile={other.ca}"))
        with pytest.raises(Unavailable, match=r"(?i)certificate"):
            matchmaker.lookup([KEY])
        matchmaker.close()

    def test_a_server_without_the_right_name_is_not_trusted(
        self, server: RedisServer, authority: TLSFiles
    ) -> None:
        url = f"redis://:secret@localhost:{server.port}/x?ssl=yes&ssl_cafile={authority.ca}"
        matchmaker = load(MatchmakerURL.parse(url))
        with pytest.raises(Unavailable, match=r"(?i)certificate"):
            matchmaker.lookup([KEY])
        matchmaker.close()
        matchmaker = load(MatchmakerURL.parse(f"{url}&ssl_check_hostname=no"))
        assert matchmaker.lookup([KEY]) == [()]
        matchmaker.close()


def make_certificates(folder: Path) -> TLSFiles:
    """An authority's certificate and one of its for 127.0.0.1."""
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    files = TLSFiles(ca=folder / "ca.pem", certificate=folder / "cert.pem", key=folder / "key.pem")
    authority.cert_pem.write_to_path(str(files.ca))
    server.cert_chain_pems[0].write_to_path(str(files.certificate))
    server.private_key_pem.write_to_path(str(files.key))
    return files
