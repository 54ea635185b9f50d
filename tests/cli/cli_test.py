#!/usr/bin/env python3
"""cli_test.py TOOL CC: the numaheap tool as a user runs it. See README.md."""
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

TOOL, CC = sys.argv[1:3]

# Says that it was preloaded, and with which settings.
STUB = r"""
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
extern char **environ;
__attribute__((constructor)) static void loaded(void) {
  if (getenv("STUB_SILENT")) return;
  for (char **v = environ; *v; v++) {
    if (strncmp(*v, "NUMAHEAP_", 9) != 0) continue;
    write(2, "stub ", 5); write(2, *v, strlen(*v)); write(2, "\n", 1);
  }
  write(2, "stub loaded\n", 12);
}
"""


def clean_environment(**extra):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("NUMAHEAP_", "LD_", "HWLOC_"))}
    env["LC_ALL"] = "C"
    env.update(extra)
    return env


def call(*words, env=None, tool=TOOL, **options):
    return subprocess.run([tool, *words], env=env or clean_environment(), text=True, capture_output=True, timeout=60,
                          **options)


class Fixture(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="numaheap-cli-")
        source = os.path.join(cls.dir, "stub.c")
        with open(source, "w") as f:
            f.write(STUB)
        # The layout of an installation, with the stub in the library's place.
        cls.bin, cls.lib = os.path.join(cls.dir, "bin"), os.path.join(cls.dir, "lib")
        os.mkdir(cls.bin)
        os.mkdir(cls.lib)
        cls.library = os.path.join(cls.lib, "libnumaheap.so")
        subprocess.run([CC, "-shared", "-fPIC", "-w", "-o", cls.library, source], check=True)
        cls.tool = shutil.copy(TOOL, os.path.join(cls.bin, "numaheap"))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.dir)

    def run_tool(self, *words, **options):
        return call("run", *words, tool=self.tool, **options)


