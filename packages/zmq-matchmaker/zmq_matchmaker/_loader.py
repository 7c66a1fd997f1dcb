# SPDX-License-Identifier: Apache-2.0
"""From a URL to its backend, by stevedore."""

from __future__ import annotations

from typing import Final

from stevedore import ExtensionManager, NamedExtensionManager

from zmq_matchmaker._backend import Matchmaker
from zmq_matchmaker._errors import MatchmakerError, UnknownMatchmaker
from zmq_matchmaker._url import MatchmakerURL

__all__ = ["NAMESPACE", "load"]

NAMESPACE: Final = "oslo.messaging.zmq.matchmaker"
_EXTRAS: Final = ("redis",)


def load(url: MatchmakerURL) -> Matchmaker:
    """The backend that `url` names; connects to nothing yet.

    :raises UnknownMatchmaker: none of that name is installed.
    :raises MatchmakerError: it needs a package that is not installed.
    :raises InvalidURL: the backend cannot work with the rest of the URL.
    """
    found = NamedExtensionManager(
        NAMESPACE,
        [url.scheme],
        on_load_failure_callback=_raise,
        on_missing_entrypoints_callback=_is_missing,
    ).extensions
    if not found:
        installed = ExtensionManager(NAMESPACE, on_load_failure_callback=_ignore)
        names = sorted(set(installed.entry_points_names()))
        raise UnknownMatchmaker(
            f"there is no matchmaker {url.scheme!r}; installed: {', '.join(names) or 'none'}"
        )
    if len(found) > 1:
        offers = ", ".join(str(extension.entry_point) for extension in found)
        raise MatchmakerError(f"several packages offer a matchmaker {url.scheme!r}: {offers}")
    matchmaker: Matchmaker = found[0].plugin(url)
    return matchmaker


def _is_missing(names: object) -> None:
    """`load` says it better than stevedore's own warning."""


def _raise(manager: object, entry_point: object, error: BaseException) -> None:
    if isinstance(error, ImportError) and error.name:
        package = error.name.partition(".")[0]
        advice = f"zmq-matchmaker[{package}]" if package in _EXTRAS else "it"
        raise MatchmakerError(
            f"the matchmaker needs the Python package {package!r}, which is not installed; "
            f"install {advice}"
        ) from error
    raise error


def _ignore(manager: object, entry_point: object, error: BaseException) -> None:
    """A backend that cannot be loaded is installed all the same."""
