#!/usr/bin/env python3
"""Runs limits_workout near limits of memory, under a filter for system calls and under strace.

    limits.py --library LIB --program PROGRAM --calls README [--only REGEX]

README is src/os/README.md, whose table of system calls is what the filter lets pass and what strace may see.
"""

import argparse
import glob
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import cgroup, machine  # noqa: E402
from harness.run_cases import end_of, test_environment  # noqa: E402

SKIPPED = 77  # SKIP_RETURN_CODE in CMakeLists.txt
MIB = 1 << 20
MARK = "getpgid(-4242)"
NO_POOL = "NUMAHEAP_HUGEPAGES=thp"  # pages of a pool are neither resident nor charged to a memory cgroup
INTERVAL_MS = 10  # how long counters of /proc and /sys are kept


class Failed(Exception):
    pass


def expect(condition, text):
    if not condition:
        raise Failed(text)


class Bench:
    def __init__(self, library, program, calls):
        self.library = library
        self.program = program
        self.calls = calls  # name -> "needed" or "spared"

    def run(self, case, env=(), before_exec=None, command=(), library=True):
        environment = test_environment(self.library if library and not command else None, env)
        run = subprocess.run([*command, self.program, case], env=environment, capture_output=True, text=True, timeout=200,
                             preexec_fn=before_exec, check=False)
        expect(run.returncode == 0, f"{case}: expected exit status 0, got {end_of(run.returncode)}\n{run.stdout}{run.stderr}")
        return run.stdout

    def trace(self, case, what, library=True, env=()):
        """The lines of strace, and what the program said."""
        if shutil.which("strace") is None:
            raise machine.Unavailable("strace is missing (package strace)")
        with tempfile.TemporaryDirectory(prefix="nh-strace-") as folder:
            log = os.path.join(folder, "log")
            command = ["strace", "-f", "-qq", "-o", log, "-e", f"trace={what}"]
            if library and self.library:
                command += ["-E", f"LD_PRELOAD={self.library}"]
            out = self.run(case, env, command=command)
            with open(log, encoding="utf-8", errors="replace") as file:
                return file.read().splitlines(), out

    def between_marks(self, case, *env):
        lines, out = self.trace(case, "open,openat,getpgid", env=env)
        marks = [number for number, line in enumerate(lines) if MARK in line and "resumed" not in line]
        expect(len(marks) == 2, f"expected two marks in the log of strace, found {len(marks)}")
        opened = [match.group(1) for line in lines[marks[0]:marks[1]] if (match := re.search(r'open\w*\([^"]*"([^"]+)"', line))]
        return opened, out


def read_calls(path):
    with open(path, encoding="utf-8") as file:
        rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (needed|spared) \|", file.read(), re.MULTILINE)
    calls = {name: kind for names, kind in rows for name in re.findall(r"`(\w+)`", names)}
    if "mmap" not in calls:
        sys.exit(f"limits.py: {path} has no table of system calls")
    return calls


CASES = []


def case(function):
    CASES.append((function.__name__, function))
    return function


def peak_of(text):
    return int(re.search(r"peak (\d+) MiB", text).group(1))


@case
def memory_cgroup(bench):
    """Two phases of 180 MiB each, of which the second needs what the first has left idle."""
    with cgroup.memory_group(300 * MIB) as group:
        bench.run("phases_in_turn", library=False, before_exec=group.join)
        for env in ([NO_POOL], [NO_POOL, "NUMAHEAP_SCAVENGE=off"], ["NUMAHEAP_HUGEPAGES=off"],
                    [NO_POOL, "NUMAHEAP_LARGE=local"]):
            peak = peak_of(bench.run("phases_in_turn", env, before_exec=group.join))
            expect(peak <= 300, f"{env}: peak {peak} MiB")


@case
def sparse_in_a_memory_cgroup(bench):
    with cgroup.memory_group(300 * MIB) as group:
        bench.run("sparse_objects", [NO_POOL], before_exec=group.join)


