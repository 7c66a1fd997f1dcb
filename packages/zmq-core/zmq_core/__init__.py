# SPDX-License-Identifier: Apache-2.0
"""ZeroMQ sockets, envelope and request/reply between processes, with no broker."""
