#!/usr/bin/env python3
"""profile_test.py TOOL LIBRARY CC: `numaheap profile` on a program of which every object was sampled."""
import os
import re
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree as xml

TOOL, LIBRARY, CC = sys.argv[1:4]

PROGRAM = r"""
#include <stdlib.h>
#define PLACE __attribute__((noinline, noclone))
static void *volatile kept;
PLACE void leaf(size_t bytes, int frees) {
  void *p = malloc(bytes);
  if (frees) free(p); else kept = p;
  __asm__ volatile("" ::: "memory");
}
PLACE void mesh(void) { for (int i = 0; i < 3; i++) leaf(1 << 20, 0); __asm__ volatile("" ::: "memory"); }
PLACE void index_of(void) { for (int i = 0; i < 10; i++) leaf(100000, 0); __asm__ volatile("" ::: "memory"); }
PLACE void brief(void) { for (int i = 0; i < 10; i++) leaf(200000, 1); __asm__ volatile("" ::: "memory"); }
int main(void) { mesh(); index_of(); brief(); return 0; }
"""
MESH, INDEX, BRIEF = 3 << 20, 10 * 100000, 10 * 200000


def call(*words):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("NUMAHEAP_", "LD_"))}
    return subprocess.run([TOOL, "profile", *words], env=env, text=True, capture_output=True, timeout=60)


class Profile(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="numaheap-profile-")
        source, program = (os.path.join(cls.folder.name, name) for name in ("program.c", "program"))
        with open(source, "w", encoding="utf-8") as file:
            file.write(PROGRAM)
        subprocess.run([CC, "-O1", "-fno-builtin", "-fno-optimize-sibling-calls", "-o", program, source], check=True)
        cls.file = os.path.join(cls.folder.name, "heap")
        subprocess.run([program], check=True, timeout=60,
                       env={"LD_PRELOAD": LIBRARY, "NUMAHEAP_PROFILE": cls.file + ",interval=1"})

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def folded(self, *words):
        done = call(self.file, "--folded", *words)
        self.assertEqual(done.returncode, 0, done.stderr)
        return {path: int(number) for path, _, number in (line.rpartition(" ") for line in done.stdout.splitlines())}

    def test_stacks(self):
        live = self.folded()
        self.assertEqual(live.get("main;mesh;leaf"), MESH)
        self.assertEqual(live.get("main;index_of;leaf"), INDEX)
        self.assertNotIn("main;brief;leaf", live)
        self.assertEqual(self.folded("--allocated").get("main;brief;leaf"), BRIEF)

    def test_table(self):
        done = call(self.file)
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.splitlines()
        self.assertRegex(lines[0], r"^4\.0 MiB in \d+ objects live")
        self.assertRegex(lines[3], r"^ *4\.0 MiB .* 13  leaf$")
        mesh = next(line for line in lines if line.endswith(" mesh"))
        self.assertIn("3.0 MiB", mesh)
        self.assertLessEqual(max(map(len, lines)), 100)
        self.assertEqual(len(call(self.file, "--top=1").stdout.splitlines()), 4)

    def test_flame_graph(self):
        picture = os.path.join(self.folder.name, "heap.svg")
        done = call(self.file, "--flame", picture)
        self.assertEqual(done.returncode, 0, done.stderr)
        space = "{http://www.w3.org/2000/svg}"
        boxes = {}
        for group in xml.parse(picture).getroot().iter(space + "g"):
            box = group.find(space + "rect")
            left, width = float(box.get("x")), float(box.get("width"))
            self.assertGreaterEqual(left, 10)
            self.assertLessEqual(left + width, 1190.2)
            boxes[group.find(space + "title").text.split(":")[0]] = width
        self.assertAlmostEqual(boxes["mesh"] / boxes["index_of"], MESH / INDEX, places=1)
        self.assertNotIn("brief", boxes)

    def test_a_process_that_runs(self):
        pattern = os.path.join(self.folder.name, "live.%p.%e.%r")
        env = {"LD_PRELOAD": LIBRARY, "PMI_RANK": "3", "NUMAHEAP_PROFILE": pattern + ",interval=1,signal=USR2"}
        for command, said in ((["/bin/sleep", "60"], ""), (None, "start it with NUMAHEAP_PROFILE=FILE,signal=USR2")):
            with subprocess.Popen(command or ["/bin/sleep", "60"], env=env if command else {"A": "b"}) as process:
                try:
                    time.sleep(0.5)
                    done = call(str(process.pid), "--allocated")
                    self.assertEqual(process.poll(), None)
                finally:
                    process.kill()
            self.assertEqual(done.returncode, 1 if said else 0, done.stderr)
            self.assertIn(said, done.stderr)
            self.assertTrue(said or "objects were allocated" in done.stdout, done.stdout)
        done = call("4194304")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no such process", done.stderr)

    def test_what_is_wrong_is_said(self):
        cut = os.path.join(self.folder.name, "cut")
        with open(self.file, encoding="utf-8") as whole, open(cut, "w", encoding="utf-8") as file:
            file.write(whole.read(200))
        for words, status, said in (((), 2, "which file"), ((self.file, self.file), 2, "one file at a time"),
                                    ((self.file, "--tap"), 2, "no such option '--tap'"),
                                    ((self.file, "--top=0"), 2, "--top takes a number"),
                                    ((self.file, "--flame"), 2, "--flame needs"),
                                    ((self.file, "--folded", "--top"), 2, "one of --top"),
                                    (("/nowhere",), 1, "/nowhere: No such file"), (("/etc/passwd",), 1, "no heap profile"),
                                    ((cut,), 1, "cut short"),
                                    ((self.file, "--flame", "/nowhere/x.svg"), 1, "cannot write /nowhere/x.svg")):
            done = call(*words)
            self.assertEqual(done.returncode, status, (words, done.stderr))
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
            self.assertTrue(re.search(re.escape(said), done.stderr), (words, done.stderr))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
