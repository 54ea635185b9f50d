#!/usr/bin/env python3
"""Settings that a process cannot have: what it says, what it uses instead, and that NUMAHEAP_STRICT makes it end.

    settings.py --library LIB [--only REGEX]

The program is /bin/true or cat; the answers are the statistics that it leaves and the lines on stderr.
"""

import argparse
import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import cases, machine  # noqa: E402
from harness.cases import case, expect  # noqa: E402
from harness.run_cases import end_of, test_environment  # noqa: E402

REFUSED = 2
NO_RSEQ = "GLIBC_TUNABLES=glibc.pthread.rseq=0"


class Bench:
    def __init__(self, library, folder):
        self.library = library
        self.statistics = os.path.join(folder, "stats.json")

    def run(self, *settings, command=("/bin/true",)):
        """Exit status, lines on stderr, statistics ({} where the process left none), output."""
        if os.path.exists(self.statistics):
            os.unlink(self.statistics)
        env = test_environment(self.library, [f"NUMAHEAP_STATS={self.statistics}", *settings])
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        stats = {}
        if os.path.exists(self.statistics):
            with open(self.statistics, encoding="utf-8") as file:
                stats = json.load(file)
        return done.returncode, done.stderr.splitlines(), stats, done.stdout

    def accepted(self, *settings, lines=0):
        """Runs with the settings, and with NUMAHEAP_STRICT as well: nothing to refuse."""
        for more in ((), ("NUMAHEAP_STRICT=1",)):
            status, said, stats, _ = self.run(*settings, *more)
            expect(status == 0 and len(said) == lines, f"{settings} {more}: {end_of(status)}, {said}")
        return stats

    def not_honoured(self, words, *settings):
        """Said once and otherwise survived; under NUMAHEAP_STRICT said, quiet or not, and the end."""
        status, said, stats, _ = self.run(*settings)
        expect(status == 0 and len(said) == 1 and re.search(words, said[0]), f"{settings}: {end_of(status)}, {said}")
        quiet, nothing, _, _ = self.run(*settings, "NUMAHEAP_QUIET=1")
        expect(quiet == 0 and nothing == [], f"{settings}, quiet: {end_of(quiet)}, {nothing}")
        for more in ((), ("NUMAHEAP_QUIET=1",)):
            status, refusal, none, _ = self.run(*settings, "NUMAHEAP_STRICT=1", *more)
            expect(status == REFUSED and len(refusal) == 1 and re.search(words, refusal[0]) and none == {},
                   f"{settings}, strict {more}: {end_of(status)}, {refusal}")
        return stats


def described(boot_id):
    """Two nodes with a CPU each, as `numaheap run` of a machine with this boot id would pass them on."""
    part = f"/b{boot_id}" if boot_id else ""
    return f"NUMAHEAP_TOPOLOGY=nh1:r{part}/p0-1/n0:16777216:m:0:0:0/n1:16777216:m:0:0:1/d10,20x2,10"


def own_boot_id():
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        return file.read().strip()


@case
def topology_of_this_boot_counts(bench):
    _, _, stats, _ = bench.run(described(own_boot_id()), "NUMAHEAP_QUIET=1")
    expect(stats["topology"] == "inherited" and len(stats["nodes"]) == 5, str(stats))


@case
def topology_without_boot_id_counts(bench):
    _, _, stats, _ = bench.run(described(""), "NUMAHEAP_QUIET=1")
    expect(stats["topology"] == "inherited" and len(stats["nodes"]) == 5, str(stats))


@case
def topology_of_another_machine_is_passed_over(bench):
    """It came with the environment, by srun or mpiexec: no mistake of anybody's, strict or not."""
    stats = bench.accepted(described("00000000-0000-0000-0000-000000000000"))
    expect(stats["topology"] != "inherited", stats["topology"])


@case
def nobody_loads_hwloc_where_the_topology_was_passed_on(bench):
    _, _, _, maps = bench.run(described(own_boot_id()), "NUMAHEAP_QUIET=1", command=("cat", "/proc/self/maps"))
    expect("libnumaheap" in maps and "libhwloc" not in maps, maps)


