# SPDX-License-Identifier: Apache-2.0
"""Links that lose, delay and forget: F05, F06, F19, F20 and F21."""

from __future__ import annotations

import concurrent.futures
import functools
import os
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.cloud import Cloud
from harness.journal import RUN, SUCCEEDED, Event, read
from harness.leaks import wait_until
from harness.services import CallerProcess, Service
from harness.traffic import at_once, client, established
from harness.wire import Wire

INTERVAL, TIMEOUT = 0.5, 1.5
HEARTBEAT = INTERVAL + TIMEOUT
"""Seconds after which a silent peer is lost."""
THREADS = 8


class Stage:
    """A server and a sender on hosts of their own, and routers if there are any."""

    def __init__(self, cloud: Cloud, wire: Wire, folder: Path, routers: tuple[str, ...]) -> None:
        self.cloud = cloud
        self.wire = wire
        self.routed = bool(routers)
        self._routers = routers
        self._journals = {name: folder / f"{name}.journal" for name in ("server", "client")}
        self._started: list[Service | CallerProcess] = []

    def begin(self, patterns: dict[str, int], **config: Any) -> tuple[Service, CallerProcess]:
        """Start all; return the server and the sender, whose `config` this is."""
        self.cloud.configure(
            use_router_proxy=self.routed,
            use_pub_sub=False,
            zmq_heartbeat_interval=INTERVAL,
            zmq_heartbeat_timeout=TIMEOUT,
        )
        at_once(
            functools.partial(self.cloud.proxy, prefix=self.wire.on(name), host=self._at(name))
            for name in self._routers
        )
        server = self.cloud.service("server", **self._common("server"))
        self._started.append(server)
        sender = self.cloud.caller(
            **self._common("client"), name="client", patterns=patterns, **config
        )
        self._started.append(sender)
        return server, sender

    def _common(self, host: str) -> dict[str, Any]:
        return {
            "journal": str(self._journals[host]),
            "prefix": self.wire.on(host),
            "options": {"rpc_zmq_bind_address": self._at(host)},
        }

    def _at(self, host: str) -> str:
        return self.wire.address(host)

    def events(self) -> list[Event]:
        """All that was written down."""
        return list(read(self._journals.values()))

    def check(self) -> None:
        """Nothing was executed twice, and all that went well was executed."""
        events = self.events()
        run = Counter(event.message for event in events if event.what == RUN)
        assert max(run.values()) == 1
        assert self.succeeded(events) <= {*run}

    def succeeded(self, events: Iterable[Event]) -> set[str]:
        """Those of which the sender was told that they went well."""
        return {event.message for event in events if event.what == SUCCEEDED}

    def end(self) -> None:
        """End both."""
        for process in reversed(self._started):
            process.__exit__(None, None, None)


@pytest.fixture(params=["direct", "routers"])
def stage(request: pytest.FixtureRequest, cloud: Cloud, tmp_path: Path) -> Iterator[Stage]:
    routers = ("router-1", "router-2") if request.param == "routers" else ()
    with Wire(["server", "client", *routers]) as wire:
        made = Stage(cloud, wire, tmp_path, routers)
        yield made
        made.end()


def answers(report: dict[str, Any]) -> int:
    """How many messages went well."""
    return int(sum(report["answers"].values()))


def more(sender: CallerProcess, number: int, timeout: float = 30.0) -> dict[str, Any]:
    """Wait until so many more messages went well."""
    before = answers(sender.until(lambda _: True, "a report"))
    return sender.until(
        lambda report: answers(report) >= before + number, f"{number} more", timeout
    )


class Row(NamedTuple):
    """Of the kernel's table: an established connection in the namespace of a process."""

    local: tuple[str, int]
    remote: tuple[str, int]
    unread: int


def rows(pid: int) -> Iterator[Row]:
    """psutil knows the namespace of this process only."""
    for kind in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]:
            _, local, remote, state, queues, *_ = line.split()
            if state == "01":
                yield Row(_end(local), _end(remote), int(queues.partition(":")[2], 16))


def _end(text: str) -> tuple[str, int]:
    address, _, port = text.partition(":")
    return address, int(port, 16)


def connections(pid: int) -> set[tuple[int, int]]:
    """The ports of the connections to other hosts, its own first."""
    return {(row.local[1], row.remote[1]) for row in rows(pid) if row.local[0] != row.remote[0]}


@pytest.mark.parametrize("acks", [False, True], ids=["no acks", "acks"])
def test_f05_what_a_killed_server_may_have_is_sent_again_only_with_acks_and_executed_once(
    acks: bool, cloud: Cloud
) -> None:
    cloud.configure(rpc_use_acks=acks, rpc_ack_timeout_base=30)
    killed, _ = cloud.services(["killed", "living"])
    transport = cloud.transport()
    for name in ("killed", "living"):
        client(transport, server=name).call({}, "noted")
    os.kill(killed.pid, signal.SIGSTOP)  # its kernel still takes what is sent
    caller = client(transport)

    def send() -> None:
        for number in range(4):
            caller.cast({}, "note", text=str(number))

    with concurrent.futures.ThreadPoolExecutor() as pool:
        sending = pool.submit(send)
        wait_until(lambda: unread(killed.pid) > 0, "something has come")
        if not acks:
            sending.result()
        killed.kill()
        sending.result()
    noted = client(transport, server="living").call({}, "noted")
    # Without acks nobody waits for news of those that were handed over.
    assert len(set(noted)) == len(noted) == (4 if acks else 2)


