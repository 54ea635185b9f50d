"""The parts of scripts/bench on made-up measurements."""
import contextlib
import os
import sys
import tempfile
import unittest
import xml.etree.ElementTree
from pathlib import Path
from unittest import mock

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "bench_lib"))
# pylint: disable=wrong-import-position
import allocators  # noqa: E402
import pool  # noqa: E402
import programs  # noqa: E402
import rounds  # noqa: E402
import summary  # noqa: E402
import svg  # noqa: E402
import text  # noqa: E402

OURS = allocators.Allocator("ours", Path("/lib/ours.so"), peer=False)
A = allocators.Allocator("a", Path("/lib/a.so"))
B = allocators.Allocator("b")
ROWS = [programs.Row("program", name, "ns/op", "does something") for name in ("x/1", "x/2", "y/1")]
# Values by row and allocator, one per round.
VALUES = {
    ("x/1", "ours"): [3, 1, 2], ("x/1", "a"): [4, 4, 4], ("x/1", "b"): [9, 8, 7],
    ("x/2", "ours"): [8, 8, 100], ("x/2", "a"): [8, 2, 8], ("x/2", "b"): [4, 4, 4],
    ("y/1", "ours"): [5, 5, 5], ("y/1", "a"): [5, 5, 4], ("y/1", "b"): [4, 4, 5],
}


def quiet(_text, lasting=False):
    del lasting


def made_up(values=None, count=3, checksum=lambda row, allocator: "same"):
    """Results as rounds.run() collects them, from VALUES; an exception among the values is raised."""
    left = {key: list(series) for key, series in (values or VALUES).items()}

    def measure(row, allocator, _quick):
        value = left[row.name, allocator.name].pop(0)
        if isinstance(value, BaseException):
            raise value
        return programs.Measurement(value, 1024 * int(value), checksum(row.name, allocator.name))
    return rounds.run(ROWS, [OURS, A, B], count, False, quiet, measure)


def answer(**changed):
    fields = {"row": '"x/1"', "value": "2.5", "unit": '"ns/op"', "peak_kib": "10", "allocator": '"/lib/a.so"',
              "checksum": '"c"', **changed}
    return "noise\n{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}\n"


class Arithmetic(unittest.TestCase):
    def setUp(self):
        self.table = summary.tabulate(made_up(), "value")

    def test_medians_and_best_peer(self):
        lines = {line.name: line for line in self.table.lines}
        self.assertEqual(lines["x/1"].figures, {"ours": 2, "a": 4, "b": 8})
        self.assertEqual([line.best_peer for line in self.table.lines], ["a", "b", "b"])
        self.assertEqual(lines["x/2"].best, 4)

    def test_best_rounds(self):
        table = summary.tabulate(made_up(), "value", min)
        self.assertEqual([line.figures["ours"] for line in table.lines], [1, 8, 5])
        self.assertEqual(table.lines[1].ratio("ours"), 4.0)

    def test_unsteady_rounds_are_named(self):
        # x/1 and x/2 have rounds of 1 to 3 and 8 to 100; those of y/1 differ by 5/4, which is just allowed.
        self.assertEqual([line.name for line in self.table.unsteady("ours")], ["x/1", "x/2"])
        self.assertIn("differ by more than 1.25 x: x/1, x/2\n", text.table(self.table))

    def test_ratios(self):
        self.assertEqual([line.ratio("ours") for line in self.table.lines], [0.5, 2.0, 1.25])
        self.assertEqual([line.ratio("a") for line in self.table.lines], [1.0, 2.0, 1.25])

    def test_geometric_means(self):
        self.assertAlmostEqual(self.table.mean("ours"), 1.25 ** (1 / 3))
        self.assertAlmostEqual(self.table.mean("b"), 2 ** (1 / 3))
        self.assertIsNone(summary.geometric_mean([]))

    def test_best_single_peer(self):
        name, mean = self.table.best_single_peer()
        self.assertEqual(name, "b")
        self.assertAlmostEqual(mean, 2 ** (1 / 3))

    def test_marks_only_what_is_above_the_limit(self):
        self.assertEqual([line.name for line in self.table.rows_behind("ours")], ["x/2"])
        printed = text.table(self.table).splitlines()
        marked = [line.split()[0] for line in printed[2:] if text.MARK in line]
        self.assertEqual(marked, ["x/2"])

    def test_memory(self):
        table = summary.tabulate(made_up(), "peak_kib")
        self.assertEqual([line.unit for line in table.lines], ["KiB"] * 3)
        self.assertEqual(table.lines[0].figures["b"], 8 * 1024)
        self.assertIn("a 4.00 MiB", text.table(table))

    def test_units_with_few_digits(self):
        self.assertEqual(text.with_unit(68100, "ns/op"), "68.1 us/op")
        self.assertEqual(text.with_unit(999, "ns/op"), "999 ns/op")
        self.assertEqual(text.with_unit(3 << 20, "KiB"), "3.00 GiB")
        self.assertEqual(text.with_unit(12, "furlongs"), "12.0 furlongs")

    def test_without_a_peer(self):
        results = rounds.run(ROWS[:1], [OURS], 1, False, quiet, lambda *_: programs.Measurement(1, 1, ""))
        table = summary.tabulate(results, "value")
        self.assertIsNone(table.mean("ours"))
        self.assertIsNone(table.best_single_peer())
        self.assertIn("1.00 ns/op", text.table(table))


