"""The checks of in_guest.py that are no cases of a program: what the tool prints, what other programs do on the library.
Each takes the arguments of in_guest.py and raises AssertionError."""

import json
import os
import re
import subprocess
from pathlib import Path

REPORT = ["heap", "allocated", "committed", "hugetlb", "THP", "base pages", "huge %", "local %", "remote frees"]
WARNING = "numaheap: mbind is not allowed here; memory is placed by first touch"

# The first line, the fallback orders and the rows of nodes: kind, pool, CPUs.
TOPO = {
    "four_nodes": ("4 nodes, 8 CPUs (8 possible)", ["0: 0 1 2 3", "1: 1 0 2 3", "2: 2 3 1 0", "3: 3 2 1 0"],
                   ["ordinary 128 0-1", "ordinary 0 2-3", "ordinary 64 4-5", "ordinary 4 6-7"]),
    "two_nodes": ("2 nodes, 8 CPUs (8 possible)", ["0: 0 1", "1: 1 0"], ["ordinary 96 0-3", "ordinary 0 4-7"]),
    "eight_nodes": ("8 nodes, 8 CPUs (8 possible)",
                    ["0: 0 1 2 3 4 5 6 7", "1: 1 0 2 3 4 5 6 7", "2: 2 3 0 1 4 5 6 7", "3: 3 2 0 1 4 5 6 7",
                     "4: 4 5 6 7 0 1 2 3", "5: 5 4 6 7 0 1 2 3", "6: 6 7 4 5 0 1 2 3", "7: 7 6 4 5 0 1 2 3"],
                    [f"ordinary {pages} {node}" for node, pages in enumerate((32, 0, 32, 32, 0, 32, 0, 32))]),
    "odd_nodes": ("4 nodes, 6 CPUs (6 possible)", ["0: 0 1 3", "1: 1 0 3", "2: 1 0 3", "3: 3 0 1"],
                  ["ordinary 64 0-1", "ordinary 0 2-3", "no memory 0 4-5", "slow 0 -"]),
    "kinds_of_memory": ("5 nodes, 4 CPUs (4 possible)",
                        ["0: 0 1 4 3", "1: 1 0 4 3", "2: 2 0 1 4 3", "3: 3 0 1 4", "4: 4 0 1 3"],
                        ["ordinary 0 0-1", "ordinary 0 2-3", "fast 0 -", "slow 0 -", "ordinary 0 -"]),
}


def topo(arguments):
    text = subprocess.run([arguments.tool, "topo"], check=True, capture_output=True, text=True).stdout
    print("\n".join("     | " + line for line in text.splitlines()))
    return text


def topo_prints_the_machine(arguments):
    text = topo(arguments)
    first, orders, nodes = TOPO[arguments.machine]
    assert text.startswith(f"{first}, from hwloc\n"), "the first line"
    rows = re.findall(r"^ +(\d+)  (ordinary|fast|slow|no memory) .* (\d+)/(\d+) +0/0  ([0-9-]+)$", text, re.MULTILINE)
    found = {int(node): f"{kind} {pool} {cpus}" for node, kind, _, pool, cpus in rows}
    assert found == dict(enumerate(nodes)), f"the nodes: {found}"
    table = text.split("\nfallback order\n")[1]
    for order in orders:
        assert f"   {order}\n" in table, f"the fallback order {order}"
    for node in found:  # in the tool's order
        distances = Path(f"/sys/devices/system/node/node{node}/distance").read_text(encoding="ascii").split()
        row = "".join(f"{int(distances[other]):5}" for other in found)
        assert f"\n{node:4}{row}\n" in text, f"the distances of node {node}"


