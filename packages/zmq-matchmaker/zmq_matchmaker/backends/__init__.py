# SPDX-License-Identifier: Apache-2.0
"""The backends that come with this package; stevedore loads them by their URL's scheme."""
