#!/usr/bin/env python3
"""Runs fork_windows with a pool of huge pages that is dry at the moment of the fork, in every mode of NUMAHEAP_FORK.

    fork_windows.py --library LIB --programs DIR [--only REGEX]
"""

import argparse
import contextlib
import os
import re
import resource
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from environment import SKIPPED, Bench, Failed, hog_free_pages  # noqa: E402
from harness import machine  # noqa: E402

AUTO = []
RELOCATE = ["NUMAHEAP_FORK=relocate"]
COW = ["NUMAHEAP_FORK=cow"]
ABOVE = ["NUMAHEAP_FORK_MAX=4M"]  # auto, with more memory than it may copy
SHARED = ["NUMAHEAP_SHARED=1"]
EVERY = (AUTO, RELOCATE, COW, ABOVE, SHARED)
RESTORED = ["NH_TEST_RESTORED=1"]

QUICK = os.environ.get("NH_TEST_QUICK") == "1"
BIG = 256 if QUICK else 1536

# (case, pages of the pool, modes)
CASES = [
    ("everything_is_written_on_both_sides", 64, EVERY),
    ("everything_is_written_on_both_sides", BIG // 2 + 64, [["NUMAHEAP_FORK_MAX=64M", f"NH_TEST_MIB={BIG}"]]),
    ("threads_write_arrays_during_forks", 64, EVERY),
    ("a_writer_holds_the_lock_that_fork_needs", 64, EVERY),
    ("relocation_costs_the_parent_no_huge_page", 64, (AUTO, RELOCATE)),
    ("two_threads_fork_at_once", 64, EVERY),
    ("grandchildren", 64, EVERY),
    ("ranges_kept_back_with_dontfork", 64, (AUTO, RELOCATE, COW, ABOVE)),
    ("untouched_arrays", 64, EVERY),
    ("forks_on_stacks_in_the_heap", 96, EVERY),
    ("child_is_killed_while_the_parent_waits", 96, (AUTO, RELOCATE, SHARED)),
    ("fork_that_fails", 64, EVERY),
    ("the_programs_sigsegv_handler_works_on", 64, (AUTO + RESTORED, RELOCATE + RESTORED, COW, ABOVE, SHARED + RESTORED)),
    ("crashes_stay_crashes", 64, EVERY),
    ("a_system_call_that_stores_gets_efault", 64, (COW, ABOVE)),
]


@contextlib.contextmanager
def hugetlbfs():
    with tempfile.TemporaryDirectory(prefix="nh-hugetlbfs-") as folder:
        mount = subprocess.run(["mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "none", folder], capture_output=True, text=True,
                               check=False)
        if mount.returncode != 0:
            raise machine.Unavailable(f"a hugetlbfs cannot be mounted: {mount.stderr.strip()}")
        try:
            yield folder
        finally:
            subprocess.run(["umount", folder], check=True)


@contextlib.contextmanager
def pool(pages):
    """machine.pool, with patience: any other program of the machine may hold pages for a moment."""
    with contextlib.ExitStack() as stack:
        for attempt in range(10):
            try:
                stack.enter_context(machine.pool(pages))
                break
            except machine.Unavailable:
                if attempt == 9:
                    raise
                time.sleep(0.5)
        yield


def run(bench, case, mode):
    with contextlib.ExitStack() as stack:
        settings = list(mode)
        if "NUMAHEAP_SHARED=1" in mode:
            settings.append(f"NUMAHEAP_HUGETLBFS={stack.enter_context(hugetlbfs())}")
        bench.run_in_two_parts("fork_windows", case, hog_free_pages(), settings)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True)
    parser.add_argument("--programs", required=True)
    parser.add_argument("--only", default="", help="a regular expression for 'case mode'")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    passed, failed, skipped = 0, 0, 0
    with tempfile.TemporaryDirectory(prefix="nh-fork-") as folder:
        bench = Bench(os.path.realpath(arguments.library), arguments.programs, folder)
        for case, pages, modes in CASES:
            for mode in modes:
                name = f"{case} {' '.join(mode) or 'auto'}"
                if not re.search(arguments.only, name):
                    continue
                start = time.monotonic()
                verdict = "ok  "
                try:
                    with machine.exclusive(), pool(pages):
                        run(bench, case, mode)
                    passed += 1
                except Failed as error:
                    failed += 1
                    verdict = f"FAIL {error}\n    "
                except machine.Unavailable as error:
                    skipped += 1
                    verdict = f"skipped: {error}\n    "
                print(f"{verdict} {name} ({time.monotonic() - start:.2f} s)", flush=True)
    if failed:
        sys.exit(f"{failed} failed, {passed} passed, {skipped} skipped")
    if not passed:
        sys.exit(SKIPPED if skipped else "fork_windows.py: no case matches")
    print(f"{passed} passed, {skipped} skipped")


if __name__ == "__main__":
    main()