def topo_tells_what_the_firmware_says(arguments):
    text = topo(arguments)
    for node, kind, bandwidth, latency in ((0, "ordinary", 65536, 100), (2, "fast", 262144, 120), (3, "slow", 16384, 250)):
        assert re.search(f"^   {node}  {kind} .* {bandwidth} +{latency}  ", text, re.MULTILINE), f"node {node}"
    assert "\nbest for bandwidth\n   0: 2 0 1 4 3\n" in text, "the best for bandwidth"
    # And so does /sys without hwloc, of which no process of a job hears where a topology was passed on.
    found = subprocess.run([arguments.tool, "topo", "--export"], check=True, capture_output=True, text=True).stdout.strip()
    again = subprocess.run([arguments.tool, "topo", "--json"], check=True, capture_output=True, text=True,
                           env=dict(os.environ, NUMAHEAP_TOPOLOGY=found)).stdout
    kinds = [node["kind"] for node in json.loads(again)["nodes"]]
    assert kinds == ["ordinary", "ordinary", "fast", "slow", "ordinary"], kinds


def topo_tells_about_numa_balancing(arguments):
    switch = Path("/proc/sys/kernel/numa_balancing")
    before = switch.read_text(encoding="ascii")
    try:
        for value, word in (("1", "on"), ("0", "off")):
            switch.write_text(value, encoding="ascii")
            text = subprocess.run([arguments.tool, "topo"], check=True, capture_output=True, text=True).stdout
            assert f"\nautomatic NUMA balancing: {word}" in text, f"balancing is {word}"
    finally:
        switch.write_text(before, encoding="ascii")


def doctor(arguments, front=(), **variables):
    """The findings by id, and all of the JSON."""
    result = subprocess.run([*front, arguments.tool, "doctor", "--json"], capture_output=True, text=True, check=False,
                            env=dict(os.environ, **variables))
    found = json.loads(result.stdout)
    assert result.returncode == found["status"] and result.stderr == "", result
    return {finding["id"]: finding for finding in found["findings"]}, found


def doctor_tells_what_each_node_lacks(arguments):
    pages = [total for total, _ in pools()]
    findings, found = doctor(arguments)
    assert [node["id"] for node in found["nodes"]] == [0, 1, 2, 3], found["nodes"]
    assert [node["pools"][0]["pages"] for node in found["nodes"]] == pages, found["nodes"]
    assert findings["pool-uneven"]["title"].endswith("none on node 1"), findings
    assert re.search(r" reserve --node 1=\w+$", findings["pool-uneven"]["mend"][0]["command"]), findings["pool-uneven"]
    # A huge page was asked for on each node, and looked for there.
    assert any("came on nodes 0-3" in text for text in found["fine"]), found["fine"]
    assert found["tried"]["pool_page"] == found["tried"]["mbind"] == "works", found["tried"]
    findings, _ = doctor(arguments, ["numactl", "--membind=1"])
    assert findings["policy"]["here"].startswith("bind node 1 "), findings
    assert findings["pool-empty"]["here"] == "0 pages on node 1" and "pool-uneven" not in findings, findings
    findings, found = doctor(arguments, [arguments.programs / "numa_vm_refuse_mbind"])
    assert "mbind: Operation not permitted" in findings["bind-refused"]["here"], findings
    assert found["seccomp"] and findings["no-leaving"], findings


def memory_of(node):
    text = Path(f"/sys/devices/system/node/node{node}/meminfo").read_text(encoding="ascii")
    return int(re.search(r"MemTotal: +(\d+) kB", text).group(1)) << 10


def reserve_sets_each_nodes_pool_and_undoes_it(arguments):
    before = pools()
    result = subprocess.run([arguments.tool, "reserve", "--node", "1=8M", "--node", "2-3=5", "--compact"], check=True,
                            capture_output=True, text=True)
    try:
        assert [total for total, _ in pools()] == [before[0][0], 4, 5, 5], (pools(), result.stdout)
        undo = result.stdout.splitlines()[-1]
        subprocess.run(undo, shell=True, check=True, capture_output=True)
        assert pools() == before, (pools(), undo)
        # All that the node has, but for what the kernel holds: it gives what it finds, and the tool says so.
        most = memory_of(1) // (2 << 20)
        result = subprocess.run([arguments.tool, "reserve", "--node", f"1={most}"], check=False, capture_output=True, text=True)
        assert result.returncode == 1 and re.search(r"^node 1: \d+ pages of 2M refused\. ", result.stdout, re.MULTILINE), result
        assert 0 < pools()[1][0] < most, pools()
    finally:
        for node, (pages, _) in enumerate(before):
            counter(node, "nr_hugepages").write_text(str(pages), encoding="ascii")


