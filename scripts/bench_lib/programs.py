"""Runs workload programs (bench/common/README.md tells how they are called) and does not believe what they say."""
import json
import os
import subprocess
from dataclasses import dataclass

TIMEOUT_SECONDS = 300


class Failure(Exception):
    """A program or a row that could not be measured; the text is one line."""


@dataclass(frozen=True)
class Row:
    """A row of a program, as its --list tells."""
    program: str
    name: str
    unit: str
    what: str


@dataclass(frozen=True)
class Measurement:
    """What one run of a row gave."""
    value: float
    peak_kib: int
    checksum: str


def call(command, environment):
    try:
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors="replace", timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Failure(f"still running after {TIMEOUT_SECONDS} s") from None
    except OSError as error:
        raise Failure(f"cannot be started: {error.strerror}") from None
    if done.returncode != 0:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
        said = done.stderr.strip().splitlines()
        raise Failure(f"{how}: {said[-1]}" if said else how)
    return done.stdout


def list_rows(program):
    """The rows of a program, on the allocator it is linked with."""
    name = os.path.basename(program)
    try:
        listing = call([program, "--list"], None)
    except Failure as failure:
        raise Failure(f"{name} --list: {failure}") from None
    rows = []
    for line in listing.splitlines():
        fields = line.split("\t")
        if len(fields) != 3:
            raise Failure(f"{name} --list: not understood: {line}")
        rows.append(Row(str(program), *fields))
    return rows


def parse(output, row, allocator):
    """The measurement in a program's output; refuses one that was made on another malloc."""
    lines = output.strip().splitlines()
    try:
        found = json.loads(lines[-1])
        measurement = Measurement(float(found["value"]), int(found["peak_kib"]), str(found["checksum"]))
        named, unit, path = found["row"], found["unit"], found["allocator"]
    except (IndexError, KeyError, TypeError, ValueError):
        raise Failure("printed no result that can be understood") from None
    if (named, unit) != (row.name, row.unit):
        raise Failure(f"answered with the row {named} [{unit}]")
    if not allocator.owns(path):
        raise Failure(f"malloc resolves to {path or 'nothing'}, not to {allocator.library or 'libc'}")
    if not 0 < measurement.value < float("inf"):
        raise Failure(f"the value is {measurement.value}")
    return measurement


def measure(row, allocator, quick):
    command = [row.program, row.name] + (["--quick"] if quick else [])
    return parse(call(command, allocator.environment()), row, allocator)
