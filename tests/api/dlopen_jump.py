"""dlopen_jump.py LIBRARY: libnumaheap's dlopen must hand on its caller's return address: libc looks up the caller's
RUNPATH by it. So the machine code has to leave the function by an indirect jump, with the stack as it was found, and must not
call what it hands on to.
"""
import argparse
import re
import subprocess
import sys


def function(objdump, library, name):
    """The instructions of an exported function, without the part that the compiler has put aside as unlikely."""
    table = subprocess.run([objdump, "-T", library], check=True, capture_output=True, text=True).stdout
    match = re.search(rf"^([0-9a-f]+) .* \.text\t([0-9a-f]+) .*\b{name}$", table, re.M)
    if match is None:
        sys.exit(f"FAILED: {library} does not export {name}")
    start, size = (int(field, 16) for field in match.groups())
    text = subprocess.run([objdump, "-d", "--no-show-raw-insn", f"--start-address={start}", f"--stop-address={start + size}",
                           library], check=True, capture_output=True, text=True).stdout
    return [line.split("\t", 1)[1].split("#")[0].strip() for line in text.splitlines() if re.match(r"^ +[0-9a-f]+:\t", line)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--objdump", default="objdump")
    parser.add_argument("library")
    options = parser.parse_args()
    code = function(options.objdump, options.library, "dlopen")
    prefix = r"^(?:bnd |notrack |repz )*"
    wrong = [i for i in code if re.match(prefix + r"(call|push|pop|ret|enter|leave)|.*%[re]?sp\b", i)]
    if not any(re.match(prefix + r"jmp +\*", i) for i in code):
        wrong.append("no indirect jump")
    for what in wrong:
        print(f"FAILED: {what}")
    if wrong:
        print("\n".join("    " + i for i in code))
    return 1 if wrong else 0


sys.exit(main())
