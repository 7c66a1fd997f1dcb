# SPDX-License-Identifier: Apache-2.0
"""Real proxies in processes of their own, real peers, and the proof that nothing is left."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq
from prometheus_client.parser import text_string_to_metric_families

from zmq_core import Envelope, MessageType, TargetKey, decode, encode
from zmq_matchmaker import Key, Matchmaker, MatchmakerURL, Record, load
from zmq_proxy import BACKEND, FRONTEND, ROUTERS

KEY = TargetKey("openstack", "echo").encoded
_ids = itertools.count(1)


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Return once `condition()` is true; fail if it is not so in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        time.sleep(0.005)


def message(body: bytes, kind: MessageType = MessageType.CALL) -> Envelope:
    """A message with an id of its own."""
    return Envelope(type=kind, id=next(_ids).to_bytes(16, "big"), key=KEY, body=body)


class Peer:
    """A process as the proxy sees it: it pushes to frontends, its DEALER is its name."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], name: bytes) -> None:
        self.name = name
        self.push = context.socket(zmq.PUSH)
        self.dealer = context.socket(zmq.DEALER)
        self.dealer.set(zmq.ROUTING_ID, name)
        for own in (self.push, self.dealer):
            own.set(zmq.LINGER, 0)

    def connect(self, frontend: str, backend: str) -> None:
        """Connect; returns when what is sent to this peer arrives."""
        self.push.connect(frontend)
        self.dealer.connect(backend)
        deadline = time.monotonic() + 10
        while True:
            probe = message(b"probe", MessageType.HEARTBEAT)  # not answered where refused
            self.send(self.name, probe)
            if self.dealer.poll(100):
                while self.receive()[1].id != probe.id or self.dealer.poll(0):
                    assert time.monotonic() < deadline
                return
            assert time.monotonic() < deadline, f"{self.name!r} never became reachable"

    def send(self, to: bytes, envelope: Envelope) -> None:
        """Send to the peer named `to`."""
        self.push.send_multipart([to, self.name, *encode(envelope)])

    def receive(self, seconds: float = 10.0) -> tuple[bytes, Envelope]:
        """Whom the next message is from, and what it is."""
        assert self.dealer.poll(int(seconds * 1000)), f"nothing came within {seconds} s"
        sender, *frames = self.dealer.recv_multipart()
        return sender, decode(frames)


class ProxyProcess:
    """`python -m zmq_proxy` with a configuration file."""

    def __init__(self, folder: Path, config: str, *arguments: str) -> None:
        file = folder / "proxy.conf"
        file.write_text(config)
        self.log = folder / "proxy.out"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "zmq_proxy", "--config-file", str(file), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        """What it has printed until now."""
        return self.log.read_text()

    def end(self, number: int = signal.SIGTERM, seconds: float = 15.0) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)


class Deployment:
    """A registry in a folder and the proxies that use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"zmq+file://{folder}/registry/"
        self.matchmaker: Matchmaker = load(MatchmakerURL.parse(self.url))
        self.processes: list[ProxyProcess] = []

    def config(self, zmq_options: str = "", proxy_options: str = "host = 127.0.0.1") -> str:
        """The text of a configuration file."""
        return (
            f"[DEFAULT]\ntransport_url = {self.url}\nhost = a-nova-host\n"
            f"[oslo_messaging_zmq]\n{zmq_options}\n[zmq_proxy_opts]\n{proxy_options}\n"
        )

    def start(self, *arguments: str, config: str | None = None) -> ProxyProcess:
        """Start a proxy, without waiting for it."""
        folder = self.folder / f"proxy-{len(self.processes)}"
        folder.mkdir()
        process = ProxyProcess(folder, self.config() if config is None else config, *arguments)
        self.processes.append(process)
        return process

    def records(self, key: Key = ROUTERS) -> tuple[Record, ...]:
        """What the proxies have registered."""
        return self.matchmaker.lookup([key])[0]

    def endpoints(self, process: ProxyProcess, key: Key = ROUTERS) -> tuple[str, str]:
        """Frontend and backend of `process`, as soon as it has registered."""

        def found() -> dict[str, str]:
            assert process.process.poll() is None, process.output
            node = f"/{process.process.pid}/"
            return {r.member: r.endpoint for r in self.records(key) if node in r.node}

        wait_for(lambda: set(found()) == {FRONTEND, BACKEND})
        return found()[FRONTEND], found()[BACKEND]

    def run(self, *arguments: str, config: str | None = None) -> tuple[int, str]:
        """Run a proxy that is expected to end by itself; its exit code and output."""
        process = self.start(*arguments, config=config)
        return process.process.wait(15), process.output


def _holdings() -> tuple[set[threading.Thread], int, int]:
    gc.collect()
    return (
        set(threading.enumerate()),
        len(os.listdir("/proc/self/fd")),
        len(os.listdir("/proc/self/task")),
    )


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fail a test after which a thread, native or not, or a descriptor is left."""
    before = _holdings()
    yield

    def clean() -> bool:
        now = _holdings()
        return now[0] <= before[0] and now[1] <= before[1] and now[2] <= before[2]

    wait_for(clean, 5)


@pytest.fixture
def deployment(nothing_is_left: None, tmp_path: Path) -> Iterator[Deployment]:
    """A registry of its own; proxies that were started are ended."""
    made = Deployment(tmp_path)
    yield made
    for process in made.processes:
        process.process.kill()
        process.process.wait()
    made.matchmaker.close()


@pytest.fixture
def make_peer(nothing_is_left: None) -> Iterator[Callable[[str], Peer]]:
    """Make peers that are closed at the end."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield lambda name: Peer(context, name.encode())
    context.destroy(linger=0)


@pytest.fixture
def busy_port() -> Iterator[int]:
    """A TCP port that is in use."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait for a condition, with a deadline."""
    return wait_for


@pytest.fixture
def run_python(nothing_is_left: None) -> Callable[[str], str]:
    """Run a script in a process of its own; returns what it printed, fails if it failed."""

    def run(script: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            timeout=30,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
    return port


class Metrics:
    """What a proxy says of itself over HTTP."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        """Status and text."""
        request = urllib.request.Request(self.url + path, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def samples(self, name: str) -> dict[tuple[str, ...], float]:
        """The values of one metric, by those of its labels in the order of the labels' names."""
        status, text = self.get("/metrics")
        assert status == 200, text
        return {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        }

    def traffic(self, part: str) -> Traffic:
        """Messages and bytes by type and direction, of one part; only those that there were."""
        found: Traffic = {}
        for index, name in enumerate(("messages", "message_bytes")):
            for labels, value in self.samples(f"zmq_proxy_{name}_total").items():
                direction, of_part, kind = labels
                if of_part == part and value:
                    both = list(found.get((kind, direction), (0, 0)))
                    both[index] = int(value)
                    found[kind, direction] = (both[0], both[1])
        return found


Traffic = dict[tuple[str, ...], tuple[int, int]]
"""Messages and bytes by type and direction."""


@pytest.fixture
def metrics(free_port: int) -> Metrics:
    """Of a proxy that was started with `--metrics-port`, which is `metrics.port`."""
    return Metrics(free_port)
