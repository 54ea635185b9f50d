#!/usr/bin/env python3
"""Runs every case of a test program in a process of its own and judges how it ended.

    run_cases.py --library build/release/libnumaheap.so PROGRAM    under LD_PRELOAD
    run_cases.py PROGRAM     as it is: the library is linked in, or the tests themselves are judged on libc's malloc

A case passes when it exits with 0, or, where the program announces "fatal WORDS", when it ends with SIGABRT after
exactly one line on stderr that begins with "numaheap: fatal: ", matches WORDS and names the pointer that the program
printed beforehand.
"""

import argparse
import os
import re
import resource
import signal
import subprocess
import sys
import time

FATAL_PREFIX = "numaheap: fatal: "


def test_environment(library, settings):
    """The environment for a program under test: no setting of the caller's leaks in, the library is preloaded."""
    env = dict(os.environ)
    env.pop("LD_PRELOAD", None)
    for name in [n for n in env if n.startswith("NUMAHEAP_")]:
        del env[name]
    if library:
        library = os.path.realpath(library)
        if not os.path.exists(library):
            sys.exit(f"{library} does not exist")
        env.update(LD_PRELOAD=library, NH_TEST_LIBRARY=library)
    for setting in settings:
        name, _, value = setting.partition("=")
        env[name] = value
    return env


def list_cases(program):
    text = subprocess.run([program, "--list"], check=True, capture_output=True, text=True, timeout=30).stdout
    cases = [line.split("\t") for line in text.splitlines()]
    if not cases:
        sys.exit(f"run_cases.py: {program} has no cases")
    return cases


def end_of(code):
    if code < 0:
        return signal.Signals(-code).name
    return f"exit status {code}"


def judge_fatal(words, code, out, err):
    """None where the process ended as a misuse must end, else what is wrong."""
    if code != -signal.SIGABRT:
        return f"expected SIGABRT, got {end_of(code)}"
    lines = err.splitlines()
    if len(lines) != 1 or not err.endswith("\n"):
        return f"expected exactly one line on stderr, got {len(lines)}"
    if not lines[0].startswith(FATAL_PREFIX):
        return f"the line does not begin with '{FATAL_PREFIX}'"
    if not re.search(words, lines[0]):
        return f"the line does not match '{words}'"
    announced = re.findall(r"^pointer (0x[0-9a-f]+)$", out, re.MULTILINE)
    if not announced:
        return "the program announced no pointer"
    if not re.search(re.escape(announced[-1]) + r"(?![0-9a-f])", lines[0], re.IGNORECASE):
        return f"the line does not name {announced[-1]}"
    return None


def judge_pass(code, err):
    if code != 0:
        return f"expected exit status 0, got {end_of(code)}"
    if FATAL_PREFIX in err:
        return "a fatal line on stderr of a process that ended with 0"
    return None


def run_case(program, name, expectation, env, timeout):
    """Returns (what is wrong or None, stderr)."""
    # A session of its own, so that a hanging case can be ended together with its children.
    process = subprocess.Popen([program, name], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        return f"still running after {timeout} s", err
    if expectation == "pass":
        return judge_pass(process.returncode, err), err
    return judge_fatal(expectation.removeprefix("fatal "), process.returncode, out, err), err


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", help="libnumaheap.so, preloaded")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--timeout", type=float, default=60, help="seconds per case")
    parser.add_argument("--only", help="a regular expression: cases to run")
    parser.add_argument("program")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    env = test_environment(arguments.library, arguments.env)

    failed = []
    cases = [c for c in list_cases(arguments.program) if not arguments.only or re.search(arguments.only, c[0])]
    for name, expectation in cases:
        start = time.monotonic()
        wrong, err = run_case(arguments.program, name, expectation, env, arguments.timeout)
        seconds = time.monotonic() - start
        print(f"{'FAIL' if wrong else 'ok  '} {name} ({seconds:.2f} s)", flush=True)
        if wrong:
            failed.append(name)
            print(f"     {wrong}")
        if err.strip() and (wrong or expectation == "pass"):
            for line in err.splitlines()[:30]:
                print(f"     stderr: {line}")
    if not cases:
        sys.exit("run_cases.py: no case matches")
    if failed:
        sys.exit(f"{len(failed)} of {len(cases)} cases failed: {' '.join(failed)}")
    print(f"{len(cases)} cases passed")


if __name__ == "__main__":
    main()
