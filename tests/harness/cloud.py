# SPDX-License-Identifier: Apache-2.0
"""A deployment of one test: who finds whom, and what runs there."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from oslo_config import cfg

from harness.proxies import ProxyProcess
from harness.services import CallerProcess, Service
from harness.traffic import at_once

GROUP = "oslo_messaging_zmq"


class Cloud:
    """Starts proxies, services and transports that belong together; their fixtures end them."""

    def __init__(
        self,
        url: str,
        conf: cfg.ConfigOpts,
        make_proxy: Callable[..., ProxyProcess],
        make_service: Callable[..., Service],
        make_transport: Callable[..., Any],
        make_caller: Callable[..., CallerProcess],
    ) -> None:
        self.url = url
        self._conf = conf
        self._make_proxy = make_proxy
        self.make_service = make_service
        self._make_transport = make_transport
        self._make_caller = make_caller
        self._options: dict[str, Any] = {}

    def configure(self, **options: Any) -> None:
        """Set options of `[oslo_messaging_zmq]` for all that is started from now on."""
        self._options |= options
        self.configure_transports(**options)

    def configure_transports(self, **options: Any) -> None:
        """The same, but for the transports of this process only."""
        for name, value in options.items():
            self._conf.set_override(name, value, group=GROUP)

    @property
    def options(self) -> dict[str, Any]:
        """Those that were set until now."""
        return dict(self._options)

    def proxy(self, **options: Any) -> ProxyProcess:
        """One proxy, with these options of `[zmq_proxy_opts]`."""
        return self._make_proxy(self.url, self._options, **options)

    def proxies(self, number: int, **options: Any) -> list[ProxyProcess]:
        """Several of them."""
        return at_once([functools.partial(self.proxy, **options)] * number)

    def service(
        self, name: str, *topics: str, options: dict[str, Any] | None = None, **config: Any
    ) -> Service:
        """A service of that name that listens on `work` and on `topics`."""
        servers = [("", topic, name) for topic in ("work", *topics)]
        options = {**self._options, **(options or {})}
        return self.make_service(self.url, *servers, options=options, **config)

    def services(self, names: Iterable[str], *topics: str, **config: Any) -> list[Service]:
        """Several of them."""
        return at_once(functools.partial(self.service, name, *topics, **config) for name in names)

    def caller(self, options: dict[str, Any] | None = None, **config: Any) -> CallerProcess:
        """A process that sends to `work` without pause."""
        return self._make_caller(self.url, options={**self._options, **(options or {})}, **config)

    def transport(self, **settings: Any) -> Any:
        """A transport of this process."""
        return self._make_transport(self.url, **settings)