def preloaded(arguments, **variables):
    return dict(os.environ, LD_PRELOAD=arguments.library, **variables)


def statistics_name_all_heaps(arguments):
    path = Path("/tmp/numa-vm-statistics.json")
    subprocess.run(["/bin/ls", "/"], env=preloaded(arguments, NUMAHEAP_STATS=str(path)), check=True,
                   stdout=subprocess.DEVNULL)
    stats = json.loads(path.read_text(encoding="utf-8"))
    assert stats["topology"] == "hwloc", stats["topology"]
    assert stats["cache_mode"] in ("rseq", "own-rseq"), stats["cache_mode"]
    heaps = [(heap["kind"], heap["id"]) for heap in stats["nodes"]]
    nodes = [node for node, row in enumerate(TOPO[arguments.machine][2]) if not row.startswith("no memory")]
    others = [("first_touch", -1), ("interleaved", -1), ("weighted", -1)]
    assert heaps == [*(("node", node) for node in nodes), *others], heaps
    for heap in stats["nodes"]:
        assert heap["committed_bytes"] == heap["hugetlb_bytes"] + heap["thp_bytes"] + heap["base_bytes"], heap
    # ls runs on one CPU at a time: its memory is on a node or two, not on all.
    assert 1 <= sum(heap["live_bytes"] > 0 for heap in stats["nodes"][:-3]) <= 3, stats["nodes"]


