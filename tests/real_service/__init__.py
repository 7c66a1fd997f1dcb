# SPDX-License-Identifier: Apache-2.0
"""A real OpenStack service over this transport: Mistral, driven over HTTP; see docs/real-service.md."""