class Run(Fixture):
    def test_preloads_and_passes_arguments(self):
        r = self.run_tool("--", "printf", "%s|", "a b", "--stats", "")
        self.assertEqual((r.returncode, r.stdout), (0, "a b|--stats||"))
        self.assertIn("stub loaded\n", r.stderr)

    def test_command_needs_no_dashes(self):
        r = self.run_tool("--report", "--stats=-", "echo", "--strict")
        self.assertIn("stub NUMAHEAP_STATS=-\n", r.stderr)
        self.assertEqual(r.stdout, "--strict\n")
        self.assertIn("stub NUMAHEAP_REPORT=1\n", r.stderr)
        self.assertNotIn("NUMAHEAP_STRICT", r.stderr)

    def test_options_become_variables(self):
        r = self.run_tool("--stats", "/tmp/%p.json", "--hugepages=2m", "--policy", "bind:0", "--cpu-cache", "64K",
                          "--strict", "--quiet=0", "--", "true")
        settings = sorted(re.findall(r"stub NUMAHEAP_(.*)", r.stderr))
        self.assertEqual(settings, ["CPU_CACHE=64K", "HUGEPAGES=2m", "POLICY=bind:0", "QUIET=0", "STATS=/tmp/%p.json",
                                    "STRICT=1"])

    def test_option_beats_the_environment_and_the_last_one_counts(self):
        r = self.run_tool("--limit", "1G", "--limit", "2G", "true", env=clean_environment(NUMAHEAP_LIMIT="3G"))
        self.assertEqual(re.findall(r"NUMAHEAP_LIMIT=(\w+)", r.stderr), ["2G"])

    def test_every_option_of_the_table_is_a_flag(self):
        names = re.findall(r"^NUMAHEAP_(\w+)=(\S+)", call("options").stdout, re.M)
        self.assertGreater(len(names), 15)
        for name, accepts in names:
            flag = "--" + name.lower().replace("_", "-")
            r = self.run_tool(flag + "=")
            self.assertNotIn("no such option", r.stderr, flag)
            self.assertEqual(r.returncode, 125)

    def test_exit_status_is_passed_on(self):
        self.assertEqual(self.run_tool("--", "sh", "-c", "exit 7").returncode, 7)

    def test_becomes_the_program(self):
        child = subprocess.Popen([self.tool, "run", "--", "sh", "-c", "echo $$; kill -TERM $$"], stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL, text=True, env=clean_environment())
        out, _ = child.communicate(timeout=60)
        self.assertEqual(out.strip(), str(child.pid))
        self.assertEqual(child.returncode, -signal.SIGTERM)

    def test_reads_stdin_through(self):
        self.assertEqual(self.run_tool("cat", input="text\n").stdout, "text\n")

    def test_missing_command(self):
        r = self.run_tool("--", "/nonexistent/program")
        self.assertEqual(r.returncode, 127)
        self.assertIn("numaheap: run: /nonexistent/program: No such file or directory\n", r.stderr)
        self.assertEqual(self.run_tool("no-such-program-anywhere").returncode, 127)

    def test_command_that_cannot_be_executed(self):
        r = self.run_tool("--", self.dir)
        self.assertEqual(r.returncode, 126)
        self.assertIn("Permission denied", r.stderr)

    def test_no_command(self):
        for words in ((), ("--",), ("--report",), ("--stats", "stderr", "--")):
            r = self.run_tool(*words)
            self.assertEqual(r.returncode, 125, words)
            self.assertIn("which program?", r.stderr)

    def test_mistakes_are_found_before_the_program_starts(self):
        for words, text in ((("--hugepages", "of"), "accepts auto|2m|1g|thp|off"), (("--cpu-cache=4G",), "0..1G"),
                            (("--report=maybe",), "0|1"), (("--bananas",), "no such option '--bananas'"),
                            (("--stats",), "--stats needs a value: stderr|FILE"), (("-x",), "no such option '-x'"),
                            (("--stats", "--report"), "--stats needs a value: stderr|FILE"),
                            (("--library",), "--library needs a value: the path of libnumaheap.so")):
            r = self.run_tool(*words, "--", "echo", "started")
            self.assertEqual(r.returncode, 125, words)
            self.assertIn(text, r.stderr)
            self.assertNotIn("started", r.stdout)

    def test_ours_comes_first_in_ld_preload(self):
        other = shutil.copy(self.library, os.path.join(self.dir, "other.so"))
        show = ("sh", "-c", "echo $LD_PRELOAD")
        r = self.run_tool(*show, env=clean_environment(LD_PRELOAD=other))
        self.assertEqual(r.stdout.strip(), self.library + ":" + other)
        r = self.run_tool(*show, env=clean_environment(LD_PRELOAD=self.library + ":" + other))
        self.assertEqual(r.stdout.strip(), self.library + ":" + other)

    def test_dry_run_can_be_pasted(self):
        r = self.run_tool("--dry-run", "--stats", "a 'b'.json", "--", "printf", "%s\\n", "it's", "$HOME", "")
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        self.assertIn("LD_PRELOAD=" + self.library, r.stdout)
        pasted = subprocess.run(["sh", "-c", r.stdout], env=clean_environment(), text=True, capture_output=True)
        self.assertEqual(pasted.stdout, "it's\n$HOME\n\n")
        self.assertIn("stub NUMAHEAP_STATS=a 'b'.json\n", pasted.stderr)

    def test_says_when_preloading_cannot_work(self):
        source, program = os.path.join(self.dir, "static.c"), os.path.join(self.dir, "static")
        with open(source, "w") as f:
            f.write("int main(void) { return 3; }\n")
        if subprocess.run([CC, "-static", "-o", program, source], capture_output=True).returncode != 0:
            self.skipTest("no static libc")
        r = self.run_tool(program)
        self.assertEqual(r.returncode, 3)
        self.assertEqual(r.stderr, f"numaheap: run: {program} runs on its own malloc: it is statically linked; "
                                   "link it with libnumaheap.a\n")
        self.assertEqual(self.run_tool("--quiet", program).stderr, "")

    def test_topology_of_another_machine_does_not_count(self):
        theirs = "nh1:r/b00000000-0000-0000-0000-000000000000/p0-1/n0:1:m:0:0:0/n1:1:m:0:0:1/d10,20x2,10"
        for status, text in ((0, theirs), (0, theirs.replace("/d10", "/nonsense"))):
            r = self.run_tool("true", env=clean_environment(NUMAHEAP_TOPOLOGY=text))
            self.assertEqual((r.returncode, "numaheap:" in r.stderr), (status, False))
        with open("/proc/sys/kernel/random/boot_id") as f:
            ours = theirs.replace("00000000-0000-0000-0000-000000000000", f.read().strip())
        for text, source in ((theirs, "(sysfs|hwloc)"), (ours, "inherited")):
            r = call("topo", env=clean_environment(NUMAHEAP_TOPOLOGY=text))
            self.assertRegex(r.stdout, r"^\d+ nodes?, \d+ CPUs? \(\d+ possible\), from " + source + "\n")

    def test_rseq_of_our_own_keeps_libc_from_it(self):
        show = ("sh", "-c", "echo $GLIBC_TUNABLES")
        wanted = "glibc.pthread.rseq=0"
        self.assertEqual(self.run_tool("--rseq", "own", *show).stdout, wanted + "\n")
        self.assertEqual(self.run_tool("--rseq", "auto", *show).stdout, "\n")
        other = "glibc.malloc.check=1"
        for before, after in ((other, other + ":" + wanted), (wanted + ":" + other, wanted + ":" + other),
                              ("glibc.pthread.rseq=1", "glibc.pthread.rseq=1")):
            r = self.run_tool(*show, env=clean_environment(NUMAHEAP_RSEQ="OWN", GLIBC_TUNABLES=before))
            self.assertEqual(r.stdout, after + "\n")

    def test_described_topology_is_passed_on_parsed(self):
        r = self.run_tool("--topology", "pack:2 numa:1 core:2 pu:1", "true")
        if "cannot be loaded" in r.stderr or "built without hwloc" in r.stderr:
            self.skipTest("no hwloc")
        text = re.search(r"NUMAHEAP_TOPOLOGY=(.*)", r.stderr).group(1)
        self.assertRegex(text, r"^nh1:d/p0-3/n0:\d+:m:0:0:0-1/n1:\d+:m:0:0:2-3/d10,20x2,10$")
        self.assertNotIn("/b", text)  # a description is for any machine
        again = self.run_tool("--topology", text, "true")
        self.assertIn("NUMAHEAP_TOPOLOGY=" + text + "\n", again.stderr)
        r = self.run_tool("--topology", "nonsense", "true")
        self.assertEqual(r.returncode, 125)
        self.assertIn("NUMAHEAP_TOPOLOGY: hwloc does not understand", r.stderr)


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)


