#!/usr/bin/env python3
"""Static data, code and stacks on huge pages: programs of C, C++ and Fortran, preloaded and linked statically, in all modes
of transparent huge pages, near limits, with threads, with forks.

    program_memory.py --library LIB --programs DIR [--only REGEX]

The programs show where their own memory is (program_memory.h); what is expected of it is said here.
"""

import argparse
import contextlib
import json
import mmap
import os
import resource
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import cases, cgroup, machine  # noqa: E402
from harness.cases import case, expect  # noqa: E402
from harness.run_cases import end_of, test_environment  # noqa: E402

MIB_KIB = 1024
MIB = 1 << 20


class Bench:
    def __init__(self, library, programs, folder):
        self.library = library
        self.programs = programs
        self.statistics = os.path.join(folder, "stats.json")

    def run(self, program, what="", *settings, static=False, before_exec=None, status=0, preload=()):
        """What the program prints: name -> numbers; and as "memory" what its statistics say is in RAM, by part."""
        if os.path.exists(self.statistics):
            os.unlink(self.statistics)
        path = os.path.join(self.programs, "program_memory_" + program + ("_static" if static else ""))
        env = test_environment(None if static else self.library, [f"NUMAHEAP_STATS={self.statistics}", *settings])
        if preload:
            env["LD_PRELOAD"] = " ".join([env["LD_PRELOAD"], *preload])
        done = subprocess.run([path, what], env=env, capture_output=True, text=True, timeout=300, preexec_fn=before_exec)
        expect(done.returncode == status, f"{program} {what} {settings}: {end_of(done.returncode)}\n{done.stderr}")
        shown = {words[0]: [int(n) for n in words[1:]] for words in map(str.split, done.stdout.splitlines())}
        shown["said"] = done.stderr.splitlines()
        if os.path.exists(self.statistics):
            with open(self.statistics, encoding="utf-8") as file:
                shown["memory"] = {part.pop("part"): part for part in json.load(file)["memory"]}
        return shown


def on_thp(shown, name, mib):
    """All but the ends of an array of so many MiB."""
    expect(shown[name][0] >= (mib - 4) * MIB_KIB, f"{name}: {shown}")


def on_base(shown, name):
    expect(shown[name][0] == 0, f"{name}: {shown}")


# program, what it is told, and its arrays: name -> MiB
FILLED = [("zeroes", "fill", {"zeroes": 64}), ("data", "fill", {"zeroes": 64, "data": 36}),
          ("cxx", "", {"zeroes": 32, "early": 48}), ("common", "", {"zeroes": 32})]


def each_filled(bench):
    for program, what, arrays in FILLED:
        if os.path.exists(os.path.join(bench.programs, "program_memory_" + program)):
            for static in (False, True):
                yield program, what, arrays, static


@case
def arrays_lie_on_huge_pages(bench):
    for mode in ("madvise", "always"):
        with machine.thp(mode):
            for program, what, arrays, static in each_filled(bench):
                shown = bench.run(program, what, static=static)
                for name, mib in arrays.items():
                    on_thp(shown, name, mib if name == "data" else 16)
                data = shown["memory"]["static"]
                expect(data["thp_bytes"] > 0.8 * data["ram_bytes"] and shown["said"] == [], f"{program}: {shown}")


@case
def base_pages_where_they_were_asked_for_or_thp_is_off(bench):
    for mode, setting in (("madvise", "NUMAHEAP_STATIC=off"), ("never", "NUMAHEAP_QUIET=0")):
        with machine.thp(mode):
            for program, what, arrays, static in each_filled(bench):
                shown = bench.run(program, what, setting, static=static)
                for name in arrays:
                    on_base(shown, name)
                expect(shown["said"] == [], f"{program}: {shown}")


@case
def what_was_asked_for_by_name_and_cannot_be_had_is_said(bench):
    with machine.thp("never"):
        for setting in ("NUMAHEAP_STATIC=thp", "NUMAHEAP_TEXT=thp", "NUMAHEAP_STACKS=thp"):
            said = bench.run("zeroes", "", setting)["said"]
            expect(len(said) == 1 and "transparent huge pages are off" in said[0], f"{setting}: {said}")
            said = bench.run("zeroes", "", setting, "NUMAHEAP_STRICT=1", status=2)["said"]
            expect(len(said) == 1, f"{setting}, strict: {said}")


