# SPDX-License-Identifier: Apache-2.0
"""Real processes for the tests that cross packages: services, clients, and an account of leaks."""