def unread(pid: int) -> int:
    """Octets that have come for a process and that it has not read."""
    own = {connection.laddr.port for connection in established(pid)}
    return sum(row.unread for row in rows(pid) if row.local[1] in own)


@pytest.mark.root
def test_f06_of_what_was_executed_while_its_answer_was_lost_a_repeat_gets_the_same_answer(
    stage: Stage,
) -> None:
    # Over a direct connection the end of that is the end of a call, too.
    patterns = {"call", "cast"} if stage.routed else {"cast"}
    stage.cloud.configure(rpc_use_acks=True, rpc_ack_timeout_base=1)
    _, sender = stage.begin({"call": 1, "cast": 1}, threads=2 * THREADS, timeout=30)
    more(sender, 50)

    def unanswered() -> dict[str, str]:
        """Of what was executed a while ago and not answered yet the message and its pattern."""
        events, now = stage.events(), time.monotonic()
        run = {e.message: e.pattern for e in events if e.what == RUN and e.time < now - 0.2}
        return {message: run[message] for message in run.keys() - stage.succeeded(events)}

    sender_of_answers = "router-1" if stage.routed else "server"
    stage.wire.spoil("client", sender=sender_of_answers, loss=1.0)
    wait_until(lambda: patterns <= {*unanswered().values()}, "answers were lost")
    lost = unanswered()
    if not stage.routed:
        stage.wire.forget()  # or TCP would bring them when it can
        stage.wire.spoil("client")
    more(sender, 100)
    stage.wire.spoil("client")
    report = sender.stop()
    stage.check()
    assert {*report["failures"]} <= (set() if stage.routed else {"ServerLost"})
    assert sum(report["failures"].values()) <= 2 * THREADS
    repeated = lost.keys() & stage.succeeded(stage.events())
    assert {lost[message] for message in repeated} == patterns


@pytest.mark.root
def test_f19_when_requests_pass_and_answers_do_not_nothing_is_done_twice_and_little_is_sent(
    stage: Stage,
) -> None:
    timeout = 3.0
    stage.cloud.configure(rpc_use_acks=True, rpc_ack_timeout_base=1, zmq_send_timeout=timeout)
    _, sender = stage.begin({"call": 1, "cast": 1}, threads=THREADS, timeout=timeout, work=0.05)
    more(sender, 50)
    stage.wire.spoil("client", loss=1.0)
    failed = sum(sender.until(lambda _: True, "a report")["failures"].values())
    sender.until(
        lambda report: sum(report["failures"].values()) >= failed + THREADS, "all have failed"
    )
    began, before = time.monotonic(), stage.wire.lost + stage.wire.passed
    sender.until(
        lambda report: sum(report["failures"].values()) >= failed + 2 * THREADS, "and once more"
    )
    sent = stage.wire.lost + stage.wire.passed - before
    assert sent < 100 * (time.monotonic() - began)
    stage.wire.spoil("client")
    more(sender, 50)
    report = sender.stop()
    stage.check()
    assert {*report["failures"]} <= {"MessagingTimeout", "ServerLost", "MessageDeliveryFailure"}
    assert report["longest"] < timeout + 1


@pytest.mark.root
def test_f20_an_idle_connection_that_a_firewall_forgot_is_found_by_the_heartbeat_and_costs_nothing(
    stage: Stage,
) -> None:
    server, sender = stage.begin({"call": 1}, threads=1, timeout=30, pause=7.0)  # from 3.5 to 10.5
    more(sender, 1)
    pids = (sender.process.pid,) if stage.routed else (sender.process.pid, server.pid)
    before = {pid: connections(pid) for pid in pids}
    assert all(before.values())
    began = time.monotonic()
    stage.wire.forget()
    wait_until(lambda: not connections(pids[0]) & before[pids[0]], "it is found")
    assert time.monotonic() - began < HEARTBEAT + 1
    report = more(sender, 1)
    assert report["failures"] == {}
    assert report["longest"] < 2, "nobody has waited for it"
    wait_until(lambda: not any(connections(pid) & before[pid] for pid in pids), "on both sides")
    stage.check()


@pytest.mark.root
def test_f21_on_a_bad_line_nothing_is_executed_twice_and_nobody_is_taken_for_dead(
    stage: Stage,
) -> None:
    stage.cloud.configure(rpc_use_acks=True)
    _, sender = stage.begin({"call": 1, "cast": 1}, threads=THREADS, timeout=30)
    more(sender, 50)
    before = connections(sender.process.pid)
    for host in ("server", "client"):
        stage.wire.spoil(host, loss=0.05, delay=0.1, reorder=0.1)
    began = time.monotonic()
    while time.monotonic() < began + 8:
        more(sender, 10)
    assert stage.wire.lost > 20
    assert before <= connections(sender.process.pid), "the connections are the same"
    report = sender.stop()
    assert report["failures"] == {}
    stage.check()