class Topo(unittest.TestCase):
    def setUp(self):
        self.root = tempfile.mkdtemp(prefix="numaheap-root-")
        nodes = self.root + "/sys/devices/system/node"
        write(nodes + "/online", "0-1\n")
        write(nodes + "/has_memory", "0-1\n")
        for n in (0, 1):
            write(f"{nodes}/node{n}/cpulist", f"{4 * n}-{4 * n + 3}\n")
            write(f"{nodes}/node{n}/distance", "10 21\n" if n == 0 else "21 10\n")
            write(f"{nodes}/node{n}/meminfo",
                  f"Node {n} MemTotal: 8388608 kB\nNode {n} MemFree: {1048576 * (n + 1)} kB\n")
            for size, total, free in ((2048, 512, 500 + n), (1048576, 4, n)):
                pool = f"{nodes}/node{n}/hugepages/hugepages-{size}kB"
                write(pool + "/nr_hugepages", f"{total}\n")
                write(pool + "/free_hugepages", f"{free}\n")
                os.makedirs(f"{self.root}/sys/kernel/mm/hugepages/hugepages-{size}kB", exist_ok=True)
        write(self.root + "/sys/devices/system/cpu/possible", "0-15\n")
        write(self.root + "/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
        write(self.root + "/proc/sys/kernel/numa_balancing", "1\n")
        write(self.root + "/proc/self/status", "Cpus_allowed_list:\t0-5\nMems_allowed_list:\t1\n")

    def tearDown(self):
        shutil.rmtree(self.root)

    def test_table(self):
        r = call("topo", "--root", self.root)
        self.assertEqual(r.returncode, 0)
        lines = [line.split() for line in r.stdout.splitlines()]
        self.assertEqual(" ".join(lines[0][:6]), "2 nodes, 8 CPUs (16 possible),")
        self.assertIn("0 ordinary - - - 8.0 GiB 1.0 GiB 500/512 0/4 0-3".split(), lines)
        self.assertIn("1 ordinary - - - 8.0 GiB 2.0 GiB 501/512 1/4 4-7".split(), lines)
        self.assertIn("node kind tier MB/s ns memory free 2M pages 1G pages CPUs".split(), lines)
        self.assertIn("   0: ordinary (it has CPUs), not to be had: a cpuset forbids it, or its memory is offline\n", r.stdout)
        self.assertIn("   1: ordinary (it has CPUs), helps others by distance\n", r.stdout)
        self.assertIn(["0", "10", "21"], lines)
        self.assertIn(["1:", "1"], lines)  # the fallback order holds allowed nodes only
        for text in ("transparent huge pages: madvise\n", "automatic NUMA balancing: on (memory follows ",
                     "of the pools stay)\n", "allowed CPUs: 0-5\n",
                     "allowed nodes: 1\n"):
            self.assertIn(text, r.stdout)

    def add_memory(self):
        """Node 2: fast by the firmware's figures; node 3: CXL memory, nearer to node 0 than node 1 is; node 4: a GPU's."""
        nodes = self.root + "/sys/devices/system/node"
        write(nodes + "/online", "0-4\n")
        write(nodes + "/has_memory", "0-4\n")
        for n, row, figures in ((0, "10 21 13 14 80", (80000, 100)), (1, "21 10 23 24 80", (80000, 100)),
                                (2, "13 23 10 24 80", (320000, 130)), (3, "14 24 24 10 80", (20000, 250)),
                                (4, "80 80 80 80 10", ())):
            write(f"{nodes}/node{n}/distance", row + "\n")
            for what, value in zip(("bandwidth", "latency"), figures):
                write(f"{nodes}/node{n}/access1/initiators/read_{what}", f"{value}\n")
            if n > 1:
                write(f"{nodes}/node{n}/cpulist", "\n")
                write(f"{nodes}/node{n}/meminfo", f"Node {n} MemTotal: {8388608 * n} kB\n")
        device = self.root + "/sys/devices/platform/ACPI0017:00/root0/decoder0.0/region0/dax_region0/dax0.0"
        write(device + "/target_node", "3\n")
        for link in ("devices", "drivers/kmem"):
            os.makedirs(f"{self.root}/sys/bus/dax/{link}")
            os.symlink(device, f"{self.root}/sys/bus/dax/{link}/dax0.0")
        write(self.root + "/proc/driver/nvidia/gpus/0000:01:00.0/numa_status", "Node: 4\nStatus: online\n")
        write(self.root + "/proc/self/status", "Cpus_allowed_list:\t0-7\nMems_allowed_list:\t0-4\n")

    def test_kinds_of_memory(self):
        self.add_memory()
        r = call("topo", "--root", self.root)
        for text in ("   2  fast          -  320000   130  16.0 GiB", "   0: 0 1 3\n", "   1: 1 0 3\n", "   2: 2 0 1 3\n",
                     "   2: fast (its bandwidth and latency), for those who ask for it, and no help to others\n",
                     "   3: slow (CXL memory), helps others last\n",
                     "   4: device (a GPU's memory), for those who ask for it, and no help to others\n",
                     "\nbest for bandwidth\n   0: 2 0 1 3\n   1: 2 1 0 3\n", "\nbest for capacity\n   0: 3 2 0 1\n"):
            self.assertIn(text, r.stdout)

    def test_json(self):
        self.add_memory()
        nodes = {node["node"]: node for node in json.loads(call("topo", "--root", self.root, "--json").stdout)["nodes"]}
        self.assertEqual([nodes[n]["kind"] for n in range(5)], ["ordinary", "ordinary", "fast", "slow", "device"])
        self.assertEqual((nodes[2]["bandwidth_mb_per_s"], nodes[2]["latency_ns"]), (320000, 130))
        self.assertEqual((nodes[1]["distances"], nodes[1]["fallback"]), ([21, 10, 23, 24, 80], [1, 0, 3]))
        self.assertEqual((nodes[1]["best_bandwidth"], nodes[1]["best_latency"]), ([2, 1, 0, 3], [1, 0, 2, 3]))

    def test_nodes_that_are_left_out(self):
        self.add_memory()
        def topo(nodes, *words):
            return call("topo", "--root", self.root, *words, env=clean_environment(NUMAHEAP_NODES=nodes))
        r = topo("!1,3")
        self.assertIn("\n   1: left out by NUMAHEAP_NODES\n", r.stdout)
        self.assertIn("fallback order\n   0: 0\n   2: 2 0\n   4: 4 0\n   1: 0\n", r.stdout)
        self.assertEqual(topo("0,2,4").stdout, r.stdout)
        self.assertEqual(topo("1", "--export").stdout, call("topo", "--root", self.root, "--export").stdout)
        self.assertIn("NUMAHEAP_NODES=!0-4: no node with memory is left; it is ignored", topo("!0-4").stderr)
        self.assertIn("NUMAHEAP_NODES=!3,9: the machine has no node 9", topo("!3,9").stderr)
        self.assertIn("NUMAHEAP_NODES=!all: accepts NODES|!NODES|all; all is used instead", topo("!all").stderr)

    def test_numa_balancing(self):
        for value, words in (("0", "off\n"), ("2", "on (between memory tiers only; "), ("3", "on (memory follows ")):
            write(self.root + "/proc/sys/kernel/numa_balancing", value + "\n")
            self.assertIn("automatic NUMA balancing: " + words, call("topo", "--root", self.root).stdout)
        os.unlink(self.root + "/proc/sys/kernel/numa_balancing")
        self.assertIn("automatic NUMA balancing: not available\n", call("topo", "--root", self.root).stdout)

    def test_this_machine(self):
        r = call("topo")
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        self.assertRegex(r.stdout, r"^\d+ nodes?, \d+ CPUs? \(\d+ possible\), from (sysfs|hwloc|single-node)\n")
        self.assertIn("inherited policy: ", r.stdout)

    def test_machine_that_says_nothing(self):
        r = call("topo", "--root", "/nonexistent")
        self.assertEqual(r.returncode, 0)
        self.assertIn("from single-node", r.stdout)
        self.assertIn("transparent huge pages: not available\n", r.stdout)

    def test_export_comes_back(self):
        text = call("topo", "--root", self.root, "--export").stdout.strip()
        self.assertTrue(text.startswith("nh1:r/p0-15/n0:8388608:m:"), text)
        r = call("topo", env=clean_environment(NUMAHEAP_TOPOLOGY=text))
        self.assertIn("2 nodes, 8 CPUs (16 possible), from inherited\n", r.stdout)

    def test_synthetic(self):
        r = call("topo", "--synthetic", "pack:2 numa:2 core:4 pu:2")
        if "cannot be loaded" in r.stderr or "built without hwloc" in r.stderr:
            self.skipTest("no hwloc")
        self.assertIn("4 nodes, 32 CPUs (32 possible), from synthetic\n", r.stdout)
        self.assertIn("   1: 1 0 2 3\n", r.stdout)
        self.assertNotIn("transparent", r.stdout)
        described = call("topo", env=clean_environment(NUMAHEAP_TOPOLOGY="pack:2 numa:2 core:4 pu:2"))
        self.assertEqual(described.stdout, r.stdout)
        r = call("topo", "--synthetic=nonsense")
        self.assertEqual((r.returncode, r.stdout), (1, ""))
        r = call("topo", env=clean_environment(NUMAHEAP_TOPOLOGY="nonsense"))
        self.assertEqual((r.returncode, r.stdout), (1, ""))
        self.assertIn("NUMAHEAP_TOPOLOGY: ", r.stderr)

    def test_xml(self):
        r = call("topo", "--xml", "/nonexistent.xml")
        self.assertEqual((r.returncode, r.stdout), (1, ""))
        self.assertIn("/nonexistent.xml: ", r.stderr)
        if shutil.which("lstopo-no-graphics") is None:
            self.skipTest("no lstopo")
        saved = self.root + "/machine.xml"
        subprocess.run(["lstopo-no-graphics", "-i", "pack:2 numa:1 core:2 pu:1", saved], check=True,
                       capture_output=True)
        r = call("topo", "--xml", saved)
        self.assertIn("2 nodes, 4 CPUs (4 possible), from xml\n", r.stdout)
        described = call("topo", env=clean_environment(NUMAHEAP_TOPOLOGY=saved))
        self.assertEqual((described.returncode, described.stdout), (0, r.stdout))

    def test_usage(self):
        for words in (("--bananas",), ("--json", "--export"), ("--xml",), ("--xml", "a", "--synthetic", "b"),
                      ("--root", "a", "--xml", "b")):
            r = call("topo", *words)
            self.assertEqual((r.returncode, r.stdout), (2, ""), words)
            self.assertRegex(r.stderr, "^numaheap: topo: ")


class Others(unittest.TestCase):
    def test_options_show_what_is_in_force(self):
        r = call("options", env=clean_environment(NUMAHEAP_LIMIT="3G", NUMAHEAP_STAT="x"))
        self.assertEqual(r.returncode, 0)
        self.assertIn("NUMAHEAP_LIMIT=size 0..1024T  [0]  now: 3G\n", r.stdout)
        self.assertEqual(r.stderr, "numaheap: NUMAHEAP_STAT: no such option; did you mean NUMAHEAP_STATS?\n")

    def test_options_as_markdown_and_man_page(self):
        self.assertIn("| `NUMAHEAP_FORK` | auto\\|cow | auto | ", call("options", "--markdown").stdout)
        page = call("options", "--man").stdout
        self.assertTrue(page.startswith(".TH NUMAHEAP 1\n"))
        if shutil.which("man") is None:
            self.skipTest("no man")
        r = subprocess.run(["man", "--warnings", "-l", "-"], input=page, text=True, capture_output=True,
                           env=clean_environment(MANWIDTH="80", MANPAGER="cat"))
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        self.assertIn("NUMAHEAP_HUGEPAGES", r.stdout)

    def test_version_and_help(self):
        self.assertRegex(call("--version").stdout, r"^numaheap \d+\.\d+\.\d+\n$")
        self.assertIn("usage: numaheap run", call("--help").stdout)
        for command in ("run", "topo", "doctor", "reserve", "profile", "stat", "top", "map", "options"):
            self.assertIn("numaheap " + command, call("--help").stdout)
            r = call(command, "--help")
            self.assertEqual(r.returncode, 0)
            self.assertLessEqual(max(map(len, r.stdout.splitlines())), 80, r.stdout)
            self.assertTrue(r.stdout.startswith("usage: numaheap " + command))

    def test_mistakes(self):
        self.assertEqual(call().returncode, 2)
        r = call("rum")
        self.assertEqual(r.returncode, 2)
        self.assertEqual(r.stderr, "numaheap: no command 'rum'; did you mean 'run'? `numaheap --help` lists them, "
                                   "`numaheap run -- CMD` runs a program\n")
        self.assertIn("no command 'python3'; `numaheap --help`", call("python3").stderr)
        self.assertEqual(call("options", "--json").returncode, 2)

    def test_unknown_options_get_the_nearest_name(self):
        for words, meant in ((("run", "--polcy=local", "true"), "--policy"), (("run", "--dryrun", "true"), "--dry-run"),
                             (("topo", "--synthetik", "x"), "--synthetic"), (("options", "--markdwon"), "--markdown"),
                             (("profile", "--flames", "x"), "--flame"), (("stat", "1", "--jason"), "--json"),
                             (("top", "--intervall", "2"), "--interval"), (("map", "1", "--colour=256"), "--color")):
            r = call(*words)
            self.assertEqual(r.returncode, 125 if words[0] == "run" else 2, words)
            self.assertIn(f"; did you mean '{meant}'? `numaheap {words[0]} --help` lists them\n", r.stderr)
        r = call("run", "--frobnicate", "true")
        self.assertIn("no such option '--frobnicate'; `numaheap run --help`", r.stderr)

    def test_output_that_cannot_be_written(self):
        with open("/dev/full", "w") as full:
            r = subprocess.run([TOOL, "topo"], stdout=full, stderr=subprocess.PIPE, text=True, env=clean_environment())
        self.assertEqual(r.returncode, 1)
        self.assertIn("cannot write: No space left on device", r.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
