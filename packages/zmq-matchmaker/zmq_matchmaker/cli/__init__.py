# SPDX-License-Identifier: Apache-2.0
"""The command `zmq-matchmaker`, for operators; needs the extra `cli`."""