@case
def a_machine_with_too_many_cpus_is_said_once(bench):
    status, said, stats, _ = bench.run(described("").replace("p0-1", "p0-9999"))
    expect(status == 0 and stats["topology"] == "inherited", f"{end_of(status)}, {stats}")
    expect([line for line in said if "more than 256 nodes or 8192 CPUs" in line] == said[:1], f"{said}")
    _, said, _, _ = bench.run(described("").replace("p0-1", "p0-9999"), "NUMAHEAP_QUIET=1")
    expect(said == [], f"{said}")


@case
def topology_that_is_none(bench):
    bench.not_honoured("NUMAHEAP_TOPOLOGY cannot be used", "NUMAHEAP_TOPOLOGY=nh1:nonsense")
    bench.not_honoured("NUMAHEAP_TOPOLOGY cannot be used", "NUMAHEAP_TOPOLOGY=pack:2 numa:2 pu:2")


@case
def policy_that_names_no_node(bench):
    for policy in ("bind:1000", "preferred:1000", "interleave:0,1000"):
        bench.not_honoured(r"NUMAHEAP_POLICY=" + policy + ".* only; the ", f"NUMAHEAP_POLICY={policy}")
    bench.accepted("NUMAHEAP_POLICY=local")
    bench.accepted("NUMAHEAP_POLICY=interleave:all")


def with_memory(*names_and_figures):
    """A machine with a CPU on node 0 and these memories: "0,100000,100" is a KindReason's number, MB/s and ns."""
    nodes = [f"n{node}:16777216:m:0:{text}:{0 if node == 0 else ''}" for node, text in enumerate(names_and_figures)]
    rows = ",".join("10" if i == j else "20" for i in range(len(nodes)) for j in range(len(nodes)))
    return f"NUMAHEAP_TOPOLOGY=nh1:d/p0/{'/'.join(nodes)}/d{rows}"


ORDINARY, FAST = "0,100000,100", "1,400000,130"


@case
def best_memory_where_all_is_alike(bench):
    for quality in ("bandwidth", "latency", "capacity"):
        bench.not_honoured(f"NUMAHEAP_POLICY={quality}: .* all of one kind .* local", f"NUMAHEAP_POLICY={quality}")
        bench.not_honoured(f"NUMAHEAP_LARGE={quality}:1M-4G: .* all of one kind .* by default",
                           f"NUMAHEAP_LARGE={quality}:1M-4G")
        bench.accepted(with_memory(ORDINARY, FAST), f"NUMAHEAP_POLICY={quality}")
        bench.accepted(with_memory(ORDINARY, FAST), f"NUMAHEAP_LARGE={quality}:1M")
    bench.not_honoured("all of one kind", with_memory(ORDINARY, "4,3000000,700"), "NUMAHEAP_POLICY=bandwidth")


@case
def sizes_and_lists_that_are_none(bench):
    bench.not_honoured(r"NUMAHEAP_LARGE=bandwidth:4G-1M: accepts .*; firsttouch is used instead",
                       "NUMAHEAP_LARGE=bandwidth:4G-1M")
    bench.not_honoured(r"NUMAHEAP_LARGE=firsttouch:1M: accepts ", "NUMAHEAP_LARGE=firsttouch:1M")
    bench.not_honoured(r"NUMAHEAP_POLICY=preferred:all: accepts .*; local is used instead", "NUMAHEAP_POLICY=preferred:all")
    bench.not_honoured(r"NUMAHEAP_POLICY=preferred:0-1: .* only; the others are left out", "NUMAHEAP_POLICY=preferred:0-1")
    bench.accepted("NUMAHEAP_POLICY=preferred:0")


