#!/usr/bin/env python3
"""package_test.py LIBRARY PACKAGE: how the Python package finds the library, and that it can be installed."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

LIBRARY, PACKAGE = sys.argv[1:3]
WHERE = """
import numaheap
names = {line.split()[-1] for line in open("/proc/self/maps") if "libnumaheap" in line}
print(numaheap.version, *sorted(names))
"""


def python(*words, path=PACKAGE, **settings):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("NUMAHEAP_", "LD_", "PYTHON"))}
    env.update(settings, PYTHONPATH=path, PYTHONDONTWRITEBYTECODE="1")
    return subprocess.run([sys.executable, *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True, timeout=60)


class Package(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="numaheap package ")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def copy(self, name):
        os.makedirs(os.path.dirname(os.path.join(self.folder, name)), exist_ok=True)
        return shutil.copy(LIBRARY, os.path.join(self.folder, name))

    def finds(self, library, **settings):
        done = python("-c", WHERE, **settings)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        version, _, name = done.stdout.strip().partition(" ")
        # A path of /proc/self/maps that has a space in it is seen from its last word on.
        self.assertTrue(os.path.realpath(library).endswith(name), (library, name))
        return version

    def fails(self, pattern, **settings):
        done = python("-c", "import numaheap", **settings)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr.splitlines()[-1], "^ImportError: numaheap: " + pattern)

    def test_preloaded_comes_first(self):
        self.finds(LIBRARY, LD_PRELOAD=LIBRARY, NUMAHEAP_LIBRARY=self.copy("other/libnumaheap.so.0"))

    def test_by_variable(self):
        self.finds(self.copy("named/any.libnumaheap"), NUMAHEAP_LIBRARY=os.path.join(self.folder, "named/any.libnumaheap"),
                   LD_LIBRARY_PATH=os.path.dirname(self.copy("path/libnumaheap.so.0")))

    def test_by_the_loader(self):
        self.finds(self.copy("path/libnumaheap.so.0"), LD_LIBRARY_PATH=os.path.join(self.folder, "path"))

    def test_not_found(self):
        self.fails("cannot load the library: .*/nowhere: .*; preload it, or set NUMAHEAP_LIBRARY", NUMAHEAP_LIBRARY="/nowhere")
        if python("-c", "import ctypes; ctypes.CDLL('libnumaheap.so.0')").returncode == 0:
            print("skipped: a libnumaheap.so.0 is installed on this machine")
            return
        self.fails("cannot load the library: libnumaheap.so.0: .*; preload it, or set NUMAHEAP_LIBRARY")

    def test_another_library(self):
        self.fails("the library in use has no numaheap_version", NUMAHEAP_LIBRARY="libm.so.6")

    def test_numpy_only_for_arrays(self):
        done = python("-c", "import sys, numaheap; numaheap.stats(); print('numpy' in sys.modules)", NUMAHEAP_LIBRARY=LIBRARY)
        self.assertEqual((done.returncode, done.stdout), (0, "False\n"), done.stderr)

    def test_installs(self):
        try:
            import setuptools
            import wheel
        except ImportError as error:
            print("skipped: a wheel cannot be built: %s" % error)
            return
        if int(setuptools.__version__.split(".")[0]) < 61 or not wheel:
            print("skipped: setuptools is older than 61")
            return
        source = shutil.copytree(PACKAGE, os.path.join(self.folder, "source"))
        built = subprocess.run([sys.executable, "-c", "import setuptools.build_meta as b; b.build_wheel('.')"], cwd=source,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, timeout=60)
        self.assertEqual(built.returncode, 0, built.stdout)
        wheels = [name for name in os.listdir(source) if name.endswith(".whl")]
        self.assertEqual(len(wheels), 1)
        # A wheel of one module is a zip archive that can be imported from.
        done = python("-c", "import numaheap; print(numaheap.__file__, numaheap.version)",
                      path=os.path.join(source, wheels[0]), NUMAHEAP_LIBRARY=LIBRARY)
        self.assertEqual(done.returncode, 0, done.stderr)
        file, version = done.stdout.rsplit(" ", 1)
        self.assertIn(wheels[0], file)
        # The version of the package is that of the library it was released with.
        self.assertEqual(re.match(r"numaheap-(.*?)-py3-none-any\.whl$", wheels[0]).group(1), version.strip().split("+")[0])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
