# SPDX-License-Identifier: Apache-2.0
"""What ./demo shows: two servers, a client, every pattern, then some load."""
