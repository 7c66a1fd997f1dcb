# SPDX-License-Identifier: Apache-2.0
"""Peers behind proxies that fell silent."""

from __future__ import annotations

from zmq_core._silent import SilentPeers


def test_a_peer_is_suspect_until_it_is_heard() -> None:
    silent = SilentPeers()
    assert silent.suspect(b"one") is None
    silent.add(b"one")
    silent.add(b"one")
    heard = silent.suspect(b"one")
    assert heard is not None
    silent.heard(b"two")
    assert not heard.is_set()
    silent.heard(b"one")
    assert heard.is_set()
    assert silent.suspect(b"one") is None


def test_those_who_wait_are_let_go_of_at_the_end() -> None:
    silent = SilentPeers()
    silent.add(b"one")
    heard = silent.suspect(b"one")
    silent.clear()
    assert heard is not None
    assert heard.is_set()


def test_of_too_many_the_first_is_forgotten() -> None:
    silent = SilentPeers()
    silent.add(b"first")
    heard = silent.suspect(b"first")
    for number in range(4096):
        silent.add(b"%d" % number)
    assert silent.suspect(b"first") is None
    assert silent.suspect(b"4095") is not None
    assert heard is not None
    assert heard.is_set()
