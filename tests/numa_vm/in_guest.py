#!/usr/bin/env python3
"""Everything that one boot of an emulated machine checks. Runs inside it: numa_vm_test starts the machine.

    in_guest.py MACHINE --library libnumaheap.so --tool numaheap --programs DIR [--runs REGEX] [--only REGEX]

Exit status 0 where all is well; otherwise what failed is on stdout, and the last line counts it.
"""

import argparse
import contextlib
import re
import subprocess
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
# pylint: disable=wrong-import-position
from checks import CHECKS
from runs import RUNS

HERE = Path(__file__).resolve().parent
CASE_TIMEOUT = 300  # seconds; an emulated CPU is slow, and eight of them share the host's
POOL = "/sys/devices/system/node/node{}/hugepages/hugepages-2048kB/nr_hugepages"
BALANCING = Path("/proc/sys/kernel/numa_balancing")
GROUPS = Path("/sys/fs/cgroup")


def symbols(library):
    """Where the library's own variables lie in it, for metadata_cases.cc."""
    text = subprocess.run(["nm", "--demangle", library], check=True, capture_output=True, text=True).stdout
    found = re.findall(r"^([0-9a-f]+) [A-Za-z] nh::(g_process|g_caches)$", text, re.MULTILINE)
    return "NH_SYMBOLS=" + " ".join(f"{name}={address}" for address, name in found)


@contextlib.contextmanager
def pools(pages):
    """The nodes' pools hold other numbers of huge pages for a while."""
    before = [Path(POOL.format(node)).read_text(encoding="ascii") for node in range(len(pages))]
    for node, count in enumerate(pages):
        path = Path(POOL.format(node))
        path.write_text(str(count), encoding="ascii")
        got = path.read_text(encoding="ascii").strip()
        assert got == str(count), f"node {node}: {count} huge pages asked for, {got} there"
    try:
        yield
    finally:
        for node, count in enumerate(before):
            Path(POOL.format(node)).write_text(count, encoding="ascii")


@contextlib.contextmanager
def group(cpus, nodes):
    """A control group with a cpuset; yields a command that runs another one in it."""
    if not (GROUPS / "cgroup.controllers").exists():
        subprocess.run(["mount", "-t", "cgroup2", "none", GROUPS], check=True)
    (GROUPS / "cgroup.subtree_control").write_text("+cpuset", encoding="ascii")
    path = GROUPS / f"cpus-{cpus}-nodes-{nodes}"
    path.mkdir(exist_ok=True)  # of an earlier run, and empty by now
    (path / "cpuset.cpus").write_text(cpus, encoding="ascii")
    (path / "cpuset.mems").write_text(nodes, encoding="ascii")
    yield ["sh", "-c", f'echo $$ >{path}/cgroup.procs && exec "$@"', "sh"]


def run_cases(run, arguments):
    with contextlib.ExitStack() as stack:
        front = [*run.front]
        if run.pools is not None:
            stack.enter_context(pools(run.pools))
        if run.cpuset is not None:
            front = [*stack.enter_context(group(*run.cpuset)), *front]
        BALANCING.write_text("1" if run.balancing else "0", encoding="ascii")
        settings = [*run.settings, symbols(arguments.library)]
        command = [*front, sys.executable, HERE.parent / "process" / "harness" / "run_cases.py", "--library",
                   arguments.library, "--timeout", str(CASE_TIMEOUT), *(word for s in settings for word in ("--env", s)),
                   "--only", arguments.only or run.cases, arguments.programs / run.program]
        return subprocess.run(command, check=False, stderr=subprocess.STDOUT).returncode == 0


def passed(name, check):
    started = time.monotonic()
    try:
        check()
    except (AssertionError, subprocess.SubprocessError, OSError, ValueError, KeyError) as error:
        print(f"FAIL {name}: {error}", flush=True)
        return False
    print(f"ok   {name} ({time.monotonic() - started:.2f} s)", flush=True)
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("machine", choices=RUNS)
    parser.add_argument("--library", required=True)
    parser.add_argument("--tool", required=True)
    parser.add_argument("--programs", required=True, type=Path, help="where numa_vm_placement and its like are")
    parser.add_argument("--runs", default="", help="a regular expression: which runs and checks, by name")
    parser.add_argument("--only", help="a regular expression: cases to run in each of the runs")
    arguments = parser.parse_args()

    failed = 0
    # Unless a check or run asks for it: where memory is not bound the kernel moves pages after whoever looks at them.
    BALANCING.write_text("0", encoding="ascii")
    for check in CHECKS[arguments.machine]:
        if re.search(arguments.runs, check.__name__):
            failed += not passed(check.__name__, lambda check=check: check(arguments))
    for run in RUNS[arguments.machine]:
        if re.search(arguments.runs, run.name):
            print(f"---- {run.name}", flush=True)
            failed += not run_cases(run, arguments)
    if failed:
        sys.exit(f"{failed} parts of the suite failed")


if __name__ == "__main__":
    main()
