"""The allocators that are compared: where their libraries are and how a program is put on them."""
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

# Column name, what the dynamic loader knows it by. The one that has no library is what the program is linked with.
PEERS = {
    "glibc": None,
    "jemalloc": "libjemalloc.so.2",
    "mimalloc": "libmimalloc.so.2",
    "tcmalloc": "libtcmalloc_minimal.so.4",
    "tbbmalloc": "libtbbmalloc_proxy.so.2",
}
OURS = "numaheap"
# Settings that would make one side of a comparison another one than it says.
FOREIGN_SETTINGS = ("LD_PRELOAD", "MALLOC_", "NUMAHEAP_", "MIMALLOC_", "TCMALLOC_", "TBB_", "GLIBC_TUNABLES")


@dataclass(frozen=True)
class Allocator:
    """One column of the tables. `peer`: one of those that numaheap is compared with."""
    name: str
    library: Path | None = None
    peer: bool = True
    settings: dict = field(default_factory=dict)

    def environment(self):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_SETTINGS)}
        if self.library:
            kept["LD_PRELOAD"] = str(self.library)
        return {**kept, **self.settings}

    def owns(self, path):
        """Whether a malloc in the file `path`, as a program says, is this allocator's."""
        if self.library:
            return os.path.realpath(path) == os.path.realpath(self.library)
        return os.path.basename(path).startswith("libc.so")


def loader_paths():
    """What the dynamic loader would load, by name."""
    tool = next((tool for tool in ("/sbin/ldconfig", "/usr/sbin/ldconfig") if os.path.exists(tool)), "ldconfig")
    listing = subprocess.run([tool, "-p"], capture_output=True, text=True, check=True).stdout
    paths = {}
    for line in listing.splitlines():
        name, arrow, path = line.strip().partition(" => ")
        if arrow and "x86-64" in name:
            paths.setdefault(name.split()[0], Path(path))
    return paths


def find_peers():
    """(peers that are installed, names of those that are not)"""
    paths = loader_paths()
    found, missing = [], []
    for name, library in PEERS.items():
        if library is None or library in paths:
            found.append(Allocator(name, paths.get(library)))
        else:
            missing.append(name)
    return found, missing


def version_of(allocator):
    """The Debian package and its version, "" where dpkg knows nothing of the file."""
    if not allocator.library:
        return f"glibc {os.confstr('CS_GNU_LIBC_VERSION').split()[-1]}"
    for path in (allocator.library, Path(os.path.realpath(allocator.library)), Path(f"/usr{allocator.library}")):
        try:
            owner = subprocess.run(["dpkg-query", "-S", path], capture_output=True, text=True, check=False)
            if owner.returncode == 0:
                package = owner.stdout.split(": ")[0].split(",")[0]
                shown = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Version}", package],
                                       capture_output=True, text=True, check=False)
                return shown.stdout
        except FileNotFoundError:
            break
    return ""
