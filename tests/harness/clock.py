# SPDX-License-Identifier: Apache-2.0
"""A wall clock that jumps, for processes of a test and not for its machine.

A library of a few lines, made by the C compiler, is loaded into them in front of libc
(LD_PRELOAD).  It adds to the time of day what stands in a file at that moment; monotonic
clocks are left alone.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

__all__ = ["COMPILER", "WallClock"]

COMPILER: Final = shutil.which("cc")
"""Where it is, if there is one."""

_SOURCE: Final = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *shift;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("WALL_CLOCK_SHIFT");
    int fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    void *page = fd < 0 ? MAP_FAILED : mmap(0, sizeof *shift, PROT_READ, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED) shift = page;
    if (fd >= 0) close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && shift && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *shift;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    int failed = clock_gettime(CLOCK_REALTIME, &exact);
    if (!failed && now) {
        now->tv_sec = exact.tv_sec;
        now->tv_usec = exact.tv_nsec / 1000;
    }
    return failed;
}

time_t time(time_t *also) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (also) *also = exact.tv_sec;
    return exact.tv_sec;
}
"""


class WallClock:
    """One clock, for all processes that are started with its `prefix`; files lie in `folder`."""

    def __init__(self, folder: Path, name: str = "clock") -> None:
        assert COMPILER is not None, "needs a C compiler (cc)"
        source, self._library = folder / f"{name}.c", folder / f"{name}.so"
        self._file = folder / f"{name}.shift"
        source.write_text(_SOURCE)
        subprocess.run(
            [COMPILER, "-O1", "-shared", "-fPIC", "-o", str(self._library), str(source)],
            check=True,
            capture_output=True,
        )
        self._file.write_bytes(bytes(8))

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put in front of a command so that it runs by this clock."""
        return ("env", *(f"{name}={value}" for name, value in self.environment.items()))

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process run by this clock."""
        return {"LD_PRELOAD": str(self._library), "WALL_CLOCK_SHIFT": str(self._file)}

    def jump(self, seconds: int) -> None:
        """From now on it is `seconds` ahead of the machine's."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("q", seconds))
