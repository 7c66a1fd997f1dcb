# SPDX-License-Identifier: Apache-2.0
"""Who listens where: pluggable discovery for brokerless messaging."""