@case
def small_processes_stay_small(bench):
    """Below the threshold a page costs a page. Above it a page costs a huge page, and not more of them than are touched."""
    with machine.thp("madvise"):
        for static in (False, True):
            for program, what, most in (("small", "one-page", 256), ("small", "every-huge-page", 256),
                                        ("medium", "every-huge-page", 256), ("zeroes", "one-page", 2 * MIB_KIB + 256)):
                plain = bench.run(program, what, "NUMAHEAP_STATIC=off", static=static)["rss"][0]
                rss = bench.run(program, what, static=static)["rss"][0]
                expect(rss <= plain + most, f"{program} {what}: {rss} KiB, without huge pages {plain}")
            advised = bench.run("zeroes", "every-huge-page", static=static)["rss"][0]
            expect(advised > 58 * MIB_KIB, f"what is shown is not resident memory: {advised}")


@case
def sparse_use_near_a_limit_ends_no_process(bench):
    """512 MiB of zeroes of which 1 MiB is touched, in a group of 200 MiB."""
    with machine.thp("madvise"), cgroup.memory_group(200 * MIB) as group:
        for static in (False, True):
            shown = bench.run("large", "every-huge-page", static=static, before_exec=group.join)
            expect(shown["rss"][0] < 20 * MIB_KIB, f"{shown}")
    with machine.thp("madvise"), cgroup.memory_group(1200 * MIB) as group:
        on_thp(bench.run("large", "fill", before_exec=group.join), "zeroes", 512)


def limit(kind, size):
    return lambda: resource.setrlimit(kind, (size, size))


@case
def without_room_for_a_copy_data_stays(bench):
    """Of the address space, and of memory of its own. The advice takes neither."""
    with machine.thp("madvise"):
        for kind, size in ((resource.RLIMIT_AS, 136 * MIB), (resource.RLIMIT_DATA, 130 * MIB)):
            shown = bench.run("data", "fill", static=True, before_exec=limit(kind, size))
            on_thp(shown, "zeroes", 64)
            on_base(shown, "data")
        with machine.overcommit(2):
            bench.run("data", "fill", static=True)


@case
def data_stays_where_there_are_threads_already(bench):
    thread = os.path.join(bench.programs, "libprogram_memory_thread.so")
    with machine.thp("madvise"):
        shown = bench.run("data", "fill", preload=[thread])
        on_thp(shown, "zeroes", 64)
        on_base(shown, "data")
        said = bench.run("code", "code", "NUMAHEAP_TEXT=thp", preload=[thread])["said"]
        expect(len(said) == 1 and "NUMAHEAP_TEXT=thp: " in said[0], str(said))


@case
def nobody_stores_into_what_is_being_copied(bench):
    """Not even a library's function in place of mremap."""
    with machine.thp("madvise"):
        on_thp(bench.run("hook", "fill"), "data", 36)


@case
def children_have_what_their_parent_had(bench):
    with machine.thp("madvise"):
        for program in ("zeroes", "data"):
            for static in (False, True):
                bench.run(program, "fork", static=static)


@case
def on_several_nodes_only_what_is_large_enough_for_each(bench):
    topology = "NUMAHEAP_TOPOLOGY=nh1:r/p0-1/n2:16777216:m:0:0:0/n5:16777216:m:0:0:1/d10,20x2,10"
    with machine.thp("madvise"):
        shown = bench.run("data", "fill", topology, "NUMAHEAP_QUIET=1")
        on_base(shown, "zeroes")
        on_base(shown, "data")
        on_thp(bench.run("large", "fill", topology, "NUMAHEAP_QUIET=1"), "zeroes", 512)


ON_POOL = "NUMAHEAP_STATIC=2m"


def on_pool(shown, mib):
    """The heap is kept off the pool, so that what is taken of it is static data."""
    expect(shown["memory"]["static"]["hugetlb_bytes"] >= mib * MIB and shown["memory"]["heap"]["hugetlb_bytes"] == 0 and
           shown["said"] == [], str(shown))


