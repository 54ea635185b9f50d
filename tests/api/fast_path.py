"""fast_path.py [--update] LIBRARY GOLDEN: reads the machine code of malloc, free, operator new and delete, and their kin.

The likely path of each is followed from the entry to its ret: the compiler lays it out so that conditional jumps fall
through, and unconditional ones are followed. Whatever compiler built it, this path may neither call nor jump into
another function, nor use a lock prefix, a fence, a system call or the stack. Where the library was built as the golden
file was (g++ 12, optimised), the number of its instructions must be the one written there: a change that costs
instructions is then a decision, taken by running this with --update, and not an accident.
"""
import argparse
import re
import subprocess
import sys

# What they are called among people.
FUNCTIONS = {
    "malloc": "malloc(size)",
    "free": "free(p)",
    "_Znwm": "operator new(size)",
    "_ZdlPv": "operator delete(p)",
    "_ZdlPvm": "operator delete(p, size)",
    "memalign": "aligned_alloc(alignment, size)",
    "posix_memalign": "posix_memalign(p, alignment, size)",
    "_ZnwmSt11align_val_t": "operator new(size, alignment)",
    "_ZdlPvmSt11align_val_t": "operator delete(p, size, alignment)",
}
GOLDEN_COMPILER = "GNU 12."
GOLDEN_BUILD_TYPES = ("Release", "RelWithDebInfo")
LONGEST = 200  # instructions; beyond this the path was lost

FORBIDDEN = [
    (re.compile(r"^(bnd |addr32 |notrack )*call"), "calls"),
    (re.compile(r"^lock |^xchg\b.*\("), "has a locked instruction"),
    (re.compile(r"^[lms]fence|^cpuid|^pause"), "has a fence"),
    (re.compile(r"^syscall|^int "), "enters the kernel"),
    (re.compile(r"^push|^pop|^enter|^leave"), "pushes or pops"),
    (re.compile(r"%[re]?sp\b"), "uses the stack"),
]
JUMP = re.compile(r"^(?:bnd |addr32 |notrack )*jmp +([0-9a-f]+) ")


def addresses(objdump, library):
    """Name -> range of addresses of the exported functions."""
    table = subprocess.run([objdump, "-T", library], check=True, capture_output=True, text=True).stdout
    found = {}
    for line in table.splitlines():
        fields = line.split()
        if len(fields) >= 6 and ".text" in fields and fields[-1] in FUNCTIONS:
            start, size = int(fields[0], 16), int(fields[fields.index(".text") + 1], 16)
            found[fields[-1]] = range(start, start + size)
    return found


def disassembly(objdump, library):
    """Address -> (instruction, address of the next one), of the whole text section; no-ops that pad are kept."""
    text = subprocess.run([objdump, "-d", "-j", ".text", "--no-show-raw-insn", library],
                          check=True, capture_output=True, text=True).stdout
    lines = [(int(m.group(1), 16), m.group(2).split("#")[0].strip())
             for m in re.finditer(r"^ +([0-9a-f]+):\t(.*)$", text, re.M)]
    after = [address for address, _ in lines[1:]] + [None]
    return {address: (instruction, next_) for (address, instruction), next_ in zip(lines, after)}


def likely_path(code, function):
    """Instructions from the entry to the ret, and what is wrong with them."""
    path, wrong = [], []
    at = function.start
    while len(path) < LONGEST:
        if at not in function or at not in code:
            return path, wrong + ["goes on in another function"]
        instruction, next_ = code[at]
        path.append(instruction)
        wrong += [f"{what}: {instruction}" for pattern, what in FORBIDDEN if pattern.search(instruction)]
        if re.match(r"^(repz |bnd )?ret", instruction):
            return path, wrong
        jump = JUMP.match(instruction)
        if jump:
            at = int(jump.group(1), 16)
        elif instruction.startswith(("jmp", "ud2", "hlt", "bnd jmp", "notrack jmp")):
            return path, wrong + [f"goes away: {instruction}"]
        else:
            at = next_
    return path, wrong + [f"no ret within {LONGEST} instructions"]


def read_golden(path):
    golden = {}
    with open(path) as file:
        for line in file:
            fields = line.split("#")[0].split()
            if fields:
                golden[fields[0]] = int(fields[1])
    return golden


def write_golden(path, counts):
    with open(path, "w") as file:
        file.write("# Instructions on the likely path, from entry to ret, as g++ 12 -O2 compiles it.\n"
                   "# Written by tests/api/fast_path.py --update LIBRARY GOLDEN.\n")
        for name, what in FUNCTIONS.items():
            file.write(f"{name:<22} {counts[name]:>3}  # {what}\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--update", action="store_true", help="write the golden file")
    parser.add_argument("--show", action="store_true", help="print the instructions")
    parser.add_argument("--objdump", default="objdump")
    parser.add_argument("--compiler", default="GNU 12.2.0", help="what built the library")
    parser.add_argument("--build-type", default="RelWithDebInfo")
    parser.add_argument("library")
    parser.add_argument("golden")
    options = parser.parse_args()

    if options.build_type == "Debug":
        print("skipped: a debug build has no fast path")
        return 0
    functions = addresses(options.objdump, options.library)
    missing = sorted(set(FUNCTIONS) - set(functions))
    if missing:
        print(f"not exported: {', '.join(missing)}")
        return 1
    code = disassembly(options.objdump, options.library)
    counts, failed = {}, False
    for name, what in FUNCTIONS.items():
        path, wrong = likely_path(code, functions[name])
        counts[name] = len(path)
        print(f"{what}: {len(path)} instructions")
        if options.show or wrong:
            print("\n".join("    " + instruction for instruction in path))
        for problem in wrong:
            failed = True
            print(f"  FAILED: {what} {problem}")
    if failed:
        return 1
    if options.update:
        write_golden(options.golden, counts)
        print(f"written: {options.golden}")
        return 0
    if not options.compiler.startswith(GOLDEN_COMPILER) or options.build_type not in GOLDEN_BUILD_TYPES:
        print(f"not compared with the golden file, which is for {GOLDEN_COMPILER}x optimised: this is "
              f"{options.compiler}, {options.build_type or 'no build type'}; calls, locks and stack use were checked")
        return 0
    golden = read_golden(options.golden)
    for name, what in FUNCTIONS.items():
        if counts[name] != golden.get(name):
            failed = True
            print(f"  FAILED: {what} has {counts[name]} instructions, the golden file says {golden.get(name)}; if that "
                  f"is meant, run {sys.argv[0]} --update")
    return 1 if failed else 0


sys.exit(main())
