#!/usr/bin/env python3
"""Runs rows of a workload program in short form on the system's malloc and on another one: both must do the same work.

    checksums_test.py LIBRARY PROGRAM ROW...
"""
import json
import os
import subprocess
import sys


def run(program, row, library):
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    if library:
        environment["LD_PRELOAD"] = library
    done = subprocess.run([program, row, "--quick"], env=environment, capture_output=True, text=True, timeout=60,
                          check=False)
    lines = done.stdout.splitlines()
    if done.returncode != 0 or len(lines) != 1:
        where = library or "libc"
        raise SystemExit(f"{row} on {where}: exit status {done.returncode}, {len(lines)} lines\n{done.stderr}")
    return json.loads(lines[0])


def faults(row, unit, library, ours, theirs):
    if ours["checksum"] != theirs["checksum"]:
        yield f"check sums {ours['checksum']} and {theirs['checksum']}"
    if os.path.realpath(ours["allocator"]) != os.path.realpath(library):
        yield f"ran on {ours['allocator']}"
    if not os.path.basename(theirs["allocator"]).startswith("libc.so"):
        yield f"ran on {theirs['allocator']} instead of libc's malloc"
    for result in ours, theirs:
        if (result["row"], result["unit"]) != (row, unit) or not result["value"] > 0 or not result["peak_kib"] > 0:
            yield f"not a result of {row} in {unit}: {result}"


def main():
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    library, program, *rows = sys.argv[1:]
    listing = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout
    units = {name: unit for name, unit, _ in (line.split("\t") for line in listing.splitlines())}
    failed = 0
    for row in rows:
        if row not in units:
            print(f"{row}: not in --list")
            failed += 1
            continue
        found = list(faults(row, units[row], library, run(program, row, library), run(program, row, None)))
        print(f"{row}: " + ("; ".join(found) or "ok"))
        failed += bool(found)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
