"""What the figures were measured on."""
import datetime
import os
import platform
from pathlib import Path


def read(path):
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def cpu_model():
    for line in read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def meminfo(field):
    for line in read("/proc/meminfo").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0


def pools():
    """Pages by size and node: {"2048kB": {"node0": {"total": 0, "free": 0}}}"""
    found = {}
    for pool in sorted(Path("/sys/devices/system/node").glob("node*/hugepages/hugepages-*")):
        size = pool.name.removeprefix("hugepages-")
        found.setdefault(size, {})[pool.parent.parent.name] = {
            "total": int(read(pool / "nr_hugepages") or 0), "free": int(read(pool / "free_hugepages") or 0)}
    return found


def describe():
    thp = read("/sys/kernel/mm/transparent_hugepage/enabled")
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "nodes": len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or 1,
        "memory_mib": meminfo("MemTotal") // 1024,
        "kernel": platform.release(),
        "thp": thp.partition("[")[2].partition("]")[0] or "none",
        "pools": pools(),
        "load": os.getloadavg()[0],
    }


def one_line(machine):
    pages = sum(pool["total"] for pool in machine["pools"].get("2048kB", {}).values())
    return (f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['nodes']} node(s), "
            f"{machine['memory_mib'] / 1024:.0f} GiB, Linux {machine['kernel']}, THP {machine['thp']}, "
            f"{pages} huge pages in the pool, {machine['date'][:10]}")