@case
def weights_that_nobody_knows(bench):
    """Where the kernel has none and the machine tells no bandwidths."""
    bench.accepted("NUMAHEAP_POLICY=weighted")
    bench.accepted(with_memory(ORDINARY, FAST), "NUMAHEAP_POLICY=weighted")
    kernel = tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2])
    for name in ("POLICY", "LARGE"):
        if kernel >= (6, 9):
            bench.accepted(with_memory("0", "1"), f"NUMAHEAP_{name}=weighted")
        else:
            bench.not_honoured(f"NUMAHEAP_{name}=weighted: .* spread evenly", with_memory("0", "1"), f"NUMAHEAP_{name}=weighted")


@case
def nodes_that_may_be_used(bench):
    bench.accepted("NUMAHEAP_NODES=0")
    bench.accepted("NUMAHEAP_NODES=all")
    for nodes in ("!0", "7", "!0-1023"):
        bench.not_honoured(f"NUMAHEAP_NODES={nodes}: no node with memory is left; it is ignored", f"NUMAHEAP_NODES={nodes}")
    bench.not_honoured("NUMAHEAP_NODES=0,1000: the machine has no node 1000", "NUMAHEAP_NODES=0,1000")
    for nodes in ("!", "!all", "0-", "-1", "1024"):
        bench.not_honoured(f"NUMAHEAP_NODES={nodes}: accepts NODES", f"NUMAHEAP_NODES={nodes}")
    # A node, and the heaps for first touch and interleaving.
    for nodes, node in (("!1", 0), ("1", 1)):
        _, _, stats, _ = bench.run(described(""), f"NUMAHEAP_NODES={nodes}", "NUMAHEAP_QUIET=1")
        expect([heap["id"] for heap in stats["nodes"]] == [node, -1, -1], str(stats["nodes"]))


@case
def pages_that_the_machine_does_not_have(bench):
    """Without NUMAHEAP_STRICT that is said when they are needed, which /bin/true does not come to."""
    def refused(words, setting):
        status, said, _, _ = bench.run(setting)
        expect(status == 0 and said == [], f"{setting}: {end_of(status)}, {said}")
        status, said, stats, _ = bench.run(setting, "NUMAHEAP_STRICT=1")
        expect(status == REFUSED and len(said) == 1 and words in said[0] and stats == {},
               f"{setting}, strict: {end_of(status)}, {said}")

    refused("NUMAHEAP_HUGETLBFS: no hugetlbfs", "NUMAHEAP_HUGETLBFS=/proc")
    refused("NUMAHEAP_HUGETLBFS: no hugetlbfs", "NUMAHEAP_HUGETLBFS=/no/such/folder")
    with machine.exclusive():
        with machine.pool(0):
            if machine.pool_counters()["nr"] == 0:  # others may hold some
                refused("no huge pages of 2 MiB", "NUMAHEAP_HUGEPAGES=2m")
        with machine.pool(8):
            bench.accepted("NUMAHEAP_HUGEPAGES=2m")
        with machine.thp("never"):
            refused("transparent huge pages are off", "NUMAHEAP_HUGEPAGES=thp")
        with machine.thp("madvise"):
            bench.accepted("NUMAHEAP_HUGEPAGES=thp")


@case
def rseq_of_our_own(bench):
    stats = bench.accepted("NUMAHEAP_RSEQ=own", NO_RSEQ)
    expect(stats["cache_mode"] == "own-rseq", stats["cache_mode"])


@case
def rseq_of_our_own_where_libc_was_first(bench):
    _, _, stats, _ = bench.run("NUMAHEAP_RSEQ=auto")
    if stats["cache_mode"] != "rseq":
        return "libc registers no restartable sequences here"
    stats = bench.not_honoured("NUMAHEAP_RSEQ=own: .*glibc.pthread.rseq=0", "NUMAHEAP_RSEQ=own")
    expect(stats["cache_mode"] == "fallback", stats["cache_mode"])
    # Nothing is asked of the kernel where there are no caches.
    bench.accepted("NUMAHEAP_RSEQ=own", "NUMAHEAP_CPU_CACHE=0")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    library = os.path.realpath(arguments.library)
    cases.run(arguments.only, lambda folder: Bench(library, folder))


if __name__ == "__main__":
    main()
