"""The pool of huge pages while programs are measured on it."""
import contextlib
from pathlib import Path

import machine

SYSFS = Path("/sys")  # tests have another one


class PoolError(Exception):
    """The pool could not be filled; the text is one line."""


def default_mib():
    """Two fifths of what is free: the programs' other memory needs room, too."""
    return machine.meminfo("MemAvailable") // 1024 * 2 // 5


def counters():
    """The files that set the pools of 2 MiB pages: one for each node, or one for a machine without nodes."""
    name = "hugepages/hugepages-2048kB/nr_hugepages"
    return (sorted((SYSFS / "devices/system/node").glob("node[0-9]*/" + name)) or
            [path for path in [SYSFS / "kernel/mm" / name] if path.exists()])


def asked_for(path):
    """What the pool was set to. Pages that programs still hold beyond that count in its size, and go with the programs."""
    surplus = path.with_name("surplus_hugepages")
    beyond = int(surplus.read_text(encoding="ascii")) if surplus.exists() else 0
    return f"{int(path.read_text(encoding='ascii')) - beyond}\n"


@contextlib.contextmanager
def reserved(mib):
    """Fills the pools of 2 MiB pages evenly and puts back what was there, whatever happens in between."""
    before = {path: asked_for(path) for path in counters()}
    if not before:
        raise PoolError("this kernel has no pool of 2 MiB pages")
    pages = -(-mib // 2)
    changed = []
    try:
        for index, path in enumerate(before):
            wanted = pages // len(before) + (index < pages % len(before))
            try:
                path.write_text(f"{wanted}\n", encoding="ascii")
                changed.append(path)
                got = int(path.read_text(encoding="ascii"))
            except OSError as error:
                raise PoolError(f"{path}: {error.strerror}; pools are root's to fill, outside of containers") from None
            if got < wanted:
                raise PoolError(f"{path}: {wanted} pages asked for, {got} there: memory is short, fragmented or in use")
        yield
    finally:
        for path in changed:
            path.write_text(before[path], encoding="ascii")
