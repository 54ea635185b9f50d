#!/usr/bin/env python3
"""Runs fork_pool with a pool of huge pages that is mostly dry at the moment of the fork.

    fork_pool.py --library LIB --programs DIR [--only REGEX]
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
from environment import SKIPPED, Bench, Failed, expect, hog_free_pages  # noqa: E402
from harness import cgroup, machine  # noqa: E402

AUTO = []
COW = ["NUMAHEAP_FORK=cow"]
SHARED = ["NUMAHEAP_SHARED=1"]

QUICK = os.environ.get("NH_TEST_QUICK") == "1"
BIG = 256 if QUICK else 1536

# (case, pages of the pool, modes).
CASES = [
    ("everything_is_written_on_both_sides", 64, [AUTO]),
    ("everything_is_written_on_both_sides", BIG // 2 + 64, [["NUMAHEAP_FORK_MAX=4G", f"NH_TEST_MIB={BIG}"]]),
    ("threads_write_arrays_during_forks", 64, [AUTO]),
    ("a_writer_holds_the_lock_that_fork_needs", 64, [AUTO]),
    ("two_threads_fork_at_once", 64, [AUTO]),
    ("grandchildren", 64, [AUTO]),
    ("ranges_kept_back_with_dontfork", 64, [AUTO]),
    ("untouched_arrays", 64, [AUTO]),
    ("forks_on_stacks_in_the_heap", 96, [AUTO]),
    ("pool_is_used_up_later", 64, [AUTO, ["NH_TEST_SHRINK=1"]]),
    ("nothing_of_the_pool_is_taken_any_more", 64, [AUTO]),
    ("mappings_stay_few", 128, [AUTO]),
    ("protection_is_kept", 64, [AUTO]),
    ("two_writers", 64, [AUTO]),
    ("eight_writers", 64, [AUTO]),
    ("eight_writers_without_privilege", 64, [AUTO]),
    ("thread_record_in_the_heap_without_privilege", 64, [AUTO]),
    ("registered_buffers_keep_their_pages", 64, [AUTO]),
    ("more_than_fork_max", 64, [["NUMAHEAP_FORK_MAX=12M"]]),
    ("children_without_the_small_objects", 64, [["NUMAHEAP_FORK_MAX=0"]]),
    ("children_without_freed_arrays", 64, [["NUMAHEAP_FORK_MAX=12M"]]),
    ("no_address_space_is_left", 64, [AUTO]),
    ("memory_group_is_nearly_full", 96, [AUTO]),
    ("other_threads_cannot_be_stopped", 64, [AUTO]),
    ("threads_from_the_start_cannot_be_stopped", 64, [AUTO]),
    ("fork_that_fails", 64, [AUTO]),
    ("nothing_of_a_shared_file_is_shared", 64, [SHARED]),
    ("children_read_shared_arrays", 64, [COW]),
    ("forks_in_a_signal_handler", 64, [AUTO]),
    ("forks_while_hooks_allocate", 128, [AUTO]),
    ("children_without_handlers_use_the_heap", 0, [["NUMAHEAP_SCAVENGE_DELAY=1ms"]]),
    ("handlers_of_the_program_use_the_heap_first", 0, [["NH_TEST_EARLY=1", "NUMAHEAP_SCAVENGE_DELAY=1ms"]]),
]

# Those that set the pool themselves or need what is free of it go through in one piece.
IN_ONE_PIECE = ("pool_is_used_up_later", "nothing_of_the_pool_is_taken_any_more", "mappings_stay_few", "protection_is_kept",
                "registered_buffers_keep_their_pages")
# Above what the process has when it is ready.
ROOM_IN_GROUP = 24 << 20


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


def expect_whole_pool(pages):
    """Nobody is left: all pages are free and none is promised. A killed process gives its pages back a moment later."""
    for _ in range(50):
        counters = machine.pool_counters()
        if counters["resv"] == 0 and (counters["free"] == pages or counters["nr"] == counters["surplus"]):
            break
        time.sleep(0.1)
    expect(counters["resv"] == 0, f"the count of promised pages is wrong: {counters}")
    expect(counters["free"] == pages or counters["nr"] == counters["surplus"], f"pages were left behind: {counters}")


def run(bench, case, mode):
    with contextlib.ExitStack() as stack:
        settings = list(mode)
        if "NUMAHEAP_SHARED=1" in mode:
            settings.append(f"NUMAHEAP_HUGETLBFS={stack.enter_context(hugetlbfs())}")
        if case == "forks_while_hooks_allocate":
            bench.run("process_hooks", case, settings)
        elif case in IN_ONE_PIECE:
            bench.run("fork_pool", case, settings)
        elif case == "memory_group_is_nearly_full":
            group = stack.enter_context(cgroup.memory_group())
            bench.run_in_two_parts("fork_pool", case, group.room(ROOM_IN_GROUP), settings, group.join)
        else:
            bench.run_in_two_parts("fork_pool", case, hog_free_pages(), settings)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True)
    parser.add_argument("--programs", required=True)
    parser.add_argument("--only", default="", help="a regular expression for 'case mode'")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    passed, failed, skipped = 0, 0, 0
    with tempfile.TemporaryDirectory(prefix="nh-fork-") as folder:
        os.chmod(folder, 0o777)  # some cases change their user
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
                        expect_whole_pool(pages)
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
        sys.exit(SKIPPED if skipped else "fork_pool.py: no case matches")
    print(f"{passed} passed, {skipped} skipped")


if __name__ == "__main__":
    main()
