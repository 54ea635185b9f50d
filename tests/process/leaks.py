#!/usr/bin/env python3
"""What NUMAHEAP_LEAKS prints at the end of programs that have lost what is known.

    leaks.py --library LIB --program leaks_known [--static PROGRAM] [--linked PROGRAM] [--only REGEX]
"""

import collections
import os
import re
import resource
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import cases  # noqa: E402
from harness.cases import case, expect  # noqa: E402
from harness.run_cases import end_of, test_environment  # noqa: E402

UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20}
Row = collections.namedtuple("Row", "bytes objects indirect_bytes indirect_objects what")


def read_row(line):
    match = re.fullmatch(r" *([\d.]+) (B|KiB|MiB) +(\d+) +([\d.]+) (B|KiB|MiB) +(\d+)  (\S.*)", line)
    expect(match, f"cannot be read: {line!r}")
    direct, unit, objects, indirect, other_unit, others, what = match.groups()
    return Row(float(direct) * UNITS[unit], int(objects), float(indirect) * UNITS[other_unit], int(others), what)


def read_report(lines):
    """The rows, the last of which has the sums, and what is said below them."""
    expect(lines and re.fullmatch(r"numaheap: process \d+ has lost objects: nothing points to them", lines[0]), f"{lines}")
    expect(re.match(r" +directly +objects +indirectly +objects  (of size|allocated by)", lines[1]), f"{lines[1]!r}")
    end = next(i for i, line in enumerate(lines) if line.endswith("  in all"))
    rows = [read_row(line) for line in lines[2:end + 1]]
    expect(all(len(line) <= 100 for line in lines), "wider than 100 columns")
    order = [row.bytes + row.indirect_bytes for row in rows[:-1]]
    expect(order == sorted(order, reverse=True), "not the largest first")
    return rows[:-1], rows[-1], lines[end + 1:]


class Bench:
    def __init__(self, options, _):
        self.library, self.program, self.static, self.linked = options.library, options.program, options.static, options.linked

    def run(self, mode, *settings, program=None, leaks="NUMAHEAP_LEAKS=1", address_space=None):
        """The lines on stderr."""
        env = test_environment(None if program else self.library, [leaks, *settings])
        done = subprocess.run([program or self.program, mode], env=env, capture_output=True, text=True, timeout=120,
                              preexec_fn=address_space and (
                                  lambda: resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))))
        expect(done.returncode == 0, f"{end_of(done.returncode)}: {done.stderr}")
        return done.stderr.splitlines()


def expect_places(said):
    rows, sums, below = read_report(said)
    expect((sums.objects, sums.indirect_objects) == (1001, 499), f"{sums}")
    expect([(row.objects, row.indirect_objects, row.what) for row in rows] == [(1000, 0, "112 B"), (1, 499, "48 B")], f"{rows}")
    expect(abs(sums.bytes - 1000 * 112 - 48) < 200 and abs(sums.indirect_bytes - 499 * 48) < 100, f"{sums}")
    expect(len(below) == 1 and "NUMAHEAP_PROFILE=" in below[0], f"{below}")


@case
def directly_and_indirectly(bench):
    expect_places(bench.run("places"))


@case
def without_restartable_sequences(bench):
    expect_places(bench.run("places", "NUMAHEAP_RSEQ=off"))


@case
def without_caches(bench):
    expect_places(bench.run("places", "NUMAHEAP_CPU_CACHE=0"))


@case
def linked_and_static(bench):
    if not bench.static:
        return "there is no static library"
    for program in (bench.static, bench.linked):
        expect(bench.run("nothing", program=program) == [], "something is lost")
        expect_places(bench.run("places", program=program))
        rows, _, _ = read_report(bench.run("places", "NUMAHEAP_PROFILE=/dev/null,interval=1", program=program))
        expect([row.objects for row in rows] == [1000, 1], f"{rows}")
    return None


@case
def where_they_were_allocated(bench):
    rows, sums, below = read_report(bench.run("places", "NUMAHEAP_PROFILE=/dev/null,interval=1"))
    expect(not below, f"{below}")
    plain, chain = rows
    expect("place_plain+" in plain.what and plain.objects == 1000 and plain.indirect_objects == 0, f"{plain}")
    expect("place_chain+" in chain.what and (chain.objects, chain.indirect_objects) == (1, 499), f"{chain}")
    expect((sums.objects, sums.indirect_objects) == (1001, 499), f"{sums}")


@case
def estimated_from_samples(bench):
    rows, sums, _ = read_report(bench.run("places", "NUMAHEAP_PROFILE=/dev/null,interval=512"))
    expect((sums.objects, sums.indirect_objects) == (1001, 499), f"{sums}")
    plain = next(row for row in rows if "place_plain+" in row.what)
    # Some 180 samples: off by more than a half once in billions of runs.
    expect(500 < plain.objects < 1500, f"{plain}")


@case
def at_most_twenty_lines(bench):
    rows, sums, _ = read_report(bench.run("sizes"))
    expect(len(rows) == 20 and sums.objects == 30 * 31 // 2 + 3, f"{len(rows)} rows, {sums}")
    expect(rows[0].what == "4.0 MiB and more" and rows[0].objects == 3, f"{rows[0]}")


@case
def nothing_is_lost(bench):
    for mode in ("nothing", "threads"):
        said = bench.run(mode)
        expect(said == [], f"{mode}: {said}")


@case
def nobody_asks(bench):
    expect(bench.run("places", leaks="NUMAHEAP_LEAKS=0") == [], "something was said")


@case
def parent_and_child(bench):
    said = bench.run("fork")
    _, sums, _ = read_report(said)
    expect(sums.objects == 100, f"{sums}")


@case
def stderr_is_closed_by_the_end(bench):
    expect(bench.run("stderr") == [], "it was written to another file")


@case
def too_little_address_space(bench):
    ends = []
    for mib in range(24, 100, 4):
        said = bench.run("places", address_space=mib << 20)
        ends.append(len(said) == 1 and "no memory for the tables" in said[0])
        if not ends[-1]:
            expect_places(said)
    expect(ends[0] and not ends[-1], f"{ends}")


if __name__ == "__main__":
    cases.run_linked_in_all_ways(__doc__, Bench)
