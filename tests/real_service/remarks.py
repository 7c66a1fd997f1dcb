# SPDX-License-Identifier: Apache-2.0
"""What the processes have logged that somebody should look at."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from real_service.mistral import Mistral

__all__ = ["remarks"]

_LINE: Final = re.compile(r"^\S+ \S+ \d+ (WARNING|ERROR|CRITICAL) (\S+) \[[^]]*\] (.*)", re.M)
"""As oslo.log writes it: time, process, level, name, request, text."""


def remarks(mistral: Mistral) -> str:
    """How many warnings and errors there are, by the name of the logger."""
    found: Counter[str] = Counter()
    for _name, said in mistral.logs():
        for level, logger, _text in _LINE.findall(said):
            found[f"{logger} {level}"] += 1
    return "; ".join(f"{count} {what}" for what, count in sorted(found.items())) or "nothing"