@case
def soft_limit(bench):
    """The same without a control group: the option alone."""
    without = peak_of(bench.run("phases_in_turn", [NO_POOL, "NUMAHEAP_SCAVENGE=off"]))
    expect(without > 340, f"peak {without} MiB: this program would not show a thing")
    peak = peak_of(bench.run("phases_in_turn", [NO_POOL, "NUMAHEAP_SCAVENGE=off", "NUMAHEAP_LIMIT=300m"]))
    expect(peak <= 300, f"peak {peak} MiB")


@case
def steady_program_reads_no_file(bench):
    opened, _ = bench.between_marks("steady_large_objects", "NUMAHEAP_SCAVENGE_DELAY=10m")
    expect(not opened, f"{len(opened)} files: {sorted(set(opened))}")


@case
def a_file_is_read_once_in_an_interval(bench):
    opened, out = bench.between_marks("a_thousand_new_objects")
    most = int(re.search(r"(\d+) ms", out).group(1)) // INTERVAL_MS + 2
    for path in sorted(set(opened)):
        expect(opened.count(path) <= most, f"{path} was opened {opened.count(path)} times, {most} would do")


@case
def files_at_start(bench):
    """What the library reads beside what the loader does."""
    if len(glob.glob("/sys/devices/system/node/node*")) > 1:
        raise machine.Unavailable("the number of files depends on the number of nodes")
    lines, _ = bench.trace("--list", "open,openat")
    opened = [line for line in lines if re.search(r'"/(proc|sys)/', line)]
    expect(len(opened) <= 2, "\n".join(opened))


@case
def system_calls_are_documented(bench):
    def names(library):
        lines, _ = bench.trace("everything", "all", library)
        return {match.group(1) for line in lines if (match := re.match(r"\d+\s+(?:<\.\.\. )?(\w+)[( ]", line))}
    more = names(True) - names(False) - set(bench.calls)
    expect(not more, f"src/os/README.md does not name {sorted(more)}")


def filtered(bench, spared, *cases):
    names = [name for name, kind in bench.calls.items() if kind == "needed" or name in spared]
    # What the program itself needs to say how it went.
    names += ["write", "exit_group", "rt_sigreturn"]
    for name in cases:
        out = bench.run(name, [f"NH_TEST_CALLS={' '.join(names)}"])
        if "no seccomp" in out:
            raise machine.Unavailable("this kernel has no seccomp filters")


@case
def only_the_needed_calls(bench):
    filtered(bench, (), "under_a_filter", "under_a_filter_from_the_first_object")


@case
def each_call_that_can_be_spared(bench):
    """All but one of them: what follows from one that works must do without the next."""
    # A thread that cannot register its rseq area ends the process, in glibc itself.
    spared = [name for name, kind in bench.calls.items() if kind == "spared" and name not in ("clone", "clone3")]
    for name in spared:
        filtered(bench, [other for other in spared if other != name], "under_a_filter_from_the_first_object")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library")
    parser.add_argument("--program", required=True)
    parser.add_argument("--calls", required=True)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    bench = Bench(os.path.realpath(arguments.library) if arguments.library else None, arguments.program,
                  read_calls(arguments.calls))
    failed, skipped, ran = [], 0, 0
    for name, body in CASES:
        if not re.search(arguments.only, name):
            continue
        ran += 1
        verdict = "ok  "
        try:
            body(bench)
        except Failed as error:
            failed.append(name)
            verdict = f"FAIL {error}\n    "
        except machine.Unavailable as error:
            skipped += 1
            verdict = f"skipped: {error}:"
        print(f"{verdict} {name}", flush=True)
    if not ran:
        sys.exit("limits.py: no case matches")
    if failed:
        sys.exit(f"{len(failed)} of {ran} cases failed: {' '.join(failed)}")
    if skipped == ran:
        sys.exit(SKIPPED)
    print(f"{ran - skipped} cases passed, {skipped} skipped")


if __name__ == "__main__":
    main()
