"""scripts/bench as a user calls it, on a build: smoke_test.py BUILD-FOLDER"""
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "scripts" / "bench"
BUILD = Path(sys.argv.pop()).absolute() if len(sys.argv) > 1 else None

# Rows that go wrong. It says that its malloc is the preloaded library, except where that is the mistake.
BROKEN_PROGRAM = """#!/usr/bin/env python3
import os, signal, sys
rows = ("good", "aborts", "exits", "wrong-malloc", "wrong-sum", "mute")
if sys.argv[1] == "--list":
    sys.exit(print("\\n".join(f"broken/{row}\\tms\\tgoes wrong" for row in rows)))
row = sys.argv[1].partition("/")[2]
if row == "aborts":
    os.kill(os.getpid(), signal.SIGABRT)
if row == "exits":
    sys.exit("out of luck")
library = os.environ.get("LD_PRELOAD", "/lib/libc.so.6")
where = "/lib/other.so" if row == "wrong-malloc" else library
checksum = library if row == "wrong-sum" else "same"
if row != "mute":
    print(f'{{"row": "broken/{row}", "value": 1, "unit": "ms", "peak_kib": 1,',
          f'"allocator": "{where}", "checksum": "{checksum}"}}')
"""


def bench(folder, *arguments):
    command = [BENCH, "compare", "--quick", "--rounds", "1", "--allocators", "numaheap,glibc", "--out", folder]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)


class Smoke(unittest.TestCase):
    def test_a_real_row(self):
        with tempfile.TemporaryDirectory() as work:
            done = bench(work, "--build", BUILD, "--rows", "^pair/64$")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertRegex(done.stdout, r"(?m)^pair/64 .* glibc [0-9.]+ ns/op$")
            written = json.loads((Path(work) / "compare.json").read_text(encoding="utf-8"))
            self.assertEqual([row["row"] for row in written["rows"]], ["pair/64"])
            runs = written["rows"][0]["runs"]
            self.assertEqual({name: len(values) for name, values in runs.items()}, {"numaheap": 1, "glibc": 1})
            self.assertEqual(written["failures"], [])
            self.assertIn("<svg", (Path(work) / "compare.svg").read_text(encoding="utf-8"))

    def test_rows_that_fail(self):
        with tempfile.TemporaryDirectory() as work:
            program = Path(work) / "bench" / "compare" / "broken"
            program.parent.mkdir(parents=True)
            program.write_text(BROKEN_PROGRAM, encoding="utf-8")
            program.chmod(0o755)
            done = bench(work, "--build", work, "--library", BUILD / "libnumaheap.so")
            self.assertEqual(done.returncode, 1, done.stderr)
            for line in (r"broken/aborts under glibc: signal 6",
                         r"broken/aborts under numaheap: signal 6",
                         r"broken/exits under glibc: exit status 1: out of luck",
                         r"broken/wrong-malloc under numaheap: malloc resolves to /lib/other.so, not to .*/libnuma",
                         r"broken/wrong-sum under glibc: the check sum is ",
                         r"broken/mute under glibc: printed no result"):
                self.assertRegex(done.stderr, f"(?m)FAILED: {line}")
            self.assertRegex(done.stdout, r"(?m)^broken/good +1\.00")
            self.assertNotIn("broken/good under", done.stderr)

    def test_wrong_arguments(self):
        with tempfile.TemporaryDirectory() as work:
            self.assertIn("no such library", bench(work, "--build", work).stderr)
            self.assertIn("no such row", bench(work, "--build", BUILD, "--rows", "nonesuch").stderr)
            done = bench(work, "--allocators", "nonesuch")
            self.assertEqual(done.returncode, 2)
            self.assertIn("no nonesuch (glibc, ", done.stderr)


if __name__ == "__main__":
    if BUILD is None:
        sys.exit(__doc__)
    unittest.main()
