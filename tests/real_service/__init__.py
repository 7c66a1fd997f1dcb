# SPDX-License-Identifier: Apache-2.0
"""A real OpenStack service, Mistral, driven over HTTP; docs/real-service.md tells of it."""
