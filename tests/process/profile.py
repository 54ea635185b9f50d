#!/usr/bin/env python3
"""The heap profile of a program whose truth is known, and what is said where none can be taken.

    profile.py --library LIB --program profile_known [--static PROGRAM] [--linked PROGRAM] [--only REGEX]
"""

import collections
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import cases  # noqa: E402
from harness.cases import case, expect  # noqa: E402
from harness.run_cases import end_of, test_environment  # noqa: E402

# Of what every place has, some 10 000 samples are taken, which are off by more than a twentieth once in millions of runs.
TOLERANCE = 0.05
Counts = collections.namedtuple("Counts", "live_objects live_bytes all_objects all_bytes")


def places(program):
    """Name -> range of addresses in the file."""
    out = subprocess.run(["nm", "-S", "--defined-only", program], check=True, capture_output=True, text=True).stdout
    found = {}
    for line in out.splitlines():
        fields = line.split()
        if len(fields) == 4 and fields[3].startswith("place_"):
            found[fields[3]] = range(int(fields[0], 16), int(fields[0], 16) + int(fields[1], 16) + 1)
    return found


def read_profile(path, program):
    """Place -> its counts; what was allocated elsewhere goes to ""."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    expect(re.match(r"heap profile: \d+: \d+ \[\d+: \d+\] @ heapprofile\n", text), f"begins with {text[:80]!r}")
    stacks, mappings = text.split("\nMAPPED_LIBRARIES:\n")
    is_fixed = subprocess.run(["readelf", "-h", program], check=True, capture_output=True, text=True).stdout.find(" EXEC ") != -1
    base = 0
    if not is_fixed:
        lines = [line.split() for line in mappings.splitlines() if line.endswith(os.path.realpath(program))]
        base = next(int(f[0].split("-")[0], 16) - int(f[2], 16) for f in lines)
    ranges = places(program)
    sums = collections.defaultdict(lambda: [0, 0, 0, 0])
    for line in stacks.splitlines()[1:]:
        match = re.fullmatch(r"(\d+): (\d+) \[(\d+): (\d+)\] @((?: 0x[0-9a-f]+)+)", line)
        expect(match, f"cannot be read: {line!r}")
        frames = [int(frame, 16) - base for frame in match.group(5).split()]
        place = next((name for frame in frames[:12] for name, area in ranges.items() if frame in area), "")
        for i in range(4):
            sums[place][i] += int(match.group(i + 1))
    return {place: Counts(*values) for place, values in sums.items()}


def close(value, wanted, scale):
    return abs(value - wanted) <= TOLERANCE * max(wanted, scale)


class Bench:
    def __init__(self, options, folder):
        self.library, self.program, self.folder = options.library, options.program, folder
        self.static, self.linked = options.static, options.linked
        self.file = os.path.join(folder, "profile")

    def run(self, *arguments, profile=None, settings=(), program=None, preload=True):
        """Exit status, truth by place, lines on stderr."""
        settings = [f"NUMAHEAP_PROFILE={profile}", *settings] if profile else list(settings)
        env = test_environment(self.library if preload else None, settings)
        done = subprocess.run([program or self.program, *arguments], env=env, capture_output=True, text=True, timeout=120)
        truth = {}
        for line in done.stdout.splitlines():
            name, *numbers = line.split()
            truth[name] = Counts(*map(int, numbers))
        return done.returncode, truth, done.stderr.splitlines()

    def compare(self, truth, path=None, program=None):
        found = read_profile(path or self.file, program or self.program)
        for place, wanted in truth.items():
            got = found.get(place)
            expect(got is not None, f"{place} is missing")
            for field in Counts._fields:
                scale = wanted.all_objects if "objects" in field else wanted.all_bytes
                expect(close(getattr(got, field), getattr(wanted, field), scale if "live" in field else 0),
                       f"{place}: {field} is {getattr(got, field)}, not {getattr(wanted, field)}")
        return found

    def known(self, mode, *settings, **more):
        status, truth, said = self.run(mode, profile=f"{self.file},interval=2K", settings=settings, **more)
        expect(status == 0 and not said and truth, f"{end_of(status)}, {said}")
        return self.compare(truth, program=more.get("program"))


@case
def each_kind_is_counted(bench):
    bench.known("kinds")


@case
def without_restartable_sequences(bench):
    bench.known("kinds", "NUMAHEAP_RSEQ=off")


@case
def in_a_static_program(bench):
    if not bench.static:
        return "there is no static library"
    bench.known("kinds", program=bench.static, preload=False)
    return None


@case
def linked_into_the_program(bench):
    if not bench.linked:
        return "there is no static library"
    bench.known("kinds", program=bench.linked, preload=False)
    return None


@case
def eight_threads(bench):
    bench.known("threads")


@case
def only_who_was_asked_writes(bench):
    found = bench.known("fork")
    expect("place_child" not in found, "the child has written over it")


@case
def a_child_writes_a_file_of_its_own(bench):
    status, _, said = bench.run("fork", profile=f"{bench.file}.%p,interval=2K")
    expect(status == 0 and not said, f"{end_of(status)}, {said}")
    profiles = [read_profile(os.path.join(bench.folder, name), bench.program) for name in os.listdir(bench.folder)]
    expect(len(profiles) == 2, f"{len(profiles)} files")
    expect(sorted("place_child" in found for found in profiles) == [False, True], "not the child's and the parent's")


@case
def started_and_stopped_by_calls(bench):
    status, truth, said = bench.run("calls", bench.file)
    expect(status == 0 and not said, f"{end_of(status)}, {said}")
    found = bench.compare(truth)
    expect("place_before" not in found and "place_after" not in found, f"{sorted(found)}")


@case
def a_signal_asks_for_it(bench):
    status, truth, said = bench.run("signal", profile=f"{bench.file},interval=2K,signal=USR2")
    expect(status == 0 and not said, f"{end_of(status)}, {said}")
    expect("place_after" not in bench.compare(truth), "written later")


@case
def only_what_lives(bench):
    status, _, said = bench.run("kinds", profile=f"{bench.file},interval=2K,live")
    expect(status == 0 and not said, f"{end_of(status)}, {said}")
    found = read_profile(bench.file, bench.program)
    expect("place_brief" not in found and "place_small" in found, f"{sorted(found)}")


@case
def a_double_free_is_noticed(bench):
    status, _, said = bench.run("double", profile=f"{bench.file},interval=1")
    expect(status == -6 and len(said) == 1 and "numaheap: fatal: " in said[0], f"{end_of(status)}, {said}")


@case
def marks_in_the_name(bench):
    status, _, said = bench.run("fork", profile=f"{bench.folder}/%e.%r.100%%", settings=["PMI_RANK=7"])
    expect(status == 0 and not said, f"{end_of(status)}, {said}")
    name = os.path.basename(bench.program) + ".7.100%"
    expect(os.listdir(bench.folder) == [name], f"{os.listdir(bench.folder)}")


@case
def what_cannot_be_done_is_said(bench):
    for profile, words in (("x,interval=0", "interval takes a size"), ("x,signal=HUGO", "signal takes"),
                           ("x,often", '"often" is none of'), (",live", "a file is missing")):
        status, _, said = bench.run("signal", profile=profile, settings=["NUMAHEAP_STRICT=1"])
        expect(status == 2 and len(said) == 1 and words in said[0], f"{profile}: {end_of(status)}, {said}")
    status, _, said = bench.run("double", profile="/nowhere/at/all,interval=1G")
    status, _, said = bench.run("fork", profile="/nowhere/at/all")
    expect(status == 0 and len(said) == 1 and "cannot write /nowhere/at/all" in said[0], f"{end_of(status)}, {said}")


@case
def pprof_reads_it(bench):
    pprof = shutil.which("google-pprof")
    if pprof is None:
        return "google-pprof is missing (package google-perftools)"
    bench.known("kinds")
    done = subprocess.run([pprof, "--text", "--alloc_objects", bench.program, bench.file], capture_output=True, text=True,
                          timeout=120)
    first = [line for line in done.stdout.splitlines() if not line.startswith("Total")][0]
    expect("place_small" in first, f"the first line is {first!r}\n{done.stderr}")
    return None


if __name__ == "__main__":
    cases.run_linked_in_all_ways(__doc__, Bench)
