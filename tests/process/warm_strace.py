#!/usr/bin/env python3
"""Counts from outside: the memory system calls that strace sees between the two marks of warm_no_kernel.

    warm_strace.py --library LIB PROGRAM      PROGRAM is warm_no_kernel
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

MARK = "getpgid(-4242)"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library")
    parser.add_argument("program")
    arguments = parser.parse_args()
    if shutil.which("strace") is None:
        sys.exit("warm_strace.py: strace is missing (package strace)")

    with tempfile.TemporaryDirectory(prefix="nh-strace-") as folder:
        log = os.path.join(folder, "log")
        # The library is preloaded into the program only, not into strace.
        command = ["strace", "-f", "-qq", "-o", log, "-e", "trace=%memory,getpgid"]
        if arguments.library:
            command += ["-E", f"LD_PRELOAD={os.path.realpath(arguments.library)}",
                        "-E", f"NH_TEST_LIBRARY={os.path.realpath(arguments.library)}"]
        env = {name: value for name, value in os.environ.items() if not name.startswith("NUMAHEAP_")}
        # Under strace the program itself measures the same; its own verdict is not asked here.
        run = subprocess.run(command + [arguments.program, "ten_million_operations"], env=env, timeout=300,
                             capture_output=True, text=True, check=False)
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()

    marks = [number for number, line in enumerate(lines) if MARK in line and "resumed" not in line]
    if len(marks) != 2:
        sys.exit(f"expected two marks in the log of strace, found {len(marks)}; the program said:\n{run.stderr}")
    before = sum(1 for line in lines[:marks[0]] if re.search(r"\b(mmap|brk|munmap)\(", line))
    if before == 0:
        sys.exit("strace saw no memory call at all, not even at start-up: it does not count what it should")
    seen = [line for line in lines[marks[0] + 1:marks[1]] if MARK not in line]
    if seen:
        sys.exit("\n".join([f"{len(seen)} memory system calls while warm:"] + seen[:20]))
    print(f"no memory system call while warm ({before} before)")


if __name__ == "__main__":
    main()