def a_refused_mbind_is_said_once_and_first_touch_serves(arguments):
    # On one CPU until its threads go to theirs: nothing else keeps a page on its node if a thread is moved between taking an
    # object and writing to it.
    command = ["taskset", "--cpu-list", "0", arguments.programs / "numa_vm_refuse_mbind",
               arguments.programs / "numa_vm_placement", "objects_lie_on_the_node_of_their_thread"]
    result = subprocess.run(command, env=preloaded(arguments), capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"status {result.returncode}: {result.stderr}"
    assert result.stderr.splitlines() == [WARNING], result.stderr


def report_rows(arguments, case, **variables):
    """The table of `numaheap run --report` on a case: (allocated, ..., huge %, local %, remote frees) of each node."""
    command = [arguments.tool, "run", "--library", arguments.library, "--report", "--",
               arguments.programs / "numa_vm_placement", case]
    result = subprocess.run(command, env=dict(os.environ, **variables), capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"status {result.returncode}: {result.stderr}"
    head, *rows = re.findall(r"^  (?:heap|node) .*$", result.stderr, re.MULTILINE)
    assert head.split() == " ".join(REPORT).split(), head
    assert max(map(len, [head, *rows])) <= 100, head
    cells = r"\d+(?:\.\d)? (?:[KMGT]i)?B|\d+(?:\.\d)?|-"
    return [dict(zip(REPORT, [row[2:14].strip(), *re.findall(cells, row[14:])])) for row in rows]


def the_report_tells_whose_cpus_a_nodes_memory_served(arguments):
    rows = report_rows(arguments, "objects_lie_on_the_node_of_their_thread")
    assert [row["heap"] for row in rows] == ["node 0", "node 1", "node 2", "node 3"], rows
    assert all(row["local %"] == "100.0" for row in rows), rows
    # All nodes ask node 1 for the same number of objects: a quarter of them is local. Those of the other nodes are none.
    rows = report_rows(arguments, "with_node_1_asked_for_everything_lies_there", NUMAHEAP_POLICY="preferred:1")
    assert 15 < float(rows[1]["local %"]) < 40, rows
    assert float(rows[1]["huge %"]) > 90, rows


def counter(node, name):
    return Path(f"/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/{name}")


def pools():
    """All and free huge pages of the four nodes."""
    return [tuple(int(counter(node, name).read_text(encoding="ascii")) for name in ("nr_hugepages", "free_hugepages"))
            for node in range(4)]


def mpi_ranks_are_local_and_return_their_huge_pages(arguments):
    program = arguments.programs / "numa_vm_mpi_ranks"
    assert program.exists(), "it was not built: no MPI when CMake ran (scripts/deps programs)"
    # More is wanted than the pools hold: 40 MiB of each rank. Its first 2 MiB are on base pages.
    before = pools()
    for node in range(4):
        counter(node, "nr_hugepages").write_text("8", encoding="ascii")
    try:
        assert pools() == [(8, 8)] * 4, pools()
        # The launcher is on the system's malloc. One rank per node, which may use all of its node's CPUs.
        environment = ["-x", f"LD_PRELOAD={arguments.library}", "-x", f"NH_TEST_LIBRARY={arguments.library}"]
        result = subprocess.run(
            ["mpirun", "--allow-run-as-root", "-np", "4", "--map-by", "ppr:1:numa", "--bind-to", "numa",
             "--mca", "btl", "self,vader", "--mca", "plm", "isolated", *environment, program, "ranks_stay_on_their_nodes"],
            capture_output=True, text=True, check=False, timeout=300)
        assert result.returncode == 0, f"status {result.returncode}: {result.stdout}{result.stderr}"
        assert len(re.findall(r"^rank \d has 0 failures$", result.stdout, re.MULTILINE)) == 4, result.stdout
        assert pools() == [(8, 8)] * 4, f"not all came back: {pools()}"
    finally:
        for node, (pages, _) in enumerate(before):
            counter(node, "nr_hugepages").write_text(str(pages), encoding="ascii")


CLI = Path(__file__).resolve().parent.parent / "cli"


def processes_are_looked_into_from_outside(arguments):
    result = subprocess.run(["python3", CLI / "live_test.py", arguments.tool, arguments.library, "-", "cc",
                             "Stat.test_threads"], capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    # Large objects lie where the thread ran that wrote to them: in the node's heap, or where first-touch memory was asked for.
    program = "/tmp/live_program"
    subprocess.run(["cc", "-O1", "-pthread", "-w", "-o", program, CLI / "live_program.c"], check=True)
    for node in (0, 1):
        child = subprocess.Popen(["numactl", f"--cpunodebind={node}", "env", f"LD_PRELOAD={arguments.library}", program, "2"],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            child.stdin.write("?")
            child.stdin.flush()
            for _ in iter(child.stdout.readline, ".\n"):
                pass
            text = subprocess.run([arguments.tool, "map", str(child.pid), "--json"], check=True, capture_output=True,
                                  text=True).stdout
            places = [heap["node"] if heap["node"] >= 0 else place for heap in json.loads(text)["heaps"]
                      for row in heap["arenas"] for place, large in zip(row.get("nodes", [-1] * 32), row["large"])
                      if large != "."]
            assert len(places) >= 16 and set(places) == {node}, f"node {node}: {places}"
        finally:
            child.kill()
            child.communicate()


CHECKS = {
    "four_nodes": [topo_prints_the_machine, topo_tells_about_numa_balancing, doctor_tells_what_each_node_lacks,
                   reserve_sets_each_nodes_pool_and_undoes_it, statistics_name_all_heaps,
                   the_report_tells_whose_cpus_a_nodes_memory_served,
                   a_refused_mbind_is_said_once_and_first_touch_serves, mpi_ranks_are_local_and_return_their_huge_pages],
    "two_nodes": [topo_prints_the_machine, statistics_name_all_heaps, a_refused_mbind_is_said_once_and_first_touch_serves,
                  processes_are_looked_into_from_outside],
    "eight_nodes": [topo_prints_the_machine, statistics_name_all_heaps],
    "odd_nodes": [topo_prints_the_machine, statistics_name_all_heaps],
    "kinds_of_memory": [topo_prints_the_machine, topo_tells_what_the_firmware_says, statistics_name_all_heaps],
}
