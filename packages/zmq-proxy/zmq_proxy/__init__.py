# SPDX-License-Identifier: Apache-2.0
"""The zmq proxy daemon: fewer sockets and real fanout for oslo.messaging over ZeroMQ."""
