#!/usr/bin/env python3
"""arrays_test.py preloaded|loaded: the Python package in a process whose malloc is numaheap, or that has only loaded it."""
import gc
import os
import subprocess
import sys
import tempfile
import threading
import unittest

try:
    import numpy
except ImportError:
    print("skipped: no numpy for " + sys.executable)
    sys.exit(77)

import numaheap

PRELOADED = sys.argv[1] == "preloaded"
MIB = 1 << 20


def live():
    gc.collect()
    return sum(heap["live_bytes"] for heap in numaheap.stats()["nodes"])


def moved_by_kernel():
    """Whether automatic NUMA balancing moves pages to the nodes from which they are used."""
    try:
        with open("/proc/sys/kernel/numa_balancing", encoding="ascii") as file:
            return file.read().strip() != "0" and len(numaheap.nodes()) > 1
    except FileNotFoundError:
        return False


def kernel_tells():
    try:
        numaheap.node_of(numaheap.zeros(1))
        return True
    except OSError:
        return False


class Arrays(unittest.TestCase):
    def test_shapes_and_kinds(self):
        for kind in "i4 i8 u1 f4 f8 c8 c16 ?".split() + [[("x", "f8"), ("n", "i4")]]:
            for shape in (7, (), (0,), (3, 4), (2, 0, 5), [5, 4, 3, 2], numpy.int64(3)):
                for order in "CF":
                    array = numaheap.empty(shape, kind, numaheap.INTERLEAVED, order)
                    like = numpy.empty(shape, kind, order)
                    self.assertEqual((array.shape, array.dtype, array.nbytes, array.size and array.strides),
                                     (like.shape, like.dtype, like.nbytes, like.size and like.strides),
                                     (kind, shape, order))
                    self.assertTrue(array.flags.writeable)
                    self.assertEqual(array.ctypes.data % 64, 0)

    def test_known_answers(self):
        array = numaheap.empty((1000, 1000), "f8", numaheap.on_node(numaheap.local_node()))
        array[:] = numpy.arange(1000)
        self.assertEqual(array.sum(), 499500000.0)
        self.assertEqual((array @ numpy.ones(1000))[17], 499500.0)
        self.assertFalse(numaheap.zeros(10 ** 6, "u1", numaheap.FIRST_TOUCH).any())

    def test_zeros_after_use(self):
        for placement in (numaheap.LOCAL, numaheap.FIRST_TOUCH):
            for size in (100, 10 ** 5, 10 ** 7):
                numaheap.empty(size, "u1", placement)[:] = 255
                self.assertFalse(numaheap.zeros(size, "u1", placement).any(), (placement, size))

    def test_places(self):
        if not kernel_tells() or moved_by_kernel():
            print("skipped: the kernel does not tell where memory lies, or moves it")
            return
        # On one CPU, since what is local there is not so on another node's.
        cpus = os.sched_getaffinity(0)
        self.addCleanup(os.sched_setaffinity, 0, cpus)
        os.sched_setaffinity(0, {min(cpus)})
        self.assertIn(numaheap.local_node(), numaheap.nodes())
        for node in numaheap.nodes():
            for strict in (False, True):
                array = numaheap.zeros(10 ** 6, placement=numaheap.on_node(node, strict))
                array += 1
                self.assertEqual(numaheap.node_of(array), node)
                self.assertEqual(numaheap.node_of(array.ctypes.data), node)
                self.assertTrue(numaheap.verify(array, numaheap.on_node(node)))
        for placement in (numaheap.LOCAL, numaheap.INTERLEAVED, numaheap.WEIGHTED, numaheap.BANDWIDTH, numaheap.LATENCY,
                          numaheap.CAPACITY):
            array = numaheap.empty(10 ** 6, "f8", placement)
            array.fill(1)
            self.assertTrue(numaheap.verify(array, placement), placement)
        with self.assertRaises(ValueError):
            numaheap.verify(array[::2], numaheap.LOCAL)
        with self.assertRaises(OSError):
            numaheap.verify(array, numaheap.FIRST_TOUCH)

    def test_untouched_lies_nowhere(self):
        if not kernel_tells():
            return
        # In a process of its own, where it cannot be memory that another array has left behind.
        code = "import numaheap as n; a = n.zeros(1 << 26, 'u1', n.FIRST_TOUCH); print(n.node_of(a)); a[:] = 1; print(n.node_of(a))"
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, universal_newlines=True, timeout=60)
        first, second = done.stdout.split()
        self.assertEqual(first, "None")
        self.assertIn(int(second), numaheap.nodes())

    def test_memory_lives_as_long_as_a_view(self):
        before = live()
        array = numaheap.empty((40, MIB), "u1")
        array[:] = 7
        self.assertGreater(live() - before, 39 * MIB)  # Python frees others meanwhile
        view = array[3:5].view("u4").T
        del array
        self.assertGreater(live() - before, 39 * MIB)  # Python frees others meanwhile
        self.assertTrue((view == 0x07070707).all())
        del view
        self.assertLess(live() - before, 2 * MIB)

    def test_many_come_and_go_in_threads(self):
        before = live()

        def work():
            kept = [numaheap.zeros(size, "u1", numaheap.FIRST_TOUCH) for size in range(1, 50000, 97)]
            wrong.extend(array for array in kept if array.any())

        wrong = []
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])
        self.assertLess(live() - before, 4 * MIB)

    def test_errors(self):
        for placement in (numaheap.on_node(999), numaheap.Placement(99, 0, 0), numaheap.Placement(0, 0, 64)):
            with self.assertRaisesRegex(ValueError, "no such place"):
                numaheap.empty(10, "f8", placement)
        for shape in (1 << 47, 1 << 62, (1 << 40, 1 << 40)):
            with self.assertRaisesRegex(MemoryError, "not enough memory"):
                numaheap.empty(shape, "f8", numaheap.on_node(numaheap.local_node(), strict=True))
        with self.assertRaisesRegex(ValueError, "Python objects"):
            numaheap.empty(10, object)
        with self.assertRaisesRegex(ValueError, "negative"):
            numaheap.empty((-3, 2))

    def test_end_of_the_interpreter(self):
        done = subprocess.run([sys.executable, "-c", "import numaheap; kept = numaheap.zeros(10**7); numaheap.kept = kept"],
                              stderr=subprocess.PIPE, timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, b""))


