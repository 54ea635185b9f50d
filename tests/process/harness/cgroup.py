"""Control groups with a limit for huge pages of 2 MiB or for memory, in whichever hierarchy the machine offers."""

import contextlib
import os
import subprocess
import tempfile
import time

from harness.machine import Unavailable


class Group:
    def __init__(self, path):
        self.path = path

    def join(self):
        """Moves the calling process into the group (between fork and exec)."""
        with open(f"{self.path}/cgroup.procs", "w", encoding="ascii") as file:
            file.write(str(os.getpid()))


def controllers():
    with open("/proc/cgroups", encoding="ascii") as file:
        return {fields[0]: fields for fields in (line.split() for line in file) if fields and fields[0] != "#subsys_name"}


def mounted():
    """(path, version) of a hierarchy that already has the controller, or None."""
    with open("/proc/mounts", encoding="ascii") as file:
        mounts = [line.split() for line in file]
    for _, path, kind, options, *_ in mounts:
        if kind == "cgroup" and "hugetlb" in options.split(","):
            return path, 1
    for _, path, kind, *_ in mounts:
        if kind == "cgroup2":
            with open(f"{path}/cgroup.subtree_control", encoding="ascii") as file:
                if "hugetlb" in file.read().split():
                    return path, 2
    return None


@contextlib.contextmanager
def hierarchy():
    """Where groups with the controller can be made: as mounted, else a v1 hierarchy mounted for the purpose."""
    if "hugetlb" not in controllers():
        raise Unavailable("the kernel has no hugetlb controller (CONFIG_CGROUP_HUGETLB)")
    found = mounted()
    if found is not None:
        yield found
        return
    with tempfile.TemporaryDirectory(prefix="nh-cgroup-") as folder:
        mount = subprocess.run(["mount", "-t", "cgroup", "-o", "hugetlb", "none", folder], capture_output=True, text=True,
                               check=False)
        if mount.returncode != 0:
            raise Unavailable(f"the hugetlb controller is in no mounted hierarchy and cannot be mounted: {mount.stderr.strip()}")
        try:
            yield folder, 1
        finally:
            subprocess.run(["umount", folder], check=True)


def remove_group(path):
    """A group can be removed only once its last process is gone for good, a moment after its end."""
    for _ in range(100):
        try:
            os.rmdir(path)
            break
        except OSError:
            time.sleep(0.02)


@contextlib.contextmanager
def hugetlb_group(kind, limit):
    """kind: "usage" limits pages as they are faulted in, "reservation" limits what may be mapped."""
    with hierarchy() as (root, version):
        path = f"{root}/nh-test-{os.getpid()}"
        os.mkdir(path)
        try:
            stem = "hugetlb.2MB" + (".rsvd" if kind == "reservation" else "")
            name = f"{stem}.limit_in_bytes" if version == 1 else f"{stem}.max"
            with open(f"{path}/{name}", "w", encoding="ascii") as file:
                file.write(str(limit))
            yield Group(path)
        finally:
            remove_group(path)


class MemoryGroup(Group):
    def __init__(self, path, version):
        super().__init__(path)
        self.limit_file = "memory.limit_in_bytes" if version == 1 else "memory.max"
        self.usage_file = "memory.usage_in_bytes" if version == 1 else "memory.current"

    @contextlib.contextmanager
    def room(self, size):
        """Limits the group to what it uses now and so much more."""
        with open(f"{self.path}/{self.usage_file}", encoding="ascii") as file:
            used = int(file.read())
        with open(f"{self.path}/{self.limit_file}", "w", encoding="ascii") as file:
            file.write(str(used + size))
        yield


def mounted_memory():
    with open("/proc/mounts", encoding="ascii") as file:
        mounts = [line.split() for line in file]
    for _, path, kind, options, *_ in mounts:
        if kind == "cgroup" and "memory" in options.split(","):
            return path, 1
    for _, path, kind, *_ in mounts:
        if kind == "cgroup2":
            with open(f"{path}/cgroup.subtree_control", encoding="ascii") as file:
                if "memory" in file.read().split():
                    return path, 2
    raise Unavailable("no hierarchy with the memory controller is mounted")


@contextlib.contextmanager
def memory_group():
    root, version = mounted_memory()
    path = f"{root}/nh-test-{os.getpid()}"
    try:
        os.mkdir(path)
    except OSError as error:
        raise Unavailable(f"{path} cannot be made: {error.strerror}") from None
    try:
        yield MemoryGroup(path, version)
    finally:
        remove_group(path)
