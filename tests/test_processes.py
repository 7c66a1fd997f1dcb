# SPDX-License-Identifier: Apache-2.0
"""Workers that are forked, replaced, reloaded and ended; processes that end by themselves."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import journal, parting, prefork
from harness.account import Account, Trouble
from harness.leaks import wait_until
from harness.services import CallerProcess, Child, Service, python
from harness.traffic import client
from zmq_matchmaker import Key, Role

MakeCaller = Callable[..., CallerProcess]
MakeService = Callable[..., Service]
MakeTransport = Callable[..., Any]

LOCAL = {"rpc_zmq_bind_address": "127.0.0.1"}
LISTENERS = Key(Role.LISTENER, "openstack", "work")


@contextmanager
def program(name: str, config: dict[str, Any]) -> Iterator[Child]:
    """One of `harness`, running; what it has started ends with the block, too."""
    arguments = ("-W", "ignore", "-m", f"harness.{name}", json.dumps(config))
    with Child(python(*arguments, EVENTLET_NO_GREENDNS="yes")) as child:
        try:
            yield child
        finally:
            workers = []
            if child.process.poll() is None:
                workers = psutil.Process(child.process.pid).children(recursive=True)
                child.kill()
            for worker in workers:
                if worker.is_running():
                    worker.kill()


def account(folder: Path, *troubles: Trouble) -> Account:
    """Of all that the processes of a test have written down."""
    return Account(journal.read(folder.glob("*.journal")), troubles, [])


def workers_in(report: dict[str, Any]) -> set[str]:
    """Those that have answered calls."""
    return {name for name in report["answers"] if name.startswith("one/")}


def say_of(child: Child, what: str, number: int) -> list[int]:
    """The processes that say so, one after the other."""
    found: list[int] = []
    while len(found) < number:
        said = child.hear(timeout=20)
        if what in said:
            found.append(said[what])
    return found


@pytest.mark.parametrize("launcher", prefork.LAUNCHERS)
def test_forked_workers_share_the_calls_are_replaced_and_end_without_losing_one(
    launcher: str,
    tmp_path: Path,
    file_url: str,
    make_caller: MakeCaller,
    make_service: MakeService,
    make_transport: MakeTransport,
) -> None:
    config = {
        "url": file_url,
        "launcher": launcher,
        "journal": str(tmp_path / "workers.journal"),
        "parent_sends": launcher != prefork.EVENTLET,
        "options": LOCAL,
    }
    with program("prefork", config) as child:
        workers = say_of(child, "ready", 2)
        caller = make_caller(
            file_url,
            name="caller",
            journal=str(tmp_path / "caller.journal"),
            patterns={"call": 3, "cast": 1},
            timeout=20.0,
        )
        caller.until(lambda report: len(workers_in(report)) == 2, "both answer")
        began = time.monotonic()
        os.kill(workers[0], signal.SIGKILL)
        workers += say_of(child, "ready", 1)
        killed = Trouble("kill", "server", "one", began, time.monotonic())
        caller.until(lambda report: len(workers_in(report)) == 3, "the new one answers")

        make_service(
            file_url,
            ("", "work", "two"),
            journal=str(tmp_path / "two.journal"),
        )
        caller.until(lambda report: "two" in report["answers"], "another service is there")
        began = time.monotonic()
        child.process.send_signal(signal.SIGTERM)
        assert sorted(say_of(child, "stopped", 2)) == sorted(workers[1:])
        assert child.process.wait(timeout=10) == 0
        assert time.monotonic() - began < 5
        assert not any(psutil.pid_exists(pid) for pid in workers)
        answers = caller.hear()["answers"]["two"]
        caller.until(lambda report: report["answers"]["two"] > answers + 50, "calls go on")
        report = caller.stop()
    assert set(report["failures"]) <= {"ServerLost"}, report
    found = account(tmp_path, killed)
    assert found.faults == []
    lost = found.rows["call"].failed["ServerLost"]
    assert lost <= 4, "each thread of the caller has one call out"
    assert [event for event in failures(tmp_path) if not killed.touches(event.time)] == []
    directory = make_transport(file_url)._driver._use().directory
    wait_until(lambda: len(directory.refresh(LISTENERS, 5)) == 1, "only the other service is left")


def failures(folder: Path) -> list[journal.Event]:
    """The messages whose sender was told that they failed."""
    events = journal.read(folder.glob("caller.journal"))
    return [event for event in events if event.what == journal.FAILED]


@pytest.mark.parametrize("method", ["reload", "mutate"])
@pytest.mark.parametrize("launcher", prefork.LAUNCHERS)
def test_sighup_costs_no_message(
    launcher: str,
    method: str,
    tmp_path: Path,
    file_url: str,
    make_caller: MakeCaller,
) -> None:
    file = tmp_path / "service.conf"
    file.write_text("[DEFAULT]\nlog_options = false\n[oslo_messaging_zmq]\nzmq_linger = 4\n")
    config = {
        "url": file_url,
        "launcher": launcher,
        "journal": str(tmp_path / "workers.journal"),
        "restart_method": method,
        "config_file": str(file),
        "options": LOCAL,
    }
    with program("prefork", config) as child:
        say_of(child, "ready", 2)
        caller = make_caller(
            file_url,
            name="caller",
            journal=str(tmp_path / "caller.journal"),
            patterns={"call": 3, "cast": 1},
            timeout=20.0,
        )
        caller.until(lambda report: len(workers_in(report)) == 2, "both answer")
        # One of ours that cannot change while a process runs, and one that can.
        file.write_text("[DEFAULT]\nlog_options = true\n[oslo_messaging_zmq]\nzmq_linger = 3\n")
        child.process.send_signal(signal.SIGHUP)
        if method == "reload" or launcher == prefork.THREADING:  # which knows no other way
            say_of(child, "ready", 2)
            caller.until(lambda report: len(workers_in(report)) == 4, "the new ones answer")
        else:
            say_of(child, "reset", 2)
            reached = sum(caller.hear()["answers"].values())
            caller.until(lambda now: sum(now["answers"].values()) > reached + 200, "all goes on")
        report = caller.stop()
        child.process.send_signal(signal.SIGTERM)
        assert child.process.wait(timeout=10) == 0
    assert report["failures"] == {}
    assert account(tmp_path).faults == []


def test_children_of_a_busy_process_neither_hang_nor_disturb_it(
    tmp_path: Path, url: str, make_service: MakeService
) -> None:
    """Nor do they withdraw it from the matchmaker, nor send what it has not sent yet."""
    make_service(url, ("", "work", "other"), journal=str(tmp_path / "other.journal"))
    config = {
        "url": url,
        "journal": str(tmp_path / "parent.journal"),
        "rounds": 2,
        "options": LOCAL,
    }
    with program("forking", config) as parent:
        end = parent.hear(timeout=60)
        assert parent.process.wait(timeout=10) == 0
        errors = parent.errors
    assert {code for codes in end["codes"].values() for code in codes} == {0}, end["codes"]
    assert end["registered"], "its children's ends are not its own"
    assert end["after"] == end["before"]
    assert "Traceback" not in errors
    found = account(tmp_path)
    assert found.faults == []
    assert [row.failed for row in found.rows.values() if row.failed] == []
    assert found.rows["call"].executed == found.rows["call"].sent


@pytest.mark.parametrize("way", parting.WAYS)
def test_what_a_process_has_cast_arrives_however_it_ends(
    way: str, tmp_path: Path, file_url: str, make_service: MakeService
) -> None:
    service = make_service(file_url, ("", "work", "one"), journal=str(tmp_path / "one.journal"))
    config = {
        "url": file_url,
        "journal": str(tmp_path / "sender.journal"),
        "way": way,
        "options": LOCAL,
    }
    with program("parting", config) as sender:
        ends = sender.hear()["ends"]
        assert sender.process.wait(timeout=20) == parting.WAYS[way]
        assert time.monotonic() - ends < 5 + 2, "zmq_linger, and a little"
    service.stop()
    found = account(tmp_path)
    assert found.rows["cast"].succeeded == 300
    assert found.faults == []


def test_what_had_come_before_a_server_is_stopped_is_taken_though_it_was_not_read_yet(
    tmp_path: Path, file_url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    """Its sender has ended: nobody is left who could send it to another."""
    service = make_service(file_url, ("", "work", "one"), journal=str(tmp_path / "one.journal"))
    transport = make_transport(file_url)
    client(transport).call({}, "whoami")
    config = parting.PartingConfig(
        url=file_url,
        journal=str(tmp_path / "sender.journal"),
        way="cleanup",
        size=100,  # fits into what TCP keeps
    )
    os.kill(service.pid, signal.SIGSTOP)
    try:
        parting.send_all(transport, config)
        transport.cleanup()
        os.kill(service.pid, signal.SIGTERM)
    finally:
        os.kill(service.pid, signal.SIGCONT)
    service.stop()
    found = account(tmp_path)
    assert found.rows["cast"].succeeded == 300
    assert found.faults == []


@pytest.mark.parametrize("linger", [0, 1])
@pytest.mark.parametrize("way", ["the end of main", "cleanup"])
def test_a_process_that_ends_does_not_wait_longer_than_zmq_linger_for_one_that_does_not_read(
    way: str, linger: int, tmp_path: Path, file_url: str, make_service: MakeService
) -> None:
    options = {"zmq_heartbeat_timeout": 20.0}
    service = make_service(file_url, ("", "work", "one"), options=options)
    os.kill(service.pid, signal.SIGSTOP)
    config = {
        "url": file_url,
        "journal": str(tmp_path / "sender.journal"),
        "way": way,
        "casts": 2000,
        "size": 100_000,
        "options": {**LOCAL, **options, "zmq_linger": linger, "zmq_send_timeout": 1},
    }
    with program("parting", config) as sender:
        ends = sender.hear()["ends"]
        sender.process.wait(timeout=20)
        assert time.monotonic() - ends < linger + 1.5
    row = account(tmp_path).rows["cast"]
    assert row.failed["MessageDeliveryFailure"] == 1, "it sent until nothing was taken any more"
