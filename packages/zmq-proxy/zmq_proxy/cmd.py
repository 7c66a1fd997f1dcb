# SPDX-License-Identifier: Apache-2.0
"""The commands `oslo-messaging-zmq-proxy` and `zmq-proxy`."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from typing import Final

from oslo_config import cfg
from oslo_log import log

from zmq_proxy._door import raise_descriptor_limit
from zmq_proxy._errors import InvalidConfiguration, ProxyError
from zmq_proxy._options import new_config
from zmq_proxy._proxy import Proxy
from zmq_proxy._settings import Settings
from zmq_proxy._systemd import Notifier
from zmq_proxy._version import __version__

__all__ = ["main"]

LOG = logging.getLogger(__name__)

_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT})
_ENDING: Final = 10.0
"""Seconds that the end may take beyond the linger time, should a matchmaker hang."""

_DESCRIPTION: Final = """
Passes messages of oslo.messaging over ZeroMQ on to the peer that they name (router), so that
processes need connections to proxies only, and to all who have subscribed (publisher). Reads
transport_url, [oslo_messaging_zmq] and [zmq_proxy_opts] from the services' own configuration
files; the command line wins.
"""
_EPILOG: Final = """
Ends with 0 on SIGTERM and SIGINT, after it has unregistered and passed on what is inside,
within zmq_linger. Services use it that have use_router_proxy or use_pub_sub = true in
[oslo_messaging_zmq]; see docs/proxy.md.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the proxy until SIGTERM or SIGINT; returns the exit code of the process.

    For the main thread.  The two signals remain blocked: the process is to end then.

    :raises SystemExit: after `--help` and `--version`, and for arguments that are none.
    """
    try:
        settings = _configure(arguments)
        raise_descriptor_limit()
        proxy = Proxy(settings)
    except (ProxyError, cfg.Error) as error:
        return _failed(error)
    # Before any thread starts, so that no other takes them: they wait for sigtimedwait.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        with proxy:
            notifier = Notifier()
            notifier.ready(proxy.status)
            received = None
            while received is None:
                pause = proxy.look()
                notifier.lives(proxy.status, well=not proxy.problem)
                received = signal.sigtimedwait(_SIGNALS, pause)
            name = signal.Signals(received.si_signo).name
            LOG.info("stopping on %s", name)
            notifier.stopping(f"stopping on {name}", settings.sockets.linger + _ENDING)
    except ProxyError as error:
        return _failed(error)
    return 0


def _configure(arguments: Sequence[str] | None) -> Settings:
    conf = new_config()
    conf(
        args=arguments,
        project="zmq-proxy",
        prog="zmq-proxy",
        version=__version__,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        # Nothing that the command line does not name.
        default_config_files=[],
        default_config_dirs=[],
    )
    try:
        log.setup(conf, "zmq-proxy")
    except (log.LogConfigError, OSError) as error:
        raise InvalidConfiguration("log_file, log_dir or log_config_append", str(error)) from error
    return Settings.load(conf)


def _failed(error: Exception) -> int:
    """Say so where an operator looks: in the log if it is a file, and on the terminal."""
    root = logging.getLogger()
    if any(isinstance(handler, logging.FileHandler) for handler in root.handlers):
        LOG.error("%s", error)
    sys.stderr.write(f"zmq-proxy: {error}\n")
    return 1
