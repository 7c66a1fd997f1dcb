# SPDX-License-Identifier: Apache-2.0
"""A RabbitMQ of the benchmark's own, beside any that may run on the machine.

Its name, ports, data, logs and cookie are its own, it listens on the loopback
adapter only, and so does the port mapper that Erlang needs; both are children
of ours and end with us.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from zmq_benchmarks.children import run_process, tail
from zmq_benchmarks.errors import BenchmarkError, NotInstalled

__all__ = ["Rabbit", "running_rabbit"]

_START_TIMEOUT: Final = 90.0
# Debian's /usr/sbin/rabbitmq-server changes to another user and so cannot be used.
_FOLDERS: Final = ("/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", "/usr/local/sbin")

_AMQP_GREETING: Final = b"AMQP\0\0\x09\x01"
_FRAME_END: Final = b"\xce"
_VERSION_FIELD: Final = b"\x07versionS"


class Rabbit:
    """A running RabbitMQ."""

    def __init__(self, url: str, version: str) -> None:
        self.url = url
        """For oslo.messaging."""
        self.version = version


@contextlib.contextmanager
def running_rabbit(folder: Path) -> Iterator[Rabbit]:
    """Start RabbitMQ with its files in `folder`, and end it with the block.

    :raises NotInstalled: there is no RabbitMQ, or no Erlang, on this machine.
    :raises BenchmarkError: it does not start; the message has the end of its log.
    """
    server, mapper = _find("rabbitmq-server"), _find("epmd")
    folder.mkdir()
    port, node_port, mapper_port = _free_ports(3)
    environment = _environment(folder, port, node_port, mapper_port)
    log = folder / "output.log"
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            run_process(
                [mapper, "-port", str(mapper_port), "-address", "127.0.0.1"], log, environment
            )
        )
        process = stack.enter_context(run_process([server], log, environment))
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            try:
                version = _ask_version(port)
                break
            except OSError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise BenchmarkError(
                        f"RabbitMQ ({server}) does not start: {error}; --no-rabbit goes without; "
                        f"the end of its output:\n{tail(log)}"
                    ) from error
            time.sleep(0.2)
        yield Rabbit(f"rabbit://guest:guest@127.0.0.1:{port}/", version)


def _find(program: str) -> str:
    path = os.pathsep.join([*_FOLDERS, os.environ.get("PATH", os.defpath)])
    found = shutil.which(program, path=path)
    if found is None:
        raise NotInstalled(
            f"{program} is not installed (on Debian: apt-get install rabbitmq-server)"
        )
    return found


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _environment(folder: Path, port: int, node_port: int, mapper_port: int) -> dict[str, str]:
    plugins = folder / "enabled_plugins"
    plugins.write_text("[].\n")
    return {
        "HOME": str(folder),  # where Erlang keeps its cookie
        "ERL_EPMD_PORT": str(mapper_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"benchmark-{os.getpid()}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(node_port),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }


def _ask_version(port: int) -> str:
    """The version of the RabbitMQ on `port`; OSError as long as it does not answer.

    It says so in the first frame of AMQP, before anybody has logged in.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(_AMQP_GREETING)
        frame = b""
        while _FRAME_END not in frame:
            chunk = connection.recv(4096)
            if not chunk:
                raise ConnectionError("it ends connections")
            frame += chunk
    _, found, rest = frame.partition(_VERSION_FIELD)
    (length,) = struct.unpack_from("!I", rest) if found else (0,)
    return rest[4 : 4 + length].decode()