class Failures(unittest.TestCase):
    def test_a_row_that_fails_is_left_out_under_that_allocator_only(self):
        values = {**VALUES, ("x/1", "b"): [9, programs.Failure("signal 6"), 9]}
        results = made_up(values)
        self.assertEqual(results.failures, ["x/1 under b: signal 6"])
        table = summary.tabulate(results, "value")
        self.assertNotIn("b", table.lines[0].figures)
        self.assertEqual(table.lines[0].ratio("ours"), 0.5)
        self.assertAlmostEqual(table.mean("b"), 1.0)
        self.assertEqual(table.best_single_peer()[0], "a")  # b is ahead only because it lacks a row

    def test_checksums_must_agree(self):
        results = made_up(checksum=lambda row, allocator: allocator if row == "y/1" and allocator == "a" else "same")
        self.assertEqual(len(results.failures), 1)
        self.assertRegex(results.failures[0], "^y/1 under a: the check sum is a, under ours it was same$")

    def test_an_interrupted_run_keeps_what_it_has(self):
        results = made_up({**VALUES, ("x/2", "a"): [8, KeyboardInterrupt()]})
        self.assertEqual(len(results.failures), 1)
        table = summary.tabulate(results, "value")
        self.assertEqual(table.lines[0].figures, {"ours": 2, "a": 4, "b": 8.5})
        self.assertEqual(table.lines[2].figures, {"ours": 5, "a": 5, "b": 4})

    def test_order_is_round_by_round_in_turns(self):
        seen = []

        def measure(row, allocator, _quick):
            seen.append(row.name + allocator.name)
            return programs.Measurement(1, 1, "")
        rounds.run(ROWS[:2], [A, B], 2, False, quiet, measure)
        self.assertEqual(seen, ["x/1a", "x/1b", "x/2a", "x/2b"] * 2)


class Answers(unittest.TestCase):
    def refused(self, why, output, allocator=A):
        with self.assertRaisesRegex(programs.Failure, why):
            programs.parse(output, ROWS[0], allocator)

    def test_good(self):
        self.assertEqual(programs.parse(answer(), ROWS[0], A), programs.Measurement(2.5, 10, "c"))
        programs.parse(answer(allocator='"/lib/x86_64-linux-gnu/libc.so.6"'), ROWS[0], B)

    def test_malloc_of_somebody_else(self):
        self.refused("malloc resolves to /lib/b.so, not to /lib/a.so", answer(allocator='"/lib/b.so"'))
        self.refused("malloc resolves to nothing", answer(allocator='""'))
        self.refused("malloc resolves to /lib/a.so, not to libc", answer(), B)

    def test_not_understood(self):
        self.refused("no result", "")
        self.refused("no result", "Segmentation fault\n")
        self.refused("no result", answer(value='"many"'))
        self.refused("the row x/9", answer(row='"x/9"'))
        self.refused("the value is 0", answer(value="0"))
        self.refused("the value is nan", answer(value="NaN"))


