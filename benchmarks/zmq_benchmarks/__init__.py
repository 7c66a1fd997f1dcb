# SPDX-License-Identifier: Apache-2.0
"""Measures the zmq driver side by side with what it replaces and with what bounds it.

`benchmarks/run --help` says how to use it, `docs/benchmarks.md` what came out.
"""