def pool_is_whole(pages):
    for _ in range(50):  # what has just ended may still be giving its pages back
        counters = machine.pool_counters()
        if counters["free"] == pages:
            break
        time.sleep(0.1)
    expect(counters["free"] == pages and counters["resv"] == 0, f"the pool of {pages} pages: {counters}")


@case
def arrays_lie_on_a_pool(bench):
    with machine.thp("madvise"):
        with machine.pool(80):
            for program, what, mib in (("zeroes", "fill", 60), ("data", "fill", 94), ("cxx", "", 44), ("common", "", 92)):
                if os.path.exists(os.path.join(bench.programs, "program_memory_" + program)):
                    on_pool(bench.run(program, what, ON_POOL, "NUMAHEAP_HUGEPAGES=thp"), mib)
            # Pages that nobody touches stay in the pool, although they are promised.
            shown = bench.run("zeroes", "one-page", ON_POOL)
            expect(shown["memory"]["static"]["hugetlb_bytes"] <= 2 * MIB, str(shown))
        with machine.pool(80), machine.thp("never"):
            on_pool(bench.run("zeroes", "fill", ON_POOL, "NUMAHEAP_HUGEPAGES=off"), 60)
            pool_is_whole(80)


@case
def without_enough_of_a_pool_arrays_lie_on_transparent_huge_pages(bench):
    """No pool, too small a one, one that a control group limits; and where nothing can be taken off it again."""
    def stays(words, program="zeroes", **how):
        shown = bench.run(program, "fill", ON_POOL, **how)
        on_thp(shown, "zeroes", 64)
        expect(shown["memory"]["static"]["hugetlb_bytes"] == 0, str(shown))
        expect(len(shown["said"]) == 1 and words in shown["said"][0], str(shown["said"]))

    with machine.thp("madvise"):
        for pages in (0, 20):
            with machine.pool(pages):
                stays("huge-page pool")
                pool_is_whole(pages)
        with machine.pool(80):
            stays("has threads already", preload=[os.path.join(bench.programs, "libprogram_memory_thread.so")])
            stays("libnumaheap.a", static=True)
            with cgroup.hugetlb_group("usage", 8 * MIB) as group:
                stays("a control group limits huge pages", before_exec=group.join)
            pool_is_whole(80)


