"""The pool of huge pages while programs are measured on it."""
import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

import machine

RESERVE = Path(__file__).resolve().parent.parent / "reserve"


class PoolError(Exception):
    """The pool could not be filled; the text is one line."""


def default_mib():
    """Two fifths of what is free: the programs' other memory needs room, too."""
    return machine.meminfo("MemAvailable") // 1024 * 2 // 5


@contextlib.contextmanager
def reserved(mib):
    """Fills the pools of 2 MiB pages and puts back what was there, whatever happens in between.

    The state is kept in a file of our own: a reservation that the user made with scripts/reserve stays as it is.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMAHEAP_RESERVE_STATE": f"{folder}/state"}
        try:
            done = subprocess.run([RESERVE, f"{mib}M"], env=environment, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise PoolError((done.stderr.strip().splitlines() or ["scripts/reserve failed"])[-1])
            yield
        finally:
            if os.path.exists(f"{folder}/state"):
                subprocess.run([RESERVE, "--restore"], env=environment, stdout=subprocess.DEVNULL, check=True)
