# SPDX-License-Identifier: Apache-2.0
"""Ending in the midst of it: handlers of signals, threads that are killed, several at once."""

from __future__ import annotations

import ctypes
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

import oslo_messaging
import pytest
from oslo_messaging import Target

from harness.leaks import open_descriptors, wait_until
from harness.services import Child, Service, python
from harness.traffic import Callers, client
from zmq_oslo_driver import runtime as runtimes
from zmq_oslo_driver.ending import PATIENCE

MakeService = Callable[..., Service]
MakeTransport = Callable[..., Any]

LOCAL = {"rpc_zmq_bind_address": "127.0.0.1", "zmq_linger": 1}


def interrupted(url: str, **config: Any) -> dict[str, Any]:
    """What `harness.interrupted` says at its end."""
    text = json.dumps({"url": url, "options": LOCAL, **config})
    arguments = ("-W", "ignore", "-m", "harness.interrupted", text)
    with Child(python(*arguments, EVENTLET_NO_GREENDNS="yes")) as child:
        said = child.hear(timeout=90)
        assert child.process.wait(timeout=10) == 0
    return said


@pytest.mark.parametrize("handler", ["cleanup", "raise"])
def test_a_signal_at_any_moment_of_a_transports_life_hangs_nothing_and_leaves_nothing(
    handler: str, file_url: str, make_service: MakeService
) -> None:
    make_service(file_url, ("", "work", "one"))
    end = interrupted(file_url, work="all", handler=handler, turns=40)
    assert end["handled"] > 20, end
    assert end["longest"] < PATIENCE + 2, "a handler is not held up"
    strange = [
        outcome
        for outcome in end["outcomes"]
        if outcome not in ("done", "interrupted")
        and not outcome.endswith(("cleaned up", "cleaned up; make a new one", "was closed)"))
    ]
    assert strange == []
    assert end["runtimes"] == 0
    if handler == "raise":
        # Between the instruction that opens a descriptor and the one that takes hold of it.
        end["before"]["descriptors"] += 3
        # Python counts those, too, that never began, since their start was interrupted.
        end["before"]["threads"] += 10
    assert all(count <= end["before"][name] for name, count in end["after"].items()), end


def test_a_server_may_be_stopped_by_a_handler_whatever_the_main_thread_is_at(
    file_url: str, make_service: MakeService
) -> None:
    make_service(file_url, ("", "work", "one"))
    end = interrupted(file_url, work="call", handler="stop", turns=10)
    assert end["handled"] > 5, end
    assert end["longest"] < PATIENCE + 2
    assert end["outcomes"] == {"done": 10}, "the calls go on"
    assert end["after"] == end["before"]


def test_cleanup_in_a_handler_does_not_wait_for_the_lock_that_the_interrupted_code_holds(
    file_url: str, make_service: MakeService
) -> None:
    """Directed at the very moment: the rest is done when the handler has returned."""
    make_service(file_url, ("", "work", "one"))
    end = interrupted(file_url, work="locked", handler="cleanup", turns=2)
    assert end["handled"] == 2
    assert PATIENCE <= end["longest"] < PATIENCE + 1
    assert set(end["outcomes"]) == {"done"}
    assert end["after"] == end["before"]


def test_cleanup_from_several_threads_at_once_ends_once_and_all_wait_for_it(
    file_url: str, make_transport: MakeTransport, make_service: MakeService
) -> None:
    make_service(file_url, ("", "work", "one"))
    for _ in range(10):
        transport = make_transport(file_url)
        client(transport).call({}, "echo", value=1)
        runtime = transport._driver._use()
        together = threading.Barrier(4)

        def clean_up(
            _: int,
            transport: Any = transport,
            runtime: runtimes.Runtime = runtime,
            together: threading.Barrier = together,
        ) -> bool:
            together.wait()
            transport.cleanup()
            return bool(runtime._closed and runtime.node._life.closed)

        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(clean_up, range(4))) == [True] * 4
        transport.cleanup()
    assert not runtimes._runtimes
    assert not runtimes._ending


class Killed(Exception):
    """What is raised in a thread from without."""


