# SPDX-License-Identifier: Apache-2.0
"""A live node that listens, with a stranger at its door.

Each input is sent twice, since what may be sent again must be executed once.  What the node
answers, executes and counts must be what the protocol says; an honest peer's call is answered
after each; nothing is left in the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

from fuzzing import protocol
from fuzzing.frames import unpack
from fuzzing.peers import LARGEST, OPTIONS, HonestPair, Stranger
from fuzzing.watch import Watch, compare, counted
from zmq_core import (
    NOTIFICATIONS,
    Envelope,
    Flag,
    Incoming,
    MessageType,
    NackCode,
    Node,
    TargetKey,
    decode,
)

__all__ = ["ListeningNode"]

_TIMES: Final = 2
_REQUESTS: Final = frozenset({MessageType.CALL, MessageType.CAST, MessageType.FANOUT})
# Those of the examples in docs/protocol.md.
_KEYS: Final = (TargetKey("nova", "compute", "h1"), TargetKey("nova", "compute"))
_POOL: Final = TargetKey("nova", "notifications.info", "pool-a")
_LISTENED: Final = {(kind, key.encoded) for kind in _REQUESTS for key in _KEYS} | {
    (MessageType.NOTIFY, _POOL.encoded)
}


class ListeningNode:
    """`Node.listen`: the ROUTER and all behind it."""

    structured = True
    longest = 2 * LARGEST

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._watch = stack.enter_context(Watch("zmq_core"))
            self._node = stack.enter_context(Node(OPTIONS, role="fuzzed"))
            for key in _KEYS:
                self._node.serve(key, self._handle)
            self._node.listen(_POOL, self._handle, types=NOTIFICATIONS)
            caller = stack.enter_context(Node(OPTIONS, role="honest"))
            self._pair = HonestPair(caller, self._node)
            self._stranger = stack.enter_context(Stranger(self._node.bind()))
            self._stranger.answers()
            self._executed: list[Envelope] = []
            self._watch.begin()
            self._stack = stack.pop_all()
        return self

    def _handle(self, incoming: Incoming) -> None:
        incoming.release()
        self._executed.append(incoming.envelope)
        if incoming.envelope.type is MessageType.CALL:
            incoming.reply(incoming.body)

    def run(self, data: bytes) -> None:
        """Send a message, and see what comes of it."""
        frames = protocol.with_id(unpack(data), b"an input" + self._stranger.number())
        self._executed.clear()
        before = counted(self._node.statistics)
        if any(len(frame) > LARGEST for frame in frames):
            self._stranger.send(frames)
            self._stranger.expect_end()
            answers = self._stranger.answers()
            rightly = Account()
        else:
            for _ in range(_TIMES):
                self._stranger.send(frames)
            answers = self._stranger.answers()
            rightly = Account.of(frames)
        now = counted(self._node.statistics)
        changes = {name: now[name] - before[name] for name in now}
        rightly.count("received")  # the PROBE
        compare("answered", answers, rightly.answers)
        compare("executed", self._executed, rightly.executed)
        compare("counted", changes, {**dict.fromkeys(changes, 0), **rightly.counts})
        self._pair.check()
        self._pair.check_connection()
        self._watch.check()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._stack:
            if kind is None:
                self._watch.check_holdings()


class Account:
    """What must come of a message that is sent `_TIMES` times."""

    def __init__(self) -> None:
        self.answers: list[Envelope] = []
        self.executed: list[Envelope] = []
        self.counts: dict[str, int] = {}

    def count(self, name: str, times: int = 1) -> None:
        """Expect a counter of `Statistics` to have grown."""
        self.counts[name] = self.counts.get(name, 0) + times

    @classmethod
    def of(cls, frames: Sequence[bytes]) -> Account:
        """Of `frames`, sent by a peer that has sent nothing under their id before."""
        account = cls()
        account.count("received", _TIMES)
        problem = protocol.problem(frames)
        if problem is not None:
            account.count("malformed", _TIMES)
            if list(frames) not in ([], [b""]):
                refusal = Envelope(type=MessageType.NACK, id=protocol.id_of(frames), code=problem)
                account.answers = [refusal] * _TIMES
            return account
        account._add(decode(frames))
        return account

    def _add(self, message: Envelope) -> None:
        if message.type is MessageType.PROBE:
            self.answers = [message.refused(NackCode.UNKNOWN_ID)] * _TIMES
        elif message.type not in _REQUESTS | NOTIFICATIONS:
            self.count("misdirected", _TIMES)
        elif (message.type, message.key) not in _LISTENED:
            self.count("unknown_key", _TIMES)
            self.answers = [message.refused(NackCode.UNKNOWN_KEY)] * _TIMES
        else:
            self._execute(message)

    def _execute(self, message: Envelope) -> None:
        if message.type is MessageType.CALL:
            once = message.flags & Flag.REPEATABLE
            answer = Envelope(type=MessageType.REPLY, id=message.id, body=message.body)
            self.answers = [answer] * _TIMES
        else:
            once = message.flags & Flag.ACK_WANTED
            answer = Envelope(type=MessageType.ACK, id=message.id)
            self.answers = [answer] * _TIMES if once else []
        self.executed = [message] * (1 if once else _TIMES)
