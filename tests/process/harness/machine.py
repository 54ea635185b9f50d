import time
"""Changes to the machine that tests need (pools of huge pages, THP mode, overcommit), always undone.

Everything here is a context manager. A lock file keeps tests of several build trees from changing the machine under
each other; inside one ctest run RESOURCE_LOCK hugepages does the same without waiting.
"""

import contextlib
import errno
import fcntl
import signal
import sys

LOCK_FILE = "/tmp/nh-hugepages.lock"
HUGE = 2 << 20
POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB"
NR_HUGEPAGES = "/proc/sys/vm/nr_hugepages"  # the pool of the default size, which pool() makes sure is 2 MiB
THP = "/sys/kernel/mm/transparent_hugepage/enabled"
OVERCOMMIT = "/proc/sys/vm/overcommit_memory"
COMPACT = "/proc/sys/vm/compact_memory"


def read(path):
    with open(path, encoding="ascii") as file:
        return file.read().strip()


class Unavailable(Exception):
    """What a test needs of the machine is not to be had here; the text says what is missing. The test is skipped."""


def write(path, value):
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(str(value))
    except (PermissionError, FileNotFoundError) as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror}") from None
    except OSError as error:
        if error.errno == errno.EROFS:
            raise Unavailable(f"{path} cannot be written: {error.strerror}") from None
        raise


_lock = None  # the open lock file while exclusive() is in force


def note_old_total(text):
    """Leaves in the lock file what the pool was, for whoever comes next if this process is killed outright."""
    _lock.seek(0)
    _lock.truncate()
    _lock.write(text)
    _lock.flush()


@contextlib.contextmanager
def exclusive():
    """The machine's settings are ours. Signals that end the process still run the clean-up of the blocks inside.

    The lock file and what it holds ("<page bytes> <pages>" of a pool that somebody left changed) are shared with
    tests/support/huge_pool_guard.h.
    """
    global _lock

    def stop(number, _frame):
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, stop)
    with open(LOCK_FILE, "a+", encoding="ascii") as _lock:
        fcntl.flock(_lock, fcntl.LOCK_EX)
        _lock.seek(0)
        left = _lock.read().split()
        if len(left) == 2:
            write(f"/sys/kernel/mm/hugepages/hugepages-{int(left[0]) // 1024}kB/nr_hugepages", left[1])
            note_old_total("")
        yield
    _lock = None


@contextlib.contextmanager
def setting(path, value):
    """A file of /proc or /sys holds another value for a while."""
    before = read(path)
    if "[" in before:  # "always [madvise] never"
        before = before[before.index("[") + 1:before.index("]")]
    write(path, value)
    try:
        yield
    finally:
        write(path, before)


def thp(mode):
    return setting(THP, mode)


def overcommit(mode):
    return setting(OVERCOMMIT, mode)


def pool_counters():
    return {name: int(read(f"{POOL}/{name}_hugepages")) for name in ("nr", "free", "resv", "surplus")}


@contextlib.contextmanager
def pool(pages):
    """The pool of 2 MiB pages has exactly this many free ones at the start. Pages that somebody else holds come on top."""
    path = NR_HUGEPAGES
    with open("/proc/meminfo", encoding="ascii") as file:
        if not any(line.split() == ["Hugepagesize:", "2048", "kB"] for line in file):
            raise Unavailable("the default huge page of this machine is not 2 MiB")
    # Surplus pages are counted in nr, but go by themselves with the process that holds them.
    before = pool_counters()["nr"] - pool_counters()["surplus"]
    note_old_total(f"{HUGE} {before}\n")
    try:
        # A process that has just ended may still be giving its pages back.
        for attempt in range(20):
            counters = pool_counters()
            wanted = pages + counters["nr"] - counters["free"]
            write(path, wanted)
            if int(read(path)) < wanted:
                write(COMPACT, 1)
                write(path, wanted)
            counters = pool_counters()
            if counters["free"] - counters["resv"] == pages:
                break
            time.sleep(0.25)
        if counters["free"] - counters["resv"] != pages:
            raise Unavailable(f"could not have {pages} free huge pages: {counters}")
        yield
    finally:
        write(path, before)
        note_old_total("")