def kill_thread(ident: int) -> None:
    """Raise `Killed` there, between two instructions."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(Killed))


def test_threads_that_are_killed_while_they_call_leave_the_others_alone_and_nothing_behind(
    file_url: str, make_transport: MakeTransport, make_service: MakeService
) -> None:
    make_service(file_url, ("", "work", "one"))
    transport = make_transport(file_url)
    caller = client(transport, timeout=20)
    outcomes: list[str] = []

    def call_until_killed() -> None:
        while True:
            try:
                while True:
                    caller.call({}, "echo", value=1)
                    caller.cast({}, "note", text="x")
            except Killed:
                outcomes.append("killed")
                if len(outcomes) >= 200:
                    return

    with Callers(lambda: caller.call({}, "echo", value=1), 4) as others:
        others.more(20)
        descriptors = len(open_descriptors())
        victims = [threading.Thread(target=call_until_killed) for _ in range(4)]
        for victim in victims:
            victim.start()
        while any(victim.is_alive() for victim in victims):
            for victim in victims:
                kill_thread(victim.ident or 0)
                victim.join(0.002)
        others.more(100)
    assert others.failures == []
    assert others.longest < 5
    assert len(outcomes) >= 200
    (link,) = transport._driver._use().node.links.values()
    wait_until(lambda: not len(link._outstanding), "nobody waits any more")
    # Wakers, of which there are as many as threads have ever read at once.
    assert len(open_descriptors()) <= descriptors + 4


def test_an_executor_that_cancels_what_has_not_begun_disturbs_nothing(
    file_url: str, make_transport: MakeTransport, make_service: MakeService
) -> None:
    make_service(file_url, ("", "work", "one"))
    caller = client(make_transport(file_url), timeout=20)
    threads = ThreadPoolExecutor(4)
    calls: list[Future[Any]] = [
        threads.submit(caller.call, {}, "slow", seconds=0.05) for _ in range(200)
    ]
    wait_until(lambda: calls[3].done(), "some have been answered")
    threads.shutdown(cancel_futures=True)
    answers = [call.result() for call in calls if not call.cancelled()]
    assert set(answers) == {"one"}
    assert len(answers) < 200
    with pytest.raises(CancelledError):
        calls[-1].result()
    assert caller.call({}, "echo", value=1) == 1


def test_a_server_that_is_stopped_while_handlers_run_answers_them(
    url: str, make_transport: MakeTransport
) -> None:
    """By another thread, twice, and with `wait` called at once."""
    transport = make_transport(url)
    begun = threading.Semaphore(0)
    go_on = threading.Event()

    class Slow:
        def work(self, ctxt: Any, number: int) -> int:
            begun.release()
            assert go_on.wait(20)
            return number

    server = oslo_messaging.get_rpc_server(
        transport, Target(topic="work", server="one"), [Slow()], executor="threading"
    )
    server.start()
    waiting = threading.Thread(target=server.wait)
    waiting.start()
    caller = client(make_transport(url), timeout=20)
    with ThreadPoolExecutor(5) as threads:
        answers = [threads.submit(caller.call, {}, "work", number=n) for n in range(4)]
        for _ in answers:
            assert begun.acquire(timeout=20)
        stopping = [threading.Thread(target=server.stop) for _ in range(2)]
        for thread in stopping:
            thread.start()
        server.stop()
        go_on.set()
        assert [answer.result(timeout=20) for answer in answers] == [0, 1, 2, 3]
    for thread in [*stopping, waiting]:
        thread.join(10)
        assert not thread.is_alive()
    server.stop()
    began = time.monotonic()
    server.wait()
    assert time.monotonic() - began < 1


def test_green_threads_may_be_killed_and_a_handler_that_runs_in_the_hub_may_clean_up(
    file_url: str, make_service: MakeService
) -> None:
    make_service(file_url, ("", "work", "one"))
    with Child(python("-W", "ignore", "-m", "harness.green_signals", file_url)) as child:
        end = child.hear(timeout=60)
        assert child.process.wait(timeout=10) == 0
        assert "Traceback" not in child.errors
    assert end["right"], "the others' calls are answered"
    assert end["out"] == 0
    assert len(end["handled"]) == 1
    assert end["handled"][0] < 1, "nobody can wait there"
    assert end["outcomes"] == {"ServerLost": 5}
    for name, count in end["after"].items():
        assert count <= end["before"][name], (name, end)
