# SPDX-License-Identifier: Apache-2.0
"""Hosts with IPv6 only, adapter names, and a host name whose address changes: F33."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.cloud import Cloud
from harness.network import Network
from harness.services import Service

PORT = 49200


def answered(sender: Any, name: str) -> None:
    sender.until(lambda report: report["answers"].get(name, 0) > 20, f"{name} answers")


@pytest.mark.root
@pytest.mark.parametrize("bind", ["its address", "eth0", "*"])
@pytest.mark.parametrize("road", ["direct", "routers"])
def test_f33_hosts_with_ipv6_only_reach_each_other_by_address_and_by_adapter_name(
    road: str, bind: str, cloud: Cloud, tmp_path: Path
) -> None:
    cloud.configure(use_router_proxy=road == "routers", use_pub_sub=False)
    with Network(["server", "client", "router"], ipv6_only=True) as network:
        if road == "routers":
            cloud.proxy(prefix=network.on("router"), host=network.address("router"))

        def own(host: str) -> dict[str, Any]:
            address = network.address(host)
            advertised = {"rpc_zmq_host": address} if bind == "*" else {}
            binding = address if bind == "its address" else bind
            return {
                "journal": str(tmp_path / host),
                "prefix": network.on(host),
                "options": {"rpc_zmq_bind_address": binding, **advertised},
            }

        service = cloud.service("one", **own("server"))
        sender = cloud.caller(name="sender", threads=1, **own("client"))
        answered(sender, "one")
        assert sender.stop()["failures"] == {}
        service.stop()


def by_hosts_file(file: Path) -> tuple[str, ...]:
    """What to put in front of a command for which `file` is /etc/hosts."""
    script = 'mount --bind "$0" /etc/hosts && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, str(file))


@pytest.mark.root
def test_f33_a_host_name_whose_address_changes_is_resolved_again(
    cloud: Cloud, tmp_path: Path
) -> None:
    hosts = tmp_path / "hosts"
    one_port = {"rpc_zmq_min_port": PORT, "rpc_zmq_max_port": PORT + 1}
    with Network(["first", "second", "client"]) as network:

        def serve(host: str) -> Service:
            # In place: it is mounted.
            hosts.write_text(f"127.0.0.1 localhost\n{network.address(host)} moving\n")
            options = {"rpc_zmq_bind_address": "*", "rpc_zmq_host": "moving", **one_port}
            return cloud.service(
                host, journal=str(tmp_path / host), prefix=network.on(host), options=options
            )

        first = serve("first")
        sender = cloud.caller(
            name="sender",
            journal=str(tmp_path / "sender"),
            prefix=(*network.on("client"), *by_hosts_file(hosts)),
            threads=2,
            pause=0.01,
            timeout=20,
            options={"rpc_zmq_bind_address": network.address("client")},
        )
        answered(sender, "first")
        network.cut("first")  # it does not even say that it ends
        first.kill()
        second = serve("second")
        answered(sender, "second")
        report = sender.stop()
        assert {*report["failures"]} <= {"ServerLost"}
        assert sum(report["failures"].values()) <= 2, "those that the first one had"
        second.stop()


_TO_NOBODY = """
import sys
from zmq_core import Node, NodeOptions, TargetKey

node = Node(NodeOptions(bind_address="127.0.0.1"))
try:
    node.request(sys.argv[1], TargetKey("openstack", "work"), b"", timeout=20)
except Exception as error:
    print(type(error).__name__, error)
node.close()
"""


@pytest.mark.root
def test_a_port_that_nobody_listens_on_is_not_connected_to_itself() -> None:
    # The kernel does that when it chooses that port for the client, here every time.
    endpoint = f"tcp://127.0.0.1:{PORT}"
    with Network(["host"]) as network:
        limit = f"echo {PORT} {PORT + 1} > /proc/sys/net/ipv4/ip_local_port_range"
        subprocess.run([*network.on("host"), "sh", "-c", limit], check=True)
        command = [*network.on("host"), sys.executable, "-c", _TO_NOBODY, endpoint]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said == f"PeerUnreachable {endpoint}: nobody listens there\n"
