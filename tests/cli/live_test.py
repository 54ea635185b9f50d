#!/usr/bin/env python3
"""live_test.py TOOL LIBRARY ARCHIVE CC: `stat` against processes of known contents, and of none. See README.md."""
import json
import os
import random
import re
import shutil
import subprocess
import time

from live_fixture import HERE, LIBRARY, TOOL, ARCHIVE, Fixture, environment, main, tool


class Stat(Fixture):
    def compare(self, child, allocations):
        """What is seen from outside is what the process says of itself, and that is what it has allocated."""
        inside = self.statistics(child)
        r = tool("stat", inside["pid"], "--json")
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        outside = json.loads(r.stdout)
        for key in ("version", "pid", "cache_mode", "memory_syscalls", "fallbacks", "nodes"):
            self.assertEqual(outside[key], inside[key], key)
        live = sum(n["live_bytes"] for n in outside["nodes"])
        known = allocations * (1000 * 112 + 2 * (10 << 20))
        self.assertGreaterEqual(live, known)
        self.assertLess(live, known + allocations * (512 << 10))
        self.assertGreaterEqual(sum(n["large_objects"] for n in outside["nodes"]), 2 * allocations)
        return outside

    def test_one_thread(self):
        out = self.compare(self.live_program(1), 1)
        self.assertEqual(out["threads"], 1)
        self.assertEqual(out["command"], "live_program")
        self.assertGreaterEqual(sum(n["cached_bytes"] for n in out["nodes"]), 500 * 112)

    def test_threads(self):
        self.assertEqual(self.compare(self.live_program(8), 8)["threads"], 8)

    def test_fork_child(self):
        self.compare(self.live_program(2, "fork"), 3)

    def test_without_sequences(self):
        self.assertEqual(self.compare(self.live_program(8, NUMAHEAP_RSEQ="off"), 8)["cache_mode"], "fallback")

    def test_sampled(self):
        self.compare(self.live_program(2, NUMAHEAP_PROFILE=os.path.join(self.dir, "profile,interval=64K")), 2)

    def test_without_caches(self):
        self.assertEqual(self.compare(self.live_program(2, NUMAHEAP_CPU_CACHE="0"), 2)["cache_mode"], "off")

    def test_kept_large_objects(self):
        child = self.live_program(1, NUMAHEAP_LARGE="local")
        self.compare(child, 1)

    def test_opened_library(self):
        self.compare(self.live_program(2, LIBRARY, preload=None), 2)

    def test_linked_statically(self):
        for options in (["-static"], []):
            program = self.compile("linked", *options, "-Wl,--undefined=malloc", ARCHIVE)
            self.compare(self.live_program(2, program=program, preload=None), 2)

    def test_text(self):
        child = self.live_program(1)
        self.statistics(child)
        r = tool("stat", child.pid)
        self.assertRegex(r.stdout, rf"^live_program, process {child.pid}: numaheap \S+, caches ")
        self.assertRegex(r.stdout, r"\nlive +.* MiB")
        self.short_lines(r.stdout)

    def test_prometheus(self):
        child = self.live_program(1)
        inside = self.statistics(child)
        r = tool("stat", child.pid, "--prometheus")
        declared, values = {}, {}
        for line in r.stdout.splitlines():
            if match := re.fullmatch(r"# TYPE (\w+) (gauge|counter)", line):
                declared[match[1]] = match[2]
            elif not line.startswith("# HELP "):
                match = re.fullmatch(r'(\w+)\{pid="(\d+)",command="live_program"((?:,\w+="[^"]*")*)\} (\d+)', line)
                self.assertIsNotNone(match, line)
                self.assertIn(match[1], declared)
                self.assertEqual(match[2], str(child.pid))
                values[match[1], match[3]] = int(match[4])
        for name, kind in declared.items():
            self.assertEqual(name.endswith("_total"), kind == "counter", name)
        node = inside["nodes"][0]
        labels = f',heap="node",node="{node["id"]}"'
        self.assertEqual(values["numaheap_live_bytes", labels], node["live_bytes"])
        self.assertEqual(values["numaheap_refills_total", labels], node["refills"])
        self.assertEqual(values["numaheap_memory_syscalls_total", ""], inside["memory_syscalls"])

    def test_words(self):
        for words, text in (((), "of which process"), (("x",), "'x' is not one process id"), (("1", "2"), "'2' is not one"),
                            (("--bananas",), "no such option '--bananas'"), (("99999999999",), "not one process id"),
                            (("1", "--json", "--prometheus"), "one of --json and")):
            self.complaint(tool("stat", *words), 2, text)

    def test_processes_without(self):
        child = self.start("sleep", "100", preload=None)
        for command in ("stat", "map", "top"):
            self.complaint(tool(command, child.pid), 1, "does not run on numaheap")
        child.kill()
        self.wait_for(child.pid, "Z")
        self.complaint(tool("stat", child.pid), 1, "has ended")
        child.wait()
        self.complaint(tool("stat", child.pid), 1, f"there is no process {child.pid}")

    def test_another_version(self):
        with open(LIBRARY, "rb") as f:
            image = f.read()
        note = image.index(b"\x09\0\0\0\x08\0\0\0\x01\0\0\0numaheap\0") + 24
        library = os.path.join(self.dir, "libother.so")
        with open(library, "wb") as f:
            f.write(image[:note] + b"\x63" + image[note + 1:])
        child = self.live_program(1, preload=library)
        self.statistics(child)
        self.complaint(tool("stat", child.pid), 1, r"another version of numaheap \(layout 99, .*libother.so")

    def test_forbidden(self):
        if os.geteuid() != 0:
            self.skipTest("takes root, who can become somebody else")
        child = self.live_program(1)
        self.statistics(child)
        copy = shutil.copy(TOOL, self.dir)
        os.chmod(self.dir, 0o755)
        r = subprocess.run([copy, "stat", str(child.pid)], env=environment(), text=True, capture_output=True, user=65534,
                           group=65534)
        self.complaint(r, 1, r"may not look into process \d+: it is root's .*run this as root")

    def test_exec(self):
        child = self.live_program(1)
        self.statistics(child)
        self.assertEqual(tool("stat", child.pid).returncode, 0)
        top = subprocess.Popen([TOOL, "top", str(child.pid), "--interval", "0.1"], env=environment(), text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        top.stdout.readline()
        # With numaheap again, which top finds; its own block then says that it has another content.
        child.stdin.write("e")
        child.stdin.flush()
        for _ in range(100):
            if top.stdout.readline().startswith("sleep, process"):
                break
        else:
            self.fail("top has not found the new program")
        child.kill()
        child.wait()
        self.assertIn("has ended", top.communicate()[1])
        self.assertEqual(top.returncode, 0)

    def test_killed_meanwhile(self):
        for i in range(20):
            child = self.live_program(2)
            self.statistics(child)
            self.keep_busy(child)
            looks = [subprocess.Popen([TOOL, command, str(child.pid)], env=environment(), text=True,
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE) for command in ("stat", "map")]
            time.sleep(random.random() * 0.01)
            child.kill()
            for look in looks:
                out, error = look.communicate(timeout=60)
                if look.returncode != 0:
                    self.assertRegex(error, r"^numaheap: \w+: (there is no process \d+|process \d+ [^\n]*has ended|"
                                            r"process \d+ is ending)[^\n]*\n$")
                    self.assertEqual((look.returncode, out), (1, ""))

    def test_while_it_works(self):
        """Figures of a moment: none may be absurd, and none may stop the process."""
        child = self.live_program(8)
        self.statistics(child)
        self.keep_busy(child)
        served = 0
        for _ in range(40):
            nodes = json.loads(tool("stat", child.pid, "--json").stdout)["nodes"]
            for n in nodes:
                for key, value in n.items():
                    if key.endswith("_bytes"):
                        self.assertLess(value, 64 << 30, key)
            now = sum(n["served_objects"] for n in nodes)
            self.assertGreaterEqual(now, served)
            served = now
            self.assertEqual(tool("map", child.pid).returncode, 0)
        self.assertIsNone(child.poll())

    def test_nothing_true(self):
        compiler = shutil.which("c++") or shutil.which("g++")
        program = os.path.join(self.dir, "torn_block")
        subprocess.run([compiler, "-std=c++20", "-O1", "-I", os.path.join(HERE, "../../src"), "-o", program,
                        os.path.join(HERE, "torn_block.cc")], check=True)
        for seed in range(24):
            child = self.start(program, str(seed), preload=None)
            self.assertEqual(child.stdout.readline(), "ready\n")
            for command, *words in (("stat",), ("map",), ("map", "--json"), ("top", "--count", "1")):
                r = tool(command, child.pid, *words)
                self.assertIn(r.returncode, (0, 1), (seed, command))
                self.assertNotIn("\033", r.stdout)
            self.end(child)


if __name__ == "__main__":
    main()
