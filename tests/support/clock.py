"""A clock that jumps for some processes while they run: a few lines of C between them and the system's clock.

Nothing of the machine is changed. What measures durations (the monotonic clock) goes on as it is, as it does when a
machine's clock is set.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_CODE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile int64_t nothing = 0, *ahead_s = &nothing;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("TEST_CLOCK_FILE");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    void *found = file < 0 ? MAP_FAILED : mmap(NULL, 8, PROT_READ, MAP_SHARED, file, 0);
    if (found != MAP_FAILED) ahead_s = found;
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

int clock_gettime(clockid_t id, struct timespec *now) {
    REAL(clock_gettime);
    int failed = real(id, now);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += *ahead_s;
    return failed;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    REAL(gettimeofday);
    int failed = real(now, zone);
    if (!failed) now->tv_sec += *ahead_s;
    return failed;
}
time_t time(time_t *told) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (told) *told = now.tv_sec;
    return now.tv_sec;
}

/* Deadlines go to the kernel, whose clock did not jump. Those of the monotonic clock count from the machine's start. */
static struct timespec for_the_kernel(const struct timespec *deadline) {
    struct timespec until = *deadline;
    if (until.tv_sec > 1000000000) until.tv_sec -= *ahead_s;
    return until;
}
int sem_timedwait(sem_t *restrict sem, const struct timespec *restrict deadline) {
    REAL(sem_timedwait);
    struct timespec until = for_the_kernel(deadline);
    return real(sem, &until);
}
int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict deadline) {
    REAL(pthread_cond_timedwait);
    struct timespec until = for_the_kernel(deadline);
    return real(cond, mutex, &until);
}
"""


@dataclass(frozen=True)
class Clock:
    """The clock of processes that are started with its environment."""

    library: Path
    file: Path

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process live by this clock."""
        return {"LD_PRELOAD": str(self.library), "TEST_CLOCK_FILE": str(self.file)}

    def jump(self, seconds: int) -> None:
        """Be this far ahead of the machine's clock from now on; behind where it is negative."""
        with self.file.open("r+b") as opened:
            opened.write(struct.pack("=q", seconds))


def jumping_clock(folder: Path) -> Clock:
    """Make a clock that runs like the machine's until it is told to jump; skips the test where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None or os.uname().sysname != "Linux":
        pytest.skip("a clock that jumps needs Linux and a C compiler")
    source, library, file = folder / "clock.c", folder / "clock.so", folder / "ahead"
    source.write_text(_CODE)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    file.write_bytes(bytes(8))
    return Clock(library, file)
