# SPDX-License-Identifier: Apache-2.0
"""A client of oslo.messaging that sends fanouts and takes the time of each.

Started as `python -m zmq_benchmarks.fanout_client CONFIG`.
"""

from __future__ import annotations

import logging
import os
import sys
import time

import msgspec
import oslo_messaging
from oslo_config import cfg

from zmq_benchmarks.fanout_protocol import ClientConfig, Fanouts, FanoutsSent, marked
from zmq_benchmarks.protocol import Ready

__all__ = ["main"]


def _send(client: oslo_messaging.RPCClient, command: Fanouts) -> FanoutsSent:
    prepared = client.prepare(topic=command.topic, fanout=True)
    clock = time.monotonic
    begun, taken = [], []
    due = clock()
    for number in range(command.first, command.first + command.count):
        body = marked(number)
        begin = clock()
        prepared.cast({}, "note", body=body)
        taken.append(clock() - begin)
        begun.append(begin)
        due += command.interval
        time.sleep(max(0.0, due - clock()))
    return FanoutsSent(begun, taken)


def main(arguments: list[str]) -> None:
    """Send what is told, until the standard input ends."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    # Whatever a library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    config = msgspec.json.decode(arguments[0], type=ClientConfig)
    cfg.CONF([], project="benchmarks")
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=config.url)
    client = oslo_messaging.get_rpc_client(transport, oslo_messaging.Target(topic="benchmark"))
    decoder = msgspec.json.Decoder(Fanouts)
    answers.write(msgspec.json.encode(Ready()) + b"\n")
    for line in sys.stdin.buffer:
        answers.write(msgspec.json.encode(_send(client, decoder.decode(line))) + b"\n")
    transport.cleanup()


if __name__ == "__main__":
    main(sys.argv[1:])
