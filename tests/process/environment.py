#!/usr/bin/env python3
"""Runs environment_workout and environment_fork in unusual surroundings: pools of huge pages that are empty, too small
or emptied meanwhile, THP in every mode, strict overcommit, limits, no restartable sequences.

    environment.py --library LIB --programs DIR [--only REGEX] [--group NAME]

Whatever it changes on the machine is put back, on failure and on a signal too (harness/machine.py).
"""

import argparse
import contextlib
import ctypes
import json
import mmap
import os
import re
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import cgroup, machine  # noqa: E402
from harness.run_cases import end_of, test_environment  # noqa: E402

SKIPPED = 77  # SKIP_RETURN_CODE in CMakeLists.txt


class Failed(Exception):
    pass


def expect(condition, text):
    if not condition:
        raise Failed(text)


@contextlib.contextmanager
def hog_free_pages():
    """Takes every free huge page of the machine's pool, as another process of a job would."""
    counters = machine.pool_counters()
    pages = counters["free"] - counters["resv"]
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000 | 0x8000  # MAP_HUGETLB | MAP_POPULATE
    held = mmap.mmap(-1, pages * machine.HUGE, flags=flags) if pages > 0 else None
    try:
        left = machine.pool_counters()
        expect(left["free"] - left["resv"] <= 0, f"the pool is not dry: {left}")
        yield pages
    finally:
        if held is not None:
            held.close()


class Bench:
    """Where programs are run: the library, the folder of programs, a folder for statistics."""

    def __init__(self, library, programs, folder):
        self.library = library
        self.programs = programs
        self.folder = folder

    def start(self, program, case, env=(), before_exec=None):
        settings = list(env)
        if self.library:
            settings.append(f"NUMAHEAP_STATS={self.folder}/%p.json")
        return subprocess.Popen([os.path.join(self.programs, program), case],
                                env=test_environment(self.library, settings), stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, start_new_session=True,
                                preexec_fn=before_exec)

    def finish(self, process, timeout=120):
        """Waits, judges, and returns the statistics that the process left."""
        try:
            _, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            _, err = process.communicate()
            raise Failed(f"still running after {timeout} s\n{err.decode(errors='replace')}") from None
        text = err.decode(errors="replace")
        expect(process.returncode == 0, f"expected exit status 0, got {end_of(process.returncode)}\n{text}")
        expect("numaheap: fatal" not in text, text)
        if not self.library:
            return {}
        path = os.path.join(self.folder, f"{process.pid}.json")
        expect(os.path.exists(path), "the process left no statistics: was the library loaded?")
        with open(path, encoding="utf-8") as file:
            return json.load(file)

    def run(self, program, case, env=(), before_exec=None):
        return self.finish(self.start(program, case, env, before_exec))

    def run_in_two_parts(self, program, case, between, env=(), before_exec=None):
        """Runs up to "ready", holds the context manager `between` from then on, and runs to the end."""
        process = self.start(program, case, env, before_exec)
        try:
            wait_for_ready(process)
            with between:
                process.stdin.write(b"go\n")
                return self.finish(process)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_for_ready(process, seconds=60):
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        text = b""
        end = time.monotonic() + seconds
        while b"ready\n" not in text:
            expect(selector.select(max(0, end - time.monotonic())), "the program did not say ready in time")
            part = os.read(process.stdout.fileno(), 100)
            if not part:
                process.wait()
                raise Failed(f"the program ended early: {end_of(process.returncode)}\n"
                             f"{process.stderr.read().decode(errors='replace')}")
            text += part


def fallbacks(stats):
    """How often something was not to be had: the key is a number, or lists or maps of numbers."""
    def total(value):
        if isinstance(value, dict):
            return sum(total(v) for v in value.values())
        if isinstance(value, list):
            return sum(total(v) for v in value)
        return value if isinstance(value, (int, float)) else 0
    return total(stats["fallbacks"])


def limit_address_space(kib):
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (kib * 1024, kib * 1024))


