# SPDX-License-Identifier: Apache-2.0
"""The version, where both the package and its command can import it from."""

from typing import Final

__all__ = ["__version__"]

__version__: Final = "0.1.0"
