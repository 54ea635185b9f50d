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


def mounted(controller):
    """(path, version) of a hierarchy that already has the controller, or None."""
    with open("/proc/mounts", encoding="ascii") as file:
        mounts = [line.split() for line in file]
    for _, path, kind, options, *_ in mounts:
        if kind == "cgroup" and controller in options.split(","):
            return path, 1
    for _, path, kind, *_ in mounts:
        if kind == "cgroup2":
            with open(f"{path}/cgroup.subtree_control", encoding="ascii") as file:
                if controller in file.read().split():
                    return path, 2
    return None


@contextlib.contextmanager
def hierarchy(controller):
    """Where groups with the controller can be made: as mounted, else a v1 hierarchy mounted for the purpose."""
    if controller not in controllers():
        raise Unavailable(f"the kernel has no {controller} controller")
    found = mounted(controller)
    if found is not None:
        yield found
        return
    with tempfile.TemporaryDirectory(prefix="nh-cgroup-") as folder:
        mount = subprocess.run(["mount", "-t", "cgroup", "-o", controller, "none", folder], capture_output=True, text=True,
                               check=False)
        if mount.returncode != 0:
            raise Unavailable(f"the {controller} controller is not mounted and cannot be: {mount.stderr.strip()}")
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
def group_with_limit(controller, stem, limit):
    with hierarchy(controller) as (root, version):
        path = f"{root}/nh-test-{os.getpid()}"
        try:
            os.mkdir(path)
        except OSError as error:
            raise Unavailable(f"{path} cannot be made: {error.strerror}") from None
        try:
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
        self.limit(used + size)
        yield

    def limit(self, size):
        with open(f"{self.path}/{self.limit_file}", "w", encoding="ascii") as file:
            file.write(str(size))


@contextlib.contextmanager
def memory_group(limit=None):
    with hierarchy("memory") as (root, version):
        path = f"{root}/nh-test-{os.getpid()}"
        try:
            os.mkdir(path)
        except OSError as error:
            raise Unavailable(f"{path} cannot be made: {error.strerror}") from None
        group = MemoryGroup(path, version)
        try:
            if limit is not None:
                group.limit(limit)
            yield group
        finally:
            remove_group(path)


@contextlib.contextmanager
def hugetlb_group(kind, limit):
    """kind: "usage" limits pages as they are faulted in, "reservation" limits what may be mapped."""
    stem = "hugetlb.2MB" + (".rsvd" if kind == "reservation" else "")
    with group_with_limit("hugetlb", stem, limit) as group:
        yield group