def without_sys_on_the_last_cpu():
    """An empty /sys, as in a bare container: nothing says how many CPUs there are."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_namespace, recursive_private = 0x20000, 0x4000 | 0x40000  # CLONE_NEWNS, MS_REC | MS_PRIVATE

    def enter():
        if (libc.unshare(new_namespace) != 0 or libc.mount(None, b"/", None, recursive_private, None) != 0 or
                libc.mount(b"none", b"/sys", b"tmpfs", 0, None) != 0):
            os._exit(SKIPPED)
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    return enter


# ---- the cases: name, group and body -----------------------------------------------------------------------------------

CASES = []


def case(group):
    def add(function):
        CASES.append((function.__name__, group, function))
        return function
    return add


@case("limits")
def plain(bench):
    stats = bench.run("environment_workout", "workout")
    if bench.library:
        expect(stats["cache_mode"] == "rseq", f"cache_mode is {stats['cache_mode']}")


@case("limits")
def small_process(bench):
    bench.run("environment_workout", "small_process")


@case("limits")
def address_space_of_4_gb(bench):
    bench.run("environment_workout", "address_space_ends", before_exec=limit_address_space(4000000))
    bench.run("environment_workout", "workout", before_exec=limit_address_space(4000000))


@case("limits")
def libc_without_rseq(bench):
    stats = bench.run("environment_workout", "workout", ["GLIBC_TUNABLES=glibc.pthread.rseq=0"])
    if bench.library:
        expect(stats["cache_mode"] in ("own-rseq", "fallback"), f"cache_mode is {stats['cache_mode']}")


@case("limits")
def no_rseq_at_all(bench):
    stats = bench.run("environment_workout", "workout", ["NUMAHEAP_RSEQ=off"])
    if bench.library:
        expect(stats["cache_mode"] == "fallback", f"cache_mode is {stats['cache_mode']}")


@case("limits")
def no_sys(bench):
    if os.geteuid() != 0:
        raise machine.Unavailable("mounting over /sys takes root")
    bench.run("environment_workout", "workout", before_exec=without_sys_on_the_last_cpu())


@case("limits")
def locked_memory(bench):
    bench.run("environment_workout", "mlockall_after_start")
    bench.run("environment_workout", "mlockall_with_a_full_heap")


@case("machine")
def strict_overcommit(bench):
    with machine.exclusive(), machine.overcommit(2):
        bench.run("environment_workout", "workout")
        bench.run("environment_workout", "small_process")


@case("machine")
def thp_modes(bench):
    with machine.exclusive():
        for mode in ("always", "madvise", "never"):
            with machine.thp(mode):
                stats = bench.run("environment_workout", "workout")
                bench.run("environment_workout", "small_process")
                bench.run("environment_workout", "mlockall_after_start")
            if bench.library and mode == "never":
                expect(sum(n["thp_bytes"] for n in stats["nodes"]) == 0, "THP is off, and yet the statistics show some")


@case("machine")
def empty_pool(bench):
    with machine.exclusive(), machine.pool(0):
        bench.run("environment_workout", "no_huge_pages")


@case("machine")
def full_pool(bench):
    with machine.exclusive(), machine.pool(128):
        stats = bench.run("environment_workout", "on_huge_pages")
        if bench.library:
            expect(all(key in stats["nodes"][0] for key in ("id", "live_bytes", "committed_bytes", "released_bytes",
                                                            "hugetlb_bytes", "thp_bytes", "base_bytes")), str(stats))
        bench.run("environment_workout", "trim_fills_the_pool_again")
        bench.run("environment_workout", "small_process")
        counters = machine.pool_counters()
        expect(counters["free"] == 128 and counters["resv"] == 0, f"ended processes left their pages behind: {counters}")


@case("machine")
def huge_pages_switched_off(bench):
    with machine.exclusive(), machine.pool(64):
        for value in ("thp", "off"):
            bench.run("environment_workout", "no_huge_pages", [f"NUMAHEAP_HUGEPAGES={value}"])


@case("machine")
def half_empty_pool(bench):
    with machine.exclusive(), machine.pool(24):
        stats = bench.run("environment_workout", "part_on_huge_pages")
        if bench.library:
            expect(fallbacks(stats) > 0, f"no fallback was counted: {stats['fallbacks']}")


@case("machine")
def every_source_of_huge_pages(bench):
    with machine.exclusive(), machine.pool(64):
        bench.run("environment_workout", "on_huge_pages", ["NUMAHEAP_HUGE_SOURCE=memfd"])
        with tempfile.TemporaryDirectory(prefix="nh-hugetlbfs-") as folder:
            subprocess.run(["mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "none", folder], check=True)
            try:
                bench.run("environment_workout", "on_huge_pages", [f"NUMAHEAP_HUGETLBFS={folder}"])
                expect(os.listdir(folder) == [], f"files were left behind: {os.listdir(folder)}")
            finally:
                subprocess.run(["umount", folder], check=True)


@case("machine")
def pool_emptied_by_another_process(bench):
    with machine.exclusive(), machine.pool(40):
        stats = bench.run_in_two_parts("environment_workout", "pool_runs_dry_in_mid_run", hog_free_pages())
        if bench.library:
            expect(fallbacks(stats) > 0, f"no fallback was counted: {stats['fallbacks']}")


def under_a_cgroup(bench, kind):
    with machine.exclusive(), machine.pool(96):
        with cgroup.hugetlb_group(kind, 16 * machine.HUGE) as group:
            bench.run("environment_workout", "workout", before_exec=group.join)
            stats = bench.run("environment_workout", "part_on_huge_pages", before_exec=group.join)
            if bench.library:
                expect(fallbacks(stats) > 0, f"no fallback was counted: {stats['fallbacks']}")
        expect(machine.pool_counters()["free"] == 96, "pages were left behind")


@case("machine")
def cgroup_limit_for_reservations(bench):
    under_a_cgroup(bench, "reservation")


@case("machine")
def cgroup_limit_for_faults(bench):
    """The hugetlb controller refuses pages at fault time, where the pool still has plenty and mmap succeeded."""
    under_a_cgroup(bench, "usage")


def forks(bench, cases):
    with machine.exclusive(), machine.pool(40):
        for name in cases:
            try:
                bench.run_in_two_parts("environment_fork", name, hog_free_pages())
            except Failed as error:
                raise Failed(f"{name}: {error}") from None


@case("fork")
def fork_with_a_dry_pool(bench):
    forks(bench, ["both_write_everything", "many_children", "children_of_children"])


@case("fork")
def fork_while_threads_write(bench):
    forks(bench, ["other_threads_keep_writing"])


@case("fork")
def fork_and_a_sigbus_handler(bench):
    forks(bench, ["the_programs_own_sigbus_handler_stays"])


@case("fork")
def fork_with_a_full_pool(bench):
    """Enough huge pages for two, and yet none is shared."""
    with machine.exclusive(), machine.pool(160):
        for name in ("both_write_everything", "other_threads_keep_writing"):
            bench.run_in_two_parts("environment_fork", name, contextlib.nullcontext())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library")
    parser.add_argument("--programs", required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--group", default="")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    failed, skipped, ran = [], [], 0
    with tempfile.TemporaryDirectory(prefix="nh-environment-") as folder:
        bench = Bench(os.path.realpath(arguments.library) if arguments.library else None, arguments.programs, folder)
        for name, group, body in CASES:
            if not re.search(arguments.only, name) or (arguments.group and group != arguments.group):
                continue
            ran += 1
            start = time.monotonic()
            try:
                body(bench)
                verdict = "ok  "
            except Failed as error:
                failed.append(name)
                verdict = f"FAIL {error}\n    "
            except machine.Unavailable as error:
                skipped.append(name)
                print(f"skipped: {name}: {error}")
                verdict = "skip"
            print(f"{verdict} {name} ({time.monotonic() - start:.2f} s)", flush=True)
    if not ran:
        sys.exit("environment.py: no case matches")
    if failed:
        sys.exit(f"{len(failed)} of {ran} cases failed: {' '.join(failed)}")
    if skipped and len(skipped) == ran:
        sys.exit(SKIPPED)
    print(f"{ran - len(skipped)} cases passed, {len(skipped)} skipped")


if __name__ == "__main__":
    main()
