#!/usr/bin/env python3
"""library_test.py TOOL CC: where `numaheap run` finds the library, and what it says of places that will not do."""
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

from cli_test import CC, TOOL, Fixture, call


class Library(Fixture):
    def test_is_found_beside_the_tool_and_where_asked(self):
        beside = os.path.join(self.dir, "beside")
        os.mkdir(beside)
        tool = shutil.copy(TOOL, beside)
        shutil.copy(self.library, beside)
        show = ("run", "sh", "-c", "echo $LD_PRELOAD")
        self.assertEqual(call(*show, tool=tool).stdout.strip(), os.path.join(beside, "libnumaheap.so"))
        r = call("run", "--library", self.library, *show[1:], tool=tool)
        self.assertEqual(r.stdout.strip(), self.library)

    def test_missing_one_is_a_clear_error(self):
        alone = os.path.join(self.dir, "alone")
        os.mkdir(alone)
        tool = shutil.copy(TOOL, alone)
        r = call("run", "--library", "/nonexistent/lib.so", "echo", "started", tool=tool)
        self.assertEqual((r.returncode, r.stdout), (125, ""))
        self.assertIn("libnumaheap.so not found; looked for /nonexistent/lib.so\n", r.stderr)

    def test_path_that_ld_preload_cannot_hold(self):
        spaced = os.path.join(self.dir, "a b")
        os.mkdir(spaced)
        library = shutil.copy(self.library, spaced)
        r = self.run_tool("--library", library, "true")
        self.assertEqual(r.returncode, 125)
        self.assertIn("space or colon", r.stderr)
        self.assertIn("ln -s '" + library + "' ~/libnumaheap.so", r.stderr)
        link = os.path.join(self.dir, "link.so")
        os.symlink(library, link)
        self.assertEqual(self.run_tool("--library", link, "sh", "-c", "echo $LD_PRELOAD").stdout.strip(), link)

    def test_that_of_packages_is_found(self):
        multiarch = subprocess.run([CC, "-print-multiarch"], text=True, capture_output=True).stdout.strip()
        for directory in ["lib64"] + (["lib/" + multiarch] if multiarch else []):
            prefix = tempfile.mkdtemp(dir=self.dir)
            os.makedirs(os.path.join(prefix, directory))
            os.mkdir(os.path.join(prefix, "bin"))
            tool = shutil.copy(TOOL, os.path.join(prefix, "bin"))
            # Without the link that comes with the package for developers.
            library = shutil.copy(self.library, os.path.join(prefix, directory, "libnumaheap.so.0"))
            self.assertEqual(call("run", "sh", "-c", "echo $LD_PRELOAD", tool=tool).stdout.strip(), library)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
