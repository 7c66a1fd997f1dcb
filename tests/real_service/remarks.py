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
_OURS: Final = ("zmq_core", "zmq_matchmaker", "zmq_oslo_driver", "oslo_messaging._drivers")


def remarks(mistral: Mistral) -> str:
    """How many warnings and errors there are, by the name of the logger.

    None may be an error of ours, or of a thread that nobody watched over.
    """
    found: Counter[str] = Counter()
    for name, said in mistral.logs():
        for level, logger, text in _LINE.findall(said):
            found[f"{logger} {level}"] += 1
            ours = logger.startswith(_OURS) and level != "WARNING"
            assert not ours, f"{name} has logged: {level} {logger} {text}"
        unwatched = said.partition("Exception in thread ")[2]
        assert not unwatched, f"a thread of {name} has ended: {unwatched[:2000]}"
    return "; ".join(f"{count} {what}" for what, count in sorted(found.items())) or "nothing"
