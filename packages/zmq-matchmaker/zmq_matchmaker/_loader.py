# SPDX-License-Identifier: Apache-2.0
"""From a URL to its backend, by stevedore."""

from __future__ import annotations

from typing import Final

from stevedore import DriverManager, ExtensionManager
from stevedore.exception import NoMatches

from zmq_matchmaker._backend import Matchmaker
from zmq_matchmaker._errors import MatchmakerError, UnknownMatchmaker
from zmq_matchmaker._url import MatchmakerURL

__all__ = ["NAMESPACE", "load"]

NAMESPACE: Final = "oslo.messaging.zmq.matchmaker"


def load(url: MatchmakerURL) -> Matchmaker:
    """The backend that `url` names; connects to nothing yet.

    :raises UnknownMatchmaker: none of that name is installed.
    :raises MatchmakerError: it needs a package that is not installed.
    :raises InvalidURL: the backend cannot work with the rest of the URL.
    """
    try:
        plugin = DriverManager(
            NAMESPACE, url.scheme, on_load_failure_callback=_raise, warn_on_missing_entrypoint=False
        ).driver
    except NoMatches as error:
        names = sorted(
            ExtensionManager(NAMESPACE, on_load_failure_callback=_ignore).entry_points_names()
        )
        raise UnknownMatchmaker(
            f"there is no matchmaker {url.scheme!r}; installed: {', '.join(names) or 'none'}"
        ) from error
    matchmaker: Matchmaker = plugin(url)
    return matchmaker


def _raise(manager: object, entry_point: object, error: BaseException) -> None:
    if isinstance(error, ImportError) and error.name:
        raise MatchmakerError(
            f"the matchmaker needs the Python package {error.name!r}, which is not installed; "
            f"install zmq-matchmaker[{error.name}]"
        ) from error
    raise error


def _ignore(manager: object, entry_point: object, error: BaseException) -> None:
    """A backend that cannot be loaded is installed all the same."""
