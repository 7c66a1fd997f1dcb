# SPDX-License-Identifier: Apache-2.0
"""Bodies: an RPC server answers a call with any, and a client reads any reply."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import oslo_messaging
from oslo_config import cfg
from oslo_messaging.conffixture import ConfFixture

from fuzzing.peers import OPTIONS, PATIENCE
from fuzzing.watch import Watch
from zmq_core import Envelope, Flag, MessageType, Node, Serializer
from zmq_oslo_driver import options
from zmq_oslo_driver.errors import UnreadableMessage
from zmq_oslo_driver.serialization import load, load_failure, load_request

__all__ = ["Replies", "Requests"]

_SERIALIZERS: Final = tuple(Serializer)
_POOL: Final = 4
"""Threads that the server may have to work."""


def _split(data: bytes) -> tuple[Serializer, bytes]:
    """An input's first octet chooses the serializer, the others are the body."""
    which = data[0] % len(_SERIALIZERS) if data else 0
    return _SERIALIZERS[which], data[1:]


class Endpoint:
    """What the server does."""

    target = oslo_messaging.Target()

    def echo(self, ctxt: Any, value: Any) -> Any:
        """Return what was given."""
        return value


class Requests:
    """A real RPC server: a call with any body is answered, and so is an honest one after it."""

    structured = False
    longest = 4096

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._watch = stack.enter_context(
                Watch("zmq_core", "zmq_matchmaker", "zmq_oslo_driver", spare=_POOL)
            )
            # It logs whatever it answers with a failure.
            stack.enter_context(_silence(logging.getLogger("oslo_messaging")))
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fuzzing-"))
            conf = _configuration(stack)
            url = f"zmq+file://{Path(folder, 'registry')}/"
            transport = oslo_messaging.get_rpc_transport(conf, url=url)
            stack.callback(transport.cleanup)
            server = oslo_messaging.get_rpc_server(
                transport,
                oslo_messaging.Target(topic="fuzzed", server="one"),
                [Endpoint()],
                executor="threading",
            )
            conf.set_override("executor_thread_pool_size", _POOL)
            server.start()
            stack.callback(server.wait)
            stack.callback(server.stop)
            [address, *_] = server.listener._addresses
            self._key = address.wire
            self._endpoint = server.listener._entries[0][1].endpoint
            self._node = stack.enter_context(Node(OPTIONS, role="raw"))
            target = oslo_messaging.Target(topic="fuzzed")
            client = oslo_messaging.get_rpc_client(transport, target, timeout=PATIENCE)
            self._call = client.call
            self.run(b"")  # opens all that there is to open
            self._watch.begin()
            self._stack = stack.pop_all()
        return self

    def run(self, data: bytes) -> None:
        """Call with a body, and see that the reply can be read."""
        serializer, body = _split(data)
        reply = self._node.request(
            self._endpoint, self._key, body, timeout=PATIENCE, serializer=serializer
        )
        result = load(reply.body, reply.serializer)
        try:
            load_request(body, serializer)
        except UnreadableMessage:
            assert reply.flags & Flag.FAILED
            assert "UnreadableMessage" in result
        assert self._call({}, "echo", value=self._watch.inputs) == self._watch.inputs
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


class Replies:
    """A client reads what a server has replied, be it a result or a failure."""

    structured = False
    longest = 4096

    def __init__(self) -> None:
        self._stack = ExitStack()

    def run(self, data: bytes) -> None:
        """Read a reply's body as both."""
        serializer, body = _split(data)
        reply = Envelope(type=MessageType.REPLY, id=bytes(16), body=body, serializer=serializer)
        for reader in (load, _load_failure):
            try:
                reader(reply.body, reply.serializer)
            except UnreadableMessage:
                continue

    def __enter__(self) -> Self:
        # It warns of each class of exception that it does not find.
        self._stack.enter_context(_silence(logging.getLogger("oslo_messaging")))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()


def _load_failure(body: bytes, serializer: Serializer) -> None:
    assert isinstance(load_failure(body, serializer, ["oslo_messaging.exceptions"]), Exception)


@contextmanager
def _silence(logger: logging.Logger) -> Iterator[None]:
    handler = logging.NullHandler()
    logger.addHandler(handler)
    logger.propagate = False
    yield
    logger.removeHandler(handler)
    logger.propagate = True


def _configuration(stack: ExitStack) -> cfg.ConfigOpts:
    """The defaults, on the loopback address."""
    conf = cfg.ConfigOpts()
    fixture = ConfFixture(conf)
    fixture.setUp()
    stack.callback(fixture.cleanUp)
    conf([], project="fuzzing")
    options.register(conf)
    conf.set_override("rpc_zmq_bind_address", "127.0.0.1", group=options.GROUP)
    return conf
