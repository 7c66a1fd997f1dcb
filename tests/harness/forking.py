# SPDX-License-Identifier: Apache-2.0
"""A busy process that forks: it serves, eight of its threads send, and its children come and go.

Started as `python -m harness.forking CONFIG`, where CONFIG is JSON (see `ForkingConfig`).
Children send over the transport that they have inherited, and end in all the ways that
there are.  At the end it says how each child has ended, whether the parent could still be
found, and what it held when everything was cleaned up.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import futurist  # noqa: F401 - as in services: oslo.service loads it
import msgspec
import oslo_messaging
from oslo_config import cfg

from harness.journal import BEGUN, FAILED, SUCCEEDED, Journal
from harness.leaks import holdings, settled_holdings
from harness.service import Endpoint
from zmq_matchmaker import Key, Role

_THREADS: Final = 8
_LONGEST: Final = 20
"""Seconds after which a child that hangs is ended."""


class ForkingConfig(msgspec.Struct):
    """What the process does."""

    url: str
    journal: str
    rounds: int = 3
    """How many children of each kind."""
    options: dict[str, Any] = {}


class Sender:
    """Sends messages that are told apart, and writes down what became of each."""

    def __init__(self, transport: Any, journal: Journal) -> None:
        self._journal = journal
        target = oslo_messaging.Target(topic="work")
        self._client = oslo_messaging.get_rpc_client(transport, target, timeout=_LONGEST)
        self._stopping = threading.Event()
        self.sent = 0

    def send(self, pattern: str, message: str) -> None:
        """One call or cast."""
        self._journal.note(BEGUN, pattern, message)
        send = self._client.call if pattern == "call" else self._client.cast
        try:
            answer = send({}, "run", pattern=pattern, message=message)
        except Exception as error:  # noqa: BLE001 - what is under test
            text = f"{type(error).__name__}: {error}".replace("\n", " ")
            self._journal.note(FAILED, pattern, message, text)
        else:
            self._journal.note(SUCCEEDED, pattern, message, answer or "")
            self.sent += 1

    def call_some(self) -> None:
        """What a child sends."""
        for number in range(3):
            self.send("call", f"child-{os.getpid()}-call-{number}")

    def send_some(self) -> None:
        """What another sends."""
        self.call_some()
        for number in range(20):
            self.send("cast", f"child-{os.getpid()}-cast-{number}")

    def send_on(self, name: int) -> None:
        """What a thread of the parent does."""
        number = 0
        while not self._stopping.is_set():
            self.send("cast" if number % 4 == 3 else "call", f"parent-{name}-{number}")
            number += 1

    def stop(self) -> None:
        self._stopping.set()


class Children:
    """Forks them, one at a time, and waits for each.  `work` sends something, `call` only calls."""

    def __init__(self, work: Callable[[], None], call: Callable[[], None]) -> None:
        self._work = work
        self._call = call
        self.codes: dict[str, list[int]] = {}
        self.kinds: dict[str, Callable[[], int]] = {
            "calls, os._exit": lambda: self._fork(self._work_and_vanish),
            "os._exit at once": lambda: self._fork(self._vanish),
            "calls, sys.exit": lambda: self._fork(self._work_and_exit),
            "sys.exit at once": lambda: self._fork(self._exit),
            "multiprocessing": self._multiprocessing,
            "subprocess": self._subprocess,
        }

    def round(self) -> None:
        """One of each kind."""
        for kind, start in self.kinds.items():
            self.codes.setdefault(kind, []).append(start())

    def _fork(self, child: Callable[[], None]) -> int:
        pid = os.fork()
        if pid == 0:
            signal.alarm(_LONGEST)
            child()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _vanish(self) -> None:
        os._exit(0)

    def _work_and_vanish(self) -> None:
        self._call()  # what was cast a moment before a process vanishes may be lost
        os._exit(0)

    def _exit(self) -> None:
        sys.exit(0)

    def _work_and_exit(self) -> None:
        self._work()
        sys.exit(0)

    def _multiprocessing(self) -> int:
        child = multiprocessing.get_context("fork").Process(target=self._work)
        child.start()
        child.join(_LONGEST)
        code = child.exitcode
        if code is None:
            child.kill()
            child.join()
        child.close()
        return 999 if code is None else code

    def _subprocess(self) -> int:
        """One that has no socket of ours, although nobody closes them for it."""
        done = subprocess.run(
            ["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, text=True
        )
        return done.returncode or int("socket" in done.stdout or "eventfd" in done.stdout)


def is_registered(transport: Any) -> bool:
    directory = transport._driver._use().directory
    runtime = transport._driver._use()
    key = Key(Role.LISTENER, "openstack", "work")
    return any(record.node == runtime.node.identity for record in directory.refresh(key, 5))


def serve(config: ForkingConfig) -> None:
    before = holdings()
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=config.url)
    with Journal(Path(config.journal)) as journal:
        server = oslo_messaging.get_rpc_server(
            transport,
            oslo_messaging.Target(topic="work", server="parent"),
            [Endpoint("parent", transport, journal)],
            executor="threading",
        )
        server.start()
        sender = Sender(transport, journal)
        threads = [
            threading.Thread(target=sender.send_on, args=(number,), daemon=True)
            for number in range(_THREADS)
        ]
        for thread in threads:
            thread.start()
        children = Children(sender.send_some, sender.call_some)
        for _ in range(config.rounds):
            wanted = sender.sent + 100
            while sender.sent < wanted:
                time.sleep(0.001)
            children.round()
        registered = is_registered(transport)
        sender.stop()
        for thread in threads:
            thread.join()
        server.stop()
        server.wait()
        transport.cleanup()
    say(
        codes=children.codes,
        registered=registered,
        sent=sender.sent,
        before=before,
        after=settled_holdings(before),
    )


def say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def main() -> None:
    config = msgspec.json.decode(sys.argv[1].encode(), type=ForkingConfig)
    logging.basicConfig(level="WARNING", stream=sys.stderr)
    cfg.CONF([], project="harness", default_config_files=[], default_config_dirs=[])
    from zmq_oslo_driver import options

    options.register(cfg.CONF)
    for name, value in config.options.items():
        cfg.CONF.set_override(name, value, group=options.GROUP)
    serve(config)


if __name__ == "__main__":
    main()
