#!/usr/bin/env python3
"""Everything that one boot of the four-node machine checks. Runs inside it: numa_vm_test starts the machine.

    in_guest.py --library libnumaheap.so --tool numaheap --program numa_vm_placement [--runs REGEX] [--only REGEX]

Exit status 0 where all is well; otherwise what failed is on stdout, and the last line counts it.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

PROCESS_HARNESS = Path(__file__).resolve().parent.parent / "process" / "harness"
CASE_TIMEOUT = 120  # seconds; an emulated CPU is slow, and eight of them share the host's

# What is run: a name, settings for the library, a command in front, and which cases. The cases named with_ need a policy;
# those that know which pools the machine has run without one, and placement as such on every kind of page.
PLACEMENT = "^(objects_|an_array|a_full_node)"
RUNS = [
    ("without a policy", [], [], "^(?!with_)"),
    ("on transparent huge pages", ["NUMAHEAP_HUGEPAGES=thp"], [], PLACEMENT),
    ("on base pages", ["NUMAHEAP_HUGEPAGES=off"], [], PLACEMENT),
    ("NUMAHEAP_POLICY=bind:1", ["NUMAHEAP_POLICY=bind:1"], [], "^with_node_1_"),
    ("NUMAHEAP_POLICY=preferred:1", ["NUMAHEAP_POLICY=preferred:1"], [], "^with_node_1_"),
    ("numactl --membind", [], ["numactl", "--cpunodebind=3", "--membind=3"], "^with_a_binding_"),
    ("numactl --interleave", [], ["numactl", "--interleave=all"], "^with_interleaving_"),
    ("NUMAHEAP_LARGE=interleave", ["NUMAHEAP_LARGE=interleave"], [], "^with_interleaving_"),
]


def run_cases(arguments):
    failed = 0
    for name, settings, front, cases in RUNS:
        if not re.search(arguments.runs, name):
            continue
        print(f"---- {name}", flush=True)
        command = [*front, sys.executable, PROCESS_HARNESS / "run_cases.py", "--library", arguments.library,
                   "--timeout", str(CASE_TIMEOUT), *[word for s in settings for word in ("--env", s)],
                   "--only", arguments.only or cases, arguments.program]
        failed += subprocess.run(command, check=False, stderr=subprocess.STDOUT).returncode != 0
    return failed


def statistics_name_all_nodes(arguments):
    path = Path("/tmp/numa-vm-statistics.json")
    env = dict(os.environ, LD_PRELOAD=arguments.library, NUMAHEAP_STATS=str(path))
    subprocess.run(["/bin/ls", "/"], env=env, check=True, stdout=subprocess.DEVNULL)
    stats = json.loads(path.read_text(encoding="utf-8"))
    assert stats["topology"] == "hwloc", stats["topology"]
    assert stats["cache_mode"] in ("rseq", "own-rseq"), stats["cache_mode"]
    heaps = [(heap["kind"], heap["id"]) for heap in stats["nodes"]]
    wanted = [("node", 0), ("node", 1), ("node", 2), ("node", 3), ("first_touch", -1), ("interleaved", -1)]
    assert heaps == wanted, heaps
    for heap in stats["nodes"]:
        assert heap["committed_bytes"] == heap["hugetlb_bytes"] + heap["thp_bytes"] + heap["base_bytes"], heap
    # ls runs on one CPU at a time: its memory is on a node or two, not on all.
    assert 1 <= sum(heap["live_bytes"] > 0 for heap in stats["nodes"][:4]) <= 3, stats["nodes"]


def topo_prints_the_machine(arguments):
    text = subprocess.run([arguments.tool, "topo"], check=True, capture_output=True, text=True).stdout
    print("\n".join("     | " + line for line in text.splitlines()))
    assert re.match(r"4 nodes, 8 CPUs \(8 possible\), from hwloc\n", text), "the first line"
    rows = re.findall(r"^ +([0-3])  ordinary .* (\d+)/(\d+) +0/0  ([0-9-]+)$", text, re.MULTILINE)
    assert [row[0] for row in rows] == list("0123"), "a row per node"
    assert [row[2] for row in rows] == ["128", "0", "64", "4"], "the pools"
    assert [row[3] for row in rows] == ["0-1", "2-3", "4-5", "6-7"], "the CPUs"
    for row in ("0   10   20   30   40", "1   20   10   25   35", "2   30   25   10   15", "3   40   35   15   10"):
        assert f"   {row}\n" in text, "the distances"
    for order in ("0: 0 1 2 3", "1: 1 0 2 3", "2: 2 3 1 0", "3: 3 2 1 0"):
        assert f"   {order}\n" in text, "the fallback order"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True)
    parser.add_argument("--tool", required=True)
    parser.add_argument("--program", required=True)
    parser.add_argument("--runs", default="", help="a regular expression: which of RUNS")
    parser.add_argument("--only", help="a regular expression: cases to run in each of them")
    arguments = parser.parse_args()

    failed = 0
    for check in (topo_prints_the_machine, statistics_name_all_nodes):
        try:
            check(arguments)
            print(f"ok   {check.__name__}", flush=True)
        except (AssertionError, subprocess.CalledProcessError, ValueError, KeyError) as error:
            failed += 1
            print(f"FAIL {check.__name__}: {error}", flush=True)
    failed += run_cases(arguments)
    if failed:
        sys.exit(f"{failed} parts of the suite failed")


if __name__ == "__main__":
    main()
