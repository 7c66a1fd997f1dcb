# SPDX-License-Identifier: Apache-2.0
"""What is seen of the options of `[matchmaker_redis]` that are about TLS."""

from __future__ import annotations

import ssl
from typing import Any

import trustme

from harness.leaks import wait_until
from harness.options.bench import Bench
from harness.options.peers import Ear
from harness.options.redis import registering
from zmq_oslo_driver.errors import InvalidConfiguration

__all__ = ["certificate_shown", "is_encrypted", "trusts", "trusts_another_host"]

_CLIENT_HELLO = 0x16


def is_encrypted(bench: Bench) -> bool:
    """Whether the first thing that Redis hears is the beginning of a handshake."""
    with Ear(bench.base) as ear, registering(bench, port=bench.base, socket_timeout=50):
        wait_until(lambda: ear.heard, "it was asked")
        return ear.heard[0][0] == _CLIENT_HELLO


def trusts(bench: Bench) -> bool:
    """Whether it goes on after the handshake with a server of the first authority."""
    return not isinstance(_handshake(bench, "127.0.0.1"), Exception)


def trusts_another_host(bench: Bench) -> bool:
    """The same if the server's certificate is another host's."""
    return not isinstance(_handshake(bench, "192.0.2.1"), Exception)


def certificate_shown(bench: Bench) -> str:
    """Whose certificate the server is shown."""
    try:
        shown = _handshake(bench, "127.0.0.1")
    except InvalidConfiguration as error:
        return str(error)
    if isinstance(shown, Exception):
        return "no handshake"
    return str({name: value for [(name, value)] in shown["subject"]}["commonName"])


def _handshake(bench: Bench, host: str) -> Any:
    """The certificate that a server got from its client, or the error.

    The server is of the authority `ca`.
    """
    own = _authority(bench, "ca")
    _authority(bench, "stranger")
    for name in ("client", "own", "stranger"):
        leaf = own.issue_cert(f"{name}.example", common_name=name)
        leaf.cert_chain_pems[0].write_to_path(f"{bench.folder}/{name}.cert")
        leaf.private_key_pem.write_to_path(f"{bench.folder}/{name}.key")
        leaf.private_key_and_cert_chain_pem.write_to_path(f"{bench.folder}/{name}.pair")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.issue_cert(host).configure_cert(context)
    own.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    options: dict[str, Any] = {"ssl": True, "ssl_cafile": f"{bench.folder}/ca.pem"}
    if bench.tried is not None and bench.tried.option == "ssl_keyfile":
        options["ssl_certfile"] = f"{bench.folder}/client.cert"
    with Ear(bench.base, tls=context) as ear, registering(bench, port=bench.base, **options):
        wait_until(lambda: ear.shaken, "they have shaken hands")
        return ear.shaken[0]


def _authority(bench: Bench, name: str) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(f"{bench.folder}/{name}.pem")
    return made