class Surroundings(unittest.TestCase):
    def test_no_setting_of_the_caller_gets_through(self):
        with mock.patch.dict(os.environ, {"LD_PRELOAD": "/x.so", "NUMAHEAP_HUGEPAGES": "off", "MALLOC_ARENA_MAX": "1",
                                          "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0", "KEPT": "1"}):
            plain = B.environment()
            preloaded = allocators.Allocator("c", Path("/lib/c.so"), False, {"NUMAHEAP_HUGEPAGES": "thp"}).environment()
        self.assertEqual(plain["KEPT"], "1")
        self.assertFalse({"LD_PRELOAD", "NUMAHEAP_HUGEPAGES", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"} & set(plain))
        self.assertEqual((preloaded["LD_PRELOAD"], preloaded["NUMAHEAP_HUGEPAGES"]), ("/lib/c.so", "thp"))

    def test_the_pool_is_put_back(self):
        with tempfile.TemporaryDirectory() as work:
            pages = Path(work) / "devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"
            pages.parent.mkdir(parents=True)
            pages.write_text("7\n", encoding="ascii")
            with mock.patch.object(pool, "SYSFS", Path(work)):
                with contextlib.suppress(KeyboardInterrupt), pool.reserved(64):
                    self.assertEqual(pages.read_text(encoding="ascii"), "32\n")
                    raise KeyboardInterrupt
                self.assertEqual(pages.read_text(encoding="ascii"), "7\n")
                # Three of them are somebody's, beyond what was asked for.
                pages.with_name("surplus_hugepages").write_text("3\n", encoding="ascii")
                with pool.reserved(64):
                    pass
                self.assertEqual(pages.read_text(encoding="ascii"), "4\n")
                pages.unlink()
                with self.assertRaisesRegex(pool.PoolError, "no pool"), pool.reserved(64):
                    self.fail("there is no pool")
                pages.write_text("7\n", encoding="ascii")
                with mock.patch.object(Path, "write_text", side_effect=PermissionError(13, "Permission denied")):
                    with self.assertRaisesRegex(pool.PoolError, "Permission denied; pools are root's"), pool.reserved(64):
                        self.fail("the pool was not filled")


class Drawing(unittest.TestCase):
    def test_every_row_is_drawn(self):
        results = made_up({**VALUES, ("x/2", "b"): [programs.Failure("<&>")]}, count=1)
        tables = [summary.tabulate(results, metric) for metric in summary.METRICS]
        described = {"cpu": "C & Co", "cpus": 2, "nodes": 1, "memory_mib": 2048, "kernel": "6", "thp": "madvise",
                     "pools": {}, "date": "2024-01-01T00:00:00"}
        drawing = xml.etree.ElementTree.fromstring(svg.draw("<title>", *tables, described, "note"))
        words = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
        self.assertEqual([words.count(name) for name in ("x", "y", "1", "2")], [1, 1, 2, 1])
        self.assertTrue(any("C & Co" in word for word in words))

        head = xml.etree.ElementTree.fromstring(svg.draw_summary("<title>", *tables, described, "note"))
        words = [element.text for element in head.iter("{http://www.w3.org/2000/svg}text")]
        self.assertIn("<title>", words)
        self.assertEqual([words.count(name) for name in ("x", "y", "1", "2")], [0, 0, 0, 0])

    def test_colours_differ_by_side(self):
        fills = [svg.colour(ratio)[0] for ratio in (0.01, 0.5, 1.0, 1.25, 4.0, 1000.0)]
        self.assertEqual(len(set(fills)), len(fills))


if __name__ == "__main__":
    unittest.main()
