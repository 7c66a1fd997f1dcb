# SPDX-License-Identifier: Apache-2.0
"""A live node that asks, and gets any frames for an answer.

Where an input has the id of the protocol's examples, it gets that of the request: so it may be
a right answer.  A right one follows each.  What the node takes for the answer, returns to its
application and counts must be what the protocol says.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

import zmq

from fuzzing import protocol
from fuzzing.frames import unpack
from fuzzing.peers import LARGEST, OPTIONS, PATIENCE, HonestPair
from fuzzing.watch import Watch, compare, counted
from harness.leaks import wait_until
from zmq_core import (
    CoreError,
    Envelope,
    MessageType,
    NackCode,
    Node,
    PeerLost,
    QueueFull,
    Refused,
    TargetKey,
    decode,
    encode,
)

__all__ = ["EXAMPLE_ID", "AskingNode"]

EXAMPLE_ID: Final = bytes(range(16))
_KEY: Final = TargetKey("nova", "compute", "h1")
_RIGHT: Final = b"the right answer"
_ANSWERS: Final = (MessageType.REPLY, MessageType.ACK)
_POLL_MS: Final = 100


class AskingNode:
    """`Node.request`: the DEALER and all behind it."""

    structured = True
    longest = 2 * LARGEST

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._watch = stack.enter_context(Watch("zmq_core"))
            self._returned: list[Envelope] = []
            self._node = Node(OPTIONS, role="fuzzed", returned=self._take_back)
            stack.enter_context(self._node)
            honest = stack.enter_context(Node(OPTIONS, role="honest"))
            self._pair = HonestPair(self._node, honest)
            self._liar = stack.enter_context(Liar())
            self._ask()
            self._watch.begin()
            self._stack = stack.pop_all()
        return self

    def _take_back(self, endpoint: str, message: Envelope) -> None:
        assert endpoint == self._liar.endpoint
        self._returned.append(message)

    def _ask(self) -> Envelope | CoreError:
        """Ask the liar; what came of it."""
        try:
            return self._node.request(self._liar.endpoint, _KEY, b"", timeout=PATIENCE)
        except (PeerLost, QueueFull, Refused) as error:
            return error

    def run(self, data: bytes) -> None:
        """Have a request answered, and see what comes of it."""
        frames = unpack(data) or [b""]
        before = counted(self._node.statistics)
        self._returned.clear()
        self._liar.next_answer = frames
        outcome = self._ask()
        self._expect(self._ask(), _right(self._liar.asked))  # all that came before has been taken
        if any(len(frame) > LARGEST for frame in frames):
            assert isinstance(outcome, PeerLost), outcome
            self._check(before, {}, [])
        else:
            self._judge(_answering(frames, self._liar.answered), outcome, before)
        self._pair.check()
        self._pair.check_connection()
        self._watch.check()

    def _judge(
        self, frames: Sequence[bytes], outcome: Envelope | CoreError, before: dict[str, int]
    ) -> None:
        if protocol.problem(frames) is not None:
            self._expect(outcome, _right(self._liar.answered))
            self._check(before, {"malformed": 1}, [])
            return
        message = decode(frames)
        ours = message.id == self._liar.answered
        if message.type is MessageType.HEARTBEAT:
            counts = {}
        elif message.type is MessageType.NACK:
            counts = {"nacks_received": 1, **({"late_replies": 1} if ours else {})}
        elif message.type in _ANSWERS:
            counts = {"late_replies": 1}  # either itself or the right one
        else:
            counts = {"misdirected": 1}
        if ours and message.type in (MessageType.NACK, *_ANSWERS):
            self._expect(outcome, message)
        else:
            self._expect(outcome, _right(self._liar.answered))
        returned = None if ours or message.type is not MessageType.NACK else message.returned()
        self._check(before, counts, [returned] if returned else [])

    def _expect(self, outcome: Envelope | CoreError, answer: Envelope) -> None:
        if answer.type is not MessageType.NACK:
            compare("the outcome is", outcome, answer)
        elif answer.nack_code is NackCode.QUEUE_FULL:
            assert isinstance(outcome, QueueFull), outcome
        else:
            assert isinstance(outcome, Refused), outcome
            assert outcome.code is answer.nack_code

    def _check(
        self, before: dict[str, int], counts: dict[str, int], returned: list[Envelope]
    ) -> None:
        wait_until(
            lambda: len(self._returned) >= len(returned), "what came back is returned", PATIENCE
        )
        compare("returned", self._returned, returned)
        now = counted(self._node.statistics)
        changes = {name: now[name] - before[name] for name in now}
        compare("counted", changes, {**dict.fromkeys(changes, 0), **counts})

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._stack:
            if kind is None:
                self._watch.check_holdings()


class Liar:
    """A ROUTER that answers each request with `next_answer`, if there is one, then rightly."""

    def __init__(self) -> None:
        self.next_answer: Sequence[bytes] = ()
        self.asked = b""
        """Id of the last request."""
        self.answered = b""
        """Id of the last that got a `next_answer`."""
        self._stopping = False
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.set(zmq.LINGER, 0)
        # As the protocol demands: after an oversize answer the node comes again, under its name.
        self._router.set(zmq.ROUTER_HANDOVER, 1)
        port = self._router.bind_to_random_port("tcp://127.0.0.1")
        self.endpoint = f"tcp://127.0.0.1:{port}"
        self._thread = threading.Thread(target=self._answer_on, name="liar")

    def _answer_on(self) -> None:
        while not self._stopping:
            if self._router.poll(_POLL_MS):
                peer, *request = self._router.recv_multipart()
                self.asked = decode(request).id
                answer, self.next_answer = self.next_answer, ()
                if answer:
                    self.answered = self.asked
                    self._router.send_multipart([peer, *_answering(answer, self.asked)])
                # What ends the connection has nothing behind it: that might come by the next.
                if all(len(frame) <= LARGEST for frame in answer):
                    self._router.send_multipart([peer, *encode(_right(self.asked))])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping = True
        self._thread.join()
        self._router.close()
        self._context.term()


def _answering(frames: Sequence[bytes], message_id: bytes) -> list[bytes]:
    """The frames with `message_id` in place of the example's."""
    if frames and frames[0][protocol.ID] == EXAMPLE_ID:
        return protocol.with_id(frames, message_id)
    return list(frames)


def _right(message_id: bytes) -> Envelope:
    return Envelope(type=MessageType.REPLY, id=message_id, body=_RIGHT)