class Control(unittest.TestCase):
    def test_statistics(self):
        stats = numaheap.stats()
        self.assertEqual(stats["pid"], os.getpid())
        self.assertEqual(stats["version"], numaheap.version)
        self.assertEqual([heap["id"] for heap in stats["nodes"] if heap["kind"] == "node"], numaheap.nodes())

    def test_trim(self):
        array = numaheap.empty(64 * MIB, "u1")
        array[:] = 1
        del array
        gc.collect()
        self.assertGreaterEqual(numaheap.trim(), 32 * MIB)

    def test_profile(self):
        with tempfile.TemporaryDirectory(prefix="numaheap-profile-") as folder:
            path = os.path.join(folder, "heap.%p")
            if not PRELOADED:
                with self.assertRaisesRegex(RuntimeError, "preload libnumaheap.so"):
                    numaheap.profile_start()
                return
            with self.assertRaisesRegex(OSError, "nothing was ever sampled"):
                numaheap.profile_dump(path)
            numaheap.profile_start(interval=1)
            kept = [bytearray(MIB) for _ in range(20)]
            numaheap.profile_dump(path)
            numaheap.profile_stop()
            later = [bytearray(MIB) for _ in range(20)]
            numaheap.profile_dump(path + ".later")
            sizes = []
            for name in (path, path + ".later"):
                with open(name.replace("%p", str(os.getpid())), encoding="ascii") as file:
                    words = file.readline().split()  # heap profile: OBJECTS: BYTES [...
                self.assertEqual(words[:2], ["heap", "profile:"])
                sizes.append(int(words[3]))
            self.assertGreaterEqual(sizes[0], 20 * MIB)
            self.assertLess(sizes[1], 40 * MIB)
            self.assertEqual(len(kept) + len(later), 40)
            with self.assertRaises(OSError):
                numaheap.profile_dump(os.path.join(folder, "no", "such", "folder"))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
