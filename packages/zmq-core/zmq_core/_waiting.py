# SPDX-License-Identifier: Apache-2.0
"""The only place that knows whether threads are native or eventlet's green ones.

Everything else waits on a lock from `threading` (which monkey-patching makes
green) or on a descriptor through this module.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

__all__ = [
    "EndOfStream",
    "Poller",
    "Waker",
    "WakerPool",
    "is_green",
    "may_wait",
    "met_itself",
    "native_select",
    "run_blocking",
]

_EPOLL_BATCH: Final = 256
# poll and epoll count milliseconds in 32 bits; whoever waits longer looks in between.
_LONGEST_WAIT: Final = 86400.0


def is_green() -> bool:
    """Whether eventlet has replaced this process's threads by green ones."""
    if "eventlet" not in sys.modules:
        return False
    from eventlet import patcher

    return bool(patcher.is_monkey_patched("thread"))


def may_wait() -> bool:
    """Whether the caller may wait for anything: handlers of signals may run in eventlet's hub."""
    if not is_green():
        return True
    from eventlet import getcurrent, hubs

    return getcurrent() is not hubs.get_hub().greenlet


def native_select() -> Any:
    """The real select module: monkey-patching takes epoll and poll out of it."""
    if not is_green():
        return select
    from eventlet import patcher

    return patcher.original("select")


def _wait_green(fd: int, timeout: float | None) -> bool:
    """Let other green threads run until `fd` is readable; false on timeout."""
    from eventlet import hubs

    class Expired(Exception):
        pass

    try:
        hubs.trampoline(fd, read=True, timeout=timeout, timeout_exc=Expired)
    except Expired:
        return False
    return True


def run_blocking(function: Callable[[], object]) -> None:
    """Run a blocking C call to its end without stopping other green threads."""
    if not is_green():
        function()
        return
    from eventlet import patcher

    done = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def run() -> None:
        try:
            function()
        finally:
            os.eventfd_write(done, 1)

    try:
        native = patcher.original("threading").Thread(target=run, name="zmq-term", daemon=True)
        native.start()
        _wait_green(done, None)
        native.join()
    finally:
        os.close(done)


class _Bell:
    """An eventfd, which is closed with this object, should the handler of a signal have raised
    before whoever wanted it took hold of it."""

    fd = -1

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ring(self) -> None:
        os.eventfd_write(self.fd, 1)

    def silence(self) -> None:
        """Also if it does not ring."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close


class Waker:
    """Wakes one waiting native thread, which also watches one other descriptor."""

    def __init__(self) -> None:
        self._bell = _Bell()
        self._poll = native_select().poll()
        self._poll.register(self._bell.fd, select.POLLIN)
        self._woken = False

    def wake(self) -> None:
        """End the wait, now or when it comes.  Any thread may call this."""
        self._woken = True
        self._bell.ring()

    def watch(self, fd: int) -> None:
        """Watch `fd` too, until `unwatch`."""
        self._poll.register(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        """Forget `fd` and any wake-up that nobody waited for."""
        self._poll.unregister(fd)
        if self._woken:
            self._clear()

    def wait(self, seconds: float | None) -> None:
        """Wait until woken, until the watched descriptor is readable, or for `seconds`.

        May return early: a wait of more than a day is cut there.
        """
        timeout = None
        if seconds is not None:
            timeout = max(0, math.ceil(min(seconds, _LONGEST_WAIT) * 1000))
        for fd, _ in self._poll.poll(timeout):
            if fd == self._bell.fd:
                self._clear()

    def close(self) -> None:
        """Free the descriptor; nobody may be waiting."""
        self._bell.close()

    def _clear(self) -> None:
        self._woken = False
        self._bell.silence()


class WakerPool:
    """Wakers for threads that read a link themselves; as many as ever read at once."""

    def __init__(self) -> None:
        self._free: list[Waker] = []
        self._usable = not is_green()
        self._closed = False

    def take(self) -> Waker | None:
        """A waker that nobody else uses; None if the I/O thread must read."""
        if not self._usable:
            return None
        try:
            return self._free.pop()
        except IndexError:
            pass
        try:
            return Waker()
        except OSError:
            return None  # no descriptor left; the I/O thread needs none

    def give_back(self, waker: Waker) -> None:
        """Let others use `waker`."""
        self._free.append(waker)
        if self._closed:
            self.close()

    def close(self) -> None:
        """Free all descriptors; those still in use are freed when they are given back."""
        self._closed = True
        while self._free:
            self._free.pop().close()


def met_itself(fd: int) -> bool:
    """Whether a TCP connection has one socket for both ends.

    The kernel makes such a one if it has chosen for a client the very port to which
    that wants to connect, and nobody listens there.  False if the descriptor's owner has
    closed it, also if something else has got its number since.
    """
    try:
        own = os.dup(fd)
    except OSError:
        return False
    try:
        end = socket.socket(fileno=own)
    except OSError:
        os.close(own)
        return False
    with end, contextlib.suppress(OSError):
        return bool(end.getsockname() == end.getpeername())
    return False


class EndOfStream:
    """Asks the kernel whether the peer has ended a TCP connection that somebody else reads.

    The descriptor is only looked at.  When its owner has closed it, the answer is
    yes, or what holds for the file that got its number since.
    """

    def __init__(self, fd: int) -> None:
        self._poll = native_select().poll()
        self._poll.register(fd, select.POLLRDHUP)  # errors and hang-ups are always told

    def reached(self) -> bool:
        """Whether nothing more can come from the peer, so that nothing may be sent to it.

        Does not wait.  Not thread-safe.
        """
        return bool(self._poll.poll(0))


class Poller:
    """An epoll set for one waiting thread, native or green; the set may be changed by any."""

    def __init__(self) -> None:
        self._epoll = native_select().epoll()
        self._green = is_green()
        self._bell = _Bell()
        self._epoll.register(self._bell.fd, select.POLLIN)
        self._woken = False
        self._closed = False
        self._lock = threading.Lock()

    def watch(self, fd: int) -> None:
        """Report `fd` whenever it is readable."""
        self._epoll.register(fd, select.POLLIN)

    def mute(self, fd: int) -> None:
        """Keep `fd` in the set but do not report it."""
        self._epoll.modify(fd, 0)

    def unmute(self, fd: int) -> None:
        """Report `fd` again, at once if it is readable already."""
        self._epoll.modify(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        """Take `fd` out of the set."""
        self._epoll.unregister(fd)

    def wake(self) -> None:
        """End the wait, now or when it comes; several calls before it are one.

        Harmless after `close`, when the descriptor may be somebody else's.
        """
        with self._lock:
            if not self._woken and not self._closed:
                self._bell.ring()  # first: the handler of a signal may raise after it
                self._woken = True

    def wait(self, timeout: float | None) -> list[int]:
        """The readable descriptors, after at most `timeout` seconds; none when woken."""
        if timeout is not None:
            timeout = min(timeout, _LONGEST_WAIT)
        if self._green:
            _wait_green(self._epoll.fileno(), timeout)
            timeout = 0.0
        ready = self._epoll.poll(-1 if timeout is None else timeout, _EPOLL_BATCH)
        found = []
        for fd, _ in ready:
            if fd == self._bell.fd:
                with self._lock:
                    self._woken = False
                    self._bell.silence()
            else:
                found.append(fd)
        return found

    def close(self) -> None:
        """Free the descriptors; nobody may be waiting."""
        with self._lock:
            self._closed = True
            self._epoll.close()
            self._bell.close()
