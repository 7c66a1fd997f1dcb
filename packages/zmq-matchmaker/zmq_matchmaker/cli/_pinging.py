# SPDX-License-Identifier: Apache-2.0
"""`ping`: does a host answer, and how fast; needs the extra `ping`."""

from __future__ import annotations

import argparse
import re
import time
from typing import Any, Final

from zmq_matchmaker.cli._errors import Usage
from zmq_matchmaker.cli._format import host_of
from zmq_matchmaker.cli._source import MatchmakerCommand, add_target, key_of

__all__ = ["Ping"]

NOBODY: Final = 3
_ADDRESS: Final = re.compile(r"(tcp://)?(\[[^\]]+\]|[^\s:/]+):\d{1,5}")
_PAUSE: Final = 0.2


class Ping(MatchmakerCommand):
    """Ask a host, or all hosts of a topic, whether they are there.

    They are sent a call for a name that nobody has, which each refuses: nothing is
    executed.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Whom to ask."""
        add_target(parser, topic={"metavar": "HOST:PORT|TOPIC"})
        parser.add_argument("-c", "--count", type=int, default=1, help="(default: %(default)s)")
        parser.add_argument(
            "--timeout", type=float, default=3.0, help="seconds (default: %(default)s)"
        )

    def take_action(self, parsed: argparse.Namespace) -> int:
        """Exit code 1 if one does not answer, 3 if there is none."""
        hosts = self._hosts(parsed)
        if not hosts:
            self.say(f"nobody listens on the {key_of(parsed)}")
            return NOBODY
        probe = _Probe(parsed.timeout)
        try:
            failed = False
            for number in range(max(1, parsed.count)):
                if number:
                    time.sleep(_PAUSE)
                for host in hosts:
                    began = time.perf_counter()
                    problem = probe.ask(host)
                    milliseconds = (time.perf_counter() - began) * 1000
                    failed = failed or bool(problem)
                    self.show(f"{host}  {problem or f'answers in {milliseconds:.1f} ms'}")
        finally:
            probe.close()
        return int(failed)

    def _hosts(self, parsed: argparse.Namespace) -> list[str]:
        if _ADDRESS.fullmatch(parsed.topic):
            return [parsed.topic.removeprefix("tcp://")]
        with self.matchmaker(parsed) as matchmaker:
            [found] = matchmaker.find([key_of(parsed)])
            return list(dict.fromkeys(host_of(standing) for standing in found.standings))


class _Probe:
    """A node that asks for a name that nobody has."""

    def __init__(self, timeout: float) -> None:
        try:
            import zmq_core
        except ImportError as error:
            raise Usage("ping needs zmq-core; install zmq-matchmaker[ping]") from error
        self._core: Any = zmq_core
        self._timeout = timeout
        self._node = zmq_core.Node(
            zmq_core.NodeOptions(connect_timeout=max(0.05, timeout), linger=0), role="ping"
        )
        self._key = zmq_core.TargetKey("", "zmq-matchmaker ping", "")

    def ask(self, host: str) -> str:
        """Why `host` does not answer; empty if it does."""
        try:
            self._node.request(f"tcp://{host}", self._key, b"", timeout=self._timeout)
        except self._core.Refused:
            return ""  # only a node of ours says so
        except self._core.CoreError as error:
            return f"does not answer: {error}"
        return ""

    def close(self) -> None:
        """End its thread and sockets."""
        self._node.close()