@case
def what_is_promised_is_there_when_others_have_the_rest(bench):
    with machine.thp("madvise"), machine.pool(60):
        env = test_environment(bench.library, [ON_POOL])
        process = subprocess.Popen([os.path.join(bench.programs, "program_memory_zeroes"), "fill-when-told"], env=env,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            expect(process.stdout.readline() == "ready\n", "the program is not ready")
            counters = machine.pool_counters()
            left = counters["free"] - counters["resv"]
            expect(20 < left < 32, f"the arrays are not promised: {counters}")
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000 | 0x8000  # MAP_HUGETLB | MAP_POPULATE
            with contextlib.closing(mmap.mmap(-1, left * machine.HUGE, flags=flags)):
                process.communicate("go", timeout=60)
            expect(process.returncode == 0, end_of(process.returncode))
        finally:
            process.kill()
            process.wait()
        pool_is_whole(60)


@case
def a_process_that_forks_takes_its_arrays_off_the_pool(bench):
    with machine.thp("madvise"), machine.pool(80):
        for program in ("zeroes", "data"):
            for what in ("fork", "fork-writers"):
                shown = bench.run(program, what, ON_POOL, "NUMAHEAP_HUGEPAGES=thp")
                expect(shown["memory"]["static"]["hugetlb_bytes"] == 0 and shown["said"] == [], str(shown))
                expect(shown["memory"]["static"]["thp_bytes"] >= 50 * MIB, str(shown))
                pool_is_whole(80)


@case
def what_a_fork_may_not_move_stays_with_the_parent(bench):
    with machine.thp("madvise"), machine.pool(80):
        shown = bench.run("zeroes", "fork-idle", ON_POOL, "NUMAHEAP_FORK_MAX=8M", "NUMAHEAP_HUGEPAGES=thp")
        expect(50 * MIB < shown["memory"]["static"]["hugetlb_bytes"] < 60 * MIB, str(shown))
        expect(len(shown["said"]) == 1 and "more than NUMAHEAP_FORK_MAX" in shown["said"][0], str(shown["said"]))
        said = bench.run("zeroes", "fork", ON_POOL, "NUMAHEAP_FORK_MAX=8M", status=1)["said"]
        expect(said[-1] == "a child ended badly", str(said))
        pool_is_whole(80)


@case
def code_on_huge_pages(bench):
    with machine.thp("madvise"):
        for program, static in (("code", False), ("code", True), ("aligned", False)):
            # Some filesystems read and write in huge pages by themselves; those are not anonymous.
            on_base(bench.run(program, "code", static=static), "code")
            shown = bench.run(program, "code", "NUMAHEAP_TEXT=thp", static=static)
            expect(shown["code"][0] >= 2 * MIB_KIB and shown["said"] == [], f"{program}: {shown}")
            expect(shown["memory"]["code"]["thp_bytes"] >= 2 * MIB, f"{program}: {shown}")


@case
def code_of_a_file_that_can_be_mapped_huge_stays_shared(bench):
    """In tmpfs the kernel makes huge pages of the file itself: nothing is copied."""
    if os.uname().release.split(".")[:2] < ["6", "1"] or not os.path.isdir("/dev/shm"):
        return "no kernel or filesystem for it"
    with tempfile.TemporaryDirectory(prefix="nh-", dir="/dev/shm") as folder, machine.thp("madvise"):
        subprocess.run(["cp", os.path.join(bench.programs, "program_memory_aligned"), folder], check=True)
        shown = Bench(bench.library, folder, folder).run("aligned", "code", "NUMAHEAP_TEXT=thp")
        on_base(shown, "code")  # anonymous ones
        expect(shown["memory"]["code"]["thp_bytes"] >= 4 * MIB, str(shown))
    return None


@case
def stacks_on_huge_pages(bench):
    large_stack = limit(resource.RLIMIT_STACK, 64 * MIB)
    with machine.thp("madvise"):
        on_base(bench.run("zeroes", "thread"), "stack")
        on_base(bench.run("zeroes", "main-stack", before_exec=large_stack), "stack")
        shown = bench.run("zeroes", "thread", "NUMAHEAP_STACKS=thp", before_exec=large_stack)
        expect(shown["stack"][0] >= 2 * MIB_KIB, str(shown))
        for static in (False, True):
            shown = bench.run("zeroes", "main-stack", "NUMAHEAP_STACKS=thp", static=static, before_exec=large_stack)
            expect(shown["stack"][0] >= 2 * MIB_KIB, str(shown))
            expect(shown["memory"]["stacks"]["thp_bytes"] >= 2 * MIB, str(shown))
        # A thread that needs little stack takes as little as ever.
        plain = bench.run("zeroes", "many-threads")["rss"][0]
        rss = bench.run("zeroes", "many-threads", "NUMAHEAP_STACKS=thp")["rss"][0]
        expect(rss < plain + 1024, f"{rss} KiB with 50 threads, without huge pages {plain}")


@case
def reports_say_where_all_memory_is(bench):
    with machine.thp("madvise"):
        shown = bench.run("zeroes", "every-huge-page")
        memory = shown["memory"]
        expect(list(memory) == ["heap", "static", "code", "stacks", "other"], str(memory))
        for part in memory.values():
            expect(part["ram_bytes"] == part["hugetlb_bytes"] + part["thp_bytes"] + part["base_bytes"], str(part))
        total = sum(part["ram_bytes"] for part in memory.values())
        expect(abs(total - shown["rss"][0] * 1024) < MIB, f"{total} bytes in all, {shown['rss']} KiB resident")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True)
    parser.add_argument("--programs", required=True)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    library = os.path.realpath(arguments.library)
    with machine.exclusive():
        cases.run(arguments.only, lambda folder: Bench(library, arguments.programs, folder))


if __name__ == "__main__":
    main()
