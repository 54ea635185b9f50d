"""Cases written in Python: each a function that gets what the script prepared, run in a folder of its own.

    @case
    def something_holds(bench):
        expect(answer == 42, f"{answer}")

A case that cannot be tried here returns the reason, or raises machine.Unavailable.
"""

import argparse
import re
import sys
import tempfile

from . import machine

SKIPPED = 77  # SKIP_RETURN_CODE in CMakeLists.txt
CASES = []


def case(body):
    CASES.append(body)
    return body


def expect(condition, text):
    if not condition:
        raise AssertionError(text)


def run(only, prepare):
    """Runs the cases whose names match, prints how each ended, and ends the script where one failed or none was tried.

    prepare: makes what a case gets, from the path of an empty folder."""
    failed, tried, matching = [], 0, [body for body in CASES if re.search(only, body.__name__)]
    if not matching:
        sys.exit("no case matches")
    for body in matching:
        with tempfile.TemporaryDirectory(prefix="nh-case-") as folder:
            try:
                reason = body(prepare(folder))
            except machine.Unavailable as error:
                reason = str(error)
            except AssertionError as error:
                failed.append(body.__name__)
                print(f"FAIL {body.__name__}\n     {error}", flush=True)
                continue
        tried += reason is None
        print(f"ok   {body.__name__}" if reason is None else f"skipped: {body.__name__}: {reason}", flush=True)
    if failed:
        sys.exit(f"{len(failed)} of {len(matching)} cases failed: {' '.join(failed)}")
    if not tried:
        sys.exit(SKIPPED)
    print(f"{tried} cases passed, {len(matching) - tried} skipped")


def run_linked_in_all_ways(description, make_bench):
    """The main function of a script whose cases run one program, preloaded and linked. make_bench: of options and a folder."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True)
    parser.add_argument("--program", required=True)
    parser.add_argument("--static", help="the program, linked to the archive and static")
    parser.add_argument("--linked", help="the same, not static")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    run(options.only, lambda folder: make_bench(options, folder))
