# SPDX-License-Identifier: Apache-2.0
"""Inputs of a fuzzer for the codec, a live node and the driver; `python -m fuzzing --help`."""
