# SPDX-License-Identifier: Apache-2.0
"""Every option with its observable effect, and what shows it."""
