#!/usr/bin/env python3
"""Runs a real program without the library and with it, on huge pages and without, and compares what it puts out.

    programs.py --library LIB --program NAME [--mode MODE]...              one program, in hugetlb, none and thp or as told
    programs.py --list                                                     the names

NH_TEST_QUICK=1 takes smaller inputs. Every run under the library must leave statistics of its own, so that a preload
that did not happen is no success.
"""

import argparse
import contextlib
import difflib
import glob
import json
import os
import shutil
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "process")]
from harness import machine  # noqa: E402
from table import PROGRAMS  # noqa: E402
from workplace import ProgramFailed, Workplace  # noqa: E402

SKIPPED = 77  # SKIP_RETURN_CODE in CMakeLists.txt


@contextlib.contextmanager
def hugetlb():
    """Reserved huge pages: fewer than the larger programs need, so that they meet the end of the pool as well."""
    with machine.exclusive(), machine.pool(256):
        yield


@contextlib.contextmanager
def no_huge_pages():
    with machine.exclusive(), machine.pool(0), machine.thp("never"):
        yield


@contextlib.contextmanager
def thp_only():
    with machine.exclusive(), machine.pool(0), machine.thp("madvise"):
        yield


@contextlib.contextmanager
def thp_always():
    with machine.exclusive(), machine.pool(0), machine.thp("always"):
        yield


@contextlib.contextmanager
def no_overcommit():
    with machine.exclusive(), machine.pool(0), machine.overcommit("2"):
        yield


class Mode:
    """Surroundings of a run: the state of the machine, more environment, a limit of the address space."""

    def __init__(self, surroundings, settings=None, address_space=None):
        self.surroundings = surroundings
        self.settings = settings
        self.address_space = address_space


USUAL_MODES = ("hugetlb", "none", "thp")
MODES = {
    "hugetlb": Mode(hugetlb),
    "none": Mode(no_huge_pages),
    "thp": Mode(thp_only),
    "thp-always": Mode(thp_always),
    "overcommit-2": Mode(no_overcommit),
    "rseq-off": Mode(thp_only, settings={"GLIBC_TUNABLES": "glibc.pthread.rseq=0"}),
    "address-space": Mode(thp_only, address_space=4000000 << 10),  # ulimit -v 4000000
}


def require_commands(program):
    """A missing program is a failure that names what to install, never a silent success."""
    missing = [f"{command} (package {package})" for command, package in program.needs.items() if shutil.which(command) is None]
    for path, package in program.needs_files.items():
        if not glob.glob(path):
            missing.append(f"{path} (package {package})")
    if missing:
        sys.exit(f"{program.name}: missing: {', '.join(missing)}; scripts/deps programs installs it")


def read_statistics(folder):
    """What the processes of one run left: (number of files, sums over their nodes)."""
    sums = {"hugetlb_bytes": 0, "thp_bytes": 0, "base_bytes": 0}
    paths = glob.glob(os.path.join(folder, "*.json"))
    for path in paths:
        with open(path, encoding="utf-8") as file:
            stats = json.load(file)
        if "cache_mode" not in stats:
            raise ProgramFailed(f"no cache_mode in {path}")
        for node in stats["nodes"]:
            for key in sums:
                sums[key] += node[key]
    return len(paths), sums


def compare(wanted, got):
    """The outputs are texts by name; raises with the first differences."""
    if wanted == got:
        return
    for name in wanted:
        if wanted[name] != got.get(name):
            lines = difflib.unified_diff(wanted[name].splitlines(), got.get(name, "").splitlines(), "without", "with", lineterm="")
            raise ProgramFailed(f"{name} differs:\n" + "\n".join(list(lines)[:40]))
    raise ProgramFailed(f"more was put out than without the library: {sorted(set(got) - set(wanted))}")


def run_mode(program, library, mode, inputs, root, wanted):
    statistics = os.path.join(root, f"statistics-{mode}")
    os.mkdir(statistics)
    place = Workplace(os.path.join(root, f"run-{mode}"), inputs, library, statistics)
    place.settings = MODES[mode].settings
    place.address_space = MODES[mode].address_space
    try:
        with MODES[mode].surroundings():
            start = time.monotonic()  # not the wait for the machine
            got = program.run(place)
            seconds = time.monotonic() - start
    finally:
        shutil.rmtree(place.folder, ignore_errors=True)
    compare(wanted, got)
    count, sums = read_statistics(statistics)
    if count == 0:
        raise ProgramFailed("no process left statistics: the library was not loaded")
    if mode != "hugetlb" and sums["hugetlb_bytes"] != 0:
        raise ProgramFailed(f"{sums['hugetlb_bytes']} bytes on huge pages of an empty pool")
    if mode == "none" and sums["thp_bytes"] != 0:
        raise ProgramFailed(f"{sums['thp_bytes']} bytes on transparent huge pages, which are off")
    if mode == "hugetlb" and program.large and sums["hugetlb_bytes"] == 0:
        raise ProgramFailed("a large program took no huge page of a full pool")
    sizes = ", ".join(f"{key.removesuffix('_bytes')} {value >> 20} MiB" for key, value in sums.items())
    print(f"ok   {program.name} {mode}: {seconds:.1f} s, {count} processes, at exit {sizes}", flush=True)


def run_program(program, library, modes):
    """The names of the modes that failed, and of those that the machine could not offer."""
    require_commands(program)
    failed, skipped = [], []
    with tempfile.TemporaryDirectory(prefix=f"nh-{program.name}-") as root:
        inputs = os.path.join(root, "inputs")
        os.mkdir(inputs)
        program.prepare(inputs)
        place = Workplace(os.path.join(root, "reference"), inputs, None, None)
        start = time.monotonic()
        try:
            wanted = program.run(place)
        except ProgramFailed as error:
            sys.exit(f"{program.name} fails without the library already: {error}")
        print(f"     {program.name} without the library: {time.monotonic() - start:.1f} s", flush=True)
        if not any(wanted.values()):
            sys.exit(f"{program.name} puts out nothing: there is nothing to compare")
        for mode in modes:
            try:
                run_mode(program, library, mode, inputs, root, wanted)
            except machine.Unavailable as reason:
                skipped.append(mode)
                print(f"skipped: {program.name} {mode}: {reason}", flush=True)
            except ProgramFailed as error:
                failed.append(mode)
                print(f"FAIL {program.name} {mode}: {error}", flush=True)
    return failed, skipped


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library")
    parser.add_argument("--program", choices=sorted(PROGRAMS))
    parser.add_argument("--mode", choices=sorted(MODES), action="append")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(sorted(PROGRAMS)))
        return
    if not arguments.library or not arguments.program:
        parser.error("--library and --program are needed")
    library = os.path.realpath(arguments.library)
    if not os.path.exists(library):
        sys.exit(f"{library} does not exist")
    modes = arguments.mode or list(USUAL_MODES)
    failed, skipped = run_program(PROGRAMS[arguments.program], library, modes)
    if failed:
        sys.exit(f"{arguments.program} failed in: {', '.join(failed)}")
    if len(skipped) == len(modes):
        sys.exit(SKIPPED)


if __name__ == "__main__":
    main()
