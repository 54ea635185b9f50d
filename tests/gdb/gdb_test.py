#!/usr/bin/env python3
"""gdb_test.py COMMANDS LIBRARY PROGRAM [STATIC]: scripts/gdb/numaheap.py in gdb's batch mode, in a process and in a core."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

COMMANDS, LIBRARY, PROGRAM = sys.argv[1:4]
STATIC = sys.argv[4] if len(sys.argv) > 4 else None


def gdb(*commands, program=PROGRAM, core=None):
    words = ["gdb", "-q", "-nx", "-batch", "-ex", "set debuginfod enabled off", "-ex", "set startup-with-shell off",
             "-ex", "set confirm off"]
    for command in commands:
        words += ["-ex", command]
    words.append(program)
    if core:
        words.append(core)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("NUMAHEAP_", "LD_"))}
    env["LC_ALL"] = "C"
    done = subprocess.run(words, env=env, text=True, capture_output=True, timeout=120)
    return done.stdout + done.stderr


def stopped(*commands, program=PROGRAM, preload=True, profile=None):
    before = ["break stop_here"]
    if preload:
        before.insert(0, f"set environment LD_PRELOAD {LIBRARY}")
    if profile:
        before.insert(0, f"set environment NUMAHEAP_PROFILE {profile}")
    return gdb(*before, "run", f"source {COMMANDS}", *commands, "kill", program=program)


ASKED = ["numaheap ptr small", "numaheap ptr freed", "numaheap ptr large", "numaheap ptr kept", "numaheap ptr interior",
         "numaheap ptr &of_nobody", "numaheap ptr 0", "numaheap heap", "numaheap spans 112", "numaheap spans large"]


class Gdb(unittest.TestCase):
    def setUp(self):
        if shutil.which("gdb") is None:
            self.skipTest("gdb is missing")
        if "stop_here ()" not in gdb("break stop_here", "run", "kill"):
            self.skipTest("gdb may not start a program here")

    def expect_answers(self, text):
        for words in (r"object 0x[0-9a-f]+, 112 bytes, number \d+ of 73, in use",
                      r"object 0x[0-9a-f]+, 208 bytes, number \d+ of 39, free",
                      r"large object, heap 1 \(first touch\)\n  object 0x[0-9a-f]+, 20\.0 MiB, in use",
                      r"large object that CPUs keep, heap 0 \(node 0\)\n  object 0x[0-9a-f]+, 104\.0 KiB, in use",
                      r"0x[0-9a-f]+ is 40 bytes into it", r"is not memory of numaheap", r"^null$",
                      r"^ +0 +node 0 +\d+ +\d+ +[0-9.]+ [KM]iB  base", r"^ +1 +first touch +1 +1 +20\.0 MiB",
                      r"heap 0  1 pages  objects, \d+ of 73 taken", r"2560 pages  large object, 20\.0 MiB, in use"):
            self.assertTrue(re.search(words, text, re.M), f"{words}\n{text}")

    def test_a_process(self):
        self.expect_answers(stopped(*ASKED))

    def test_a_static_program(self):
        if STATIC is None:
            self.skipTest("no static library")
        self.expect_answers(stopped(*ASKED, program=STATIC, preload=False))

    def test_a_core_file(self):
        with tempfile.TemporaryDirectory(prefix="numaheap-gdb-") as folder:
            core = os.path.join(folder, "core")
            stopped(f"generate-core-file {core}")
            self.assertTrue(os.path.exists(core))
            self.expect_answers(gdb(f"source {COMMANDS}", *ASKED, core=core))

    def test_a_sampled_object(self):
        text = stopped("numaheap ptr small", profile="/dev/null,interval=1")
        self.assertRegex(text, r"object 0x[0-9a-f]+, 112 B, in use, sampled\n  allocated at\n    place \+ \d+ in section")

    def test_what_cannot_be_answered_is_said(self):
        self.assertIn("which pointer?", stopped("numaheap ptr"))
        self.assertIn('takes the size of the objects in bytes, or "large"', stopped("numaheap spans"))
        self.assertIn("built with debug information?", stopped("numaheap heap", preload=False))
        self.assertIn("that are free", stopped("numaheap ptr (char*)large + (40 << 20)"))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
