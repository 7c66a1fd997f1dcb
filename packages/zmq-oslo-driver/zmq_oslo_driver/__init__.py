# SPDX-License-Identifier: Apache-2.0
"""oslo.messaging over ZeroMQ: RPC and notifications straight from process to process."""
