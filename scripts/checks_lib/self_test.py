"""Plants one violation of each kind in a clean tree and expects exactly the check that is meant for it to find it."""
import os
import pathlib
import shutil
import subprocess
import tempfile

import library_checks
import source_checks

CLEAN = {
    "README.md": "# clean\n",
    "docs/README.md": "# docs\n",
    library_checks.OPTIONS_PAGE: f"# options\n{library_checks.BEGIN}\n| a |\n{library_checks.END}\n",
    "src/README.md": "# src\n",
    "src/base/README.md": "# base\n",
    "src/base/units.h": '#pragma once\n#include <cstddef>\n// mmap( in a comment, "munmap(" and 1\'000\n',
    "src/os/README.md": "# os\n",
    "src/os/linux.cc": '#include "base/units.h"\n#include <sys/mman.h>\nvoid f() { mmap(0, 1, 0, 0, -1, 0); }\n'
                       'long g() { return SYS_mbind; }\n',
    "src/heap/README.md": "# heap\n",
    "src/heap/heap.cc": '#include "base/units.h"\n#include "os/os.h"\n#include "page/page.h"\n'
                        'int x = ops->madvise(0);\n',
    "numa/README.md": "# numa\n",
    "numa/topology.cc": '#include "numa/topology.h"\n#include "os/os.h"\n',
    "src/cli/README.md": "# cli\n",
    "src/cli/main.cc": '#include "numa/topology.h"\n#include "numaheap/numaheap.h"\n',
    "include/numaheap/README.md": "# include\n",
    "include/numaheap/numaheap.h": "#include <stddef.h>\n",
    "src/api/README.md": "# api\n",
    "src/api/exports.txt": "# comment\nmalloc\nfree\n",
    "tests/README.md": "# tests\n",
    "scripts/README.md": "# scripts\n",
    "tests/page/README.md": "# tests\n",
    "tests/page/data/input.txt": "no README needed here\n",
}

# check that must object, file, text added to it
SOURCE_VIOLATIONS = [
    ("layering", "src/base/units.h", '#include "os/os.h"\n'),
    ("layering", "src/heap/heap.cc", '#  include <cache/mcache.h>\n'),
    ("layering", "numa/topology.cc", '#include "page/page.h"\n'),
    ("layering", "src/os/linux.cc", '#include "numa/topology.h"\n'),
    ("layering", "src/cli/main.cc", '#include "heap/mheap.h"\n'),
    ("layering", "include/numaheap/numaheap.h", '#include "base/units.h"\n'),
    ("layering", "src/heap/heap.cc", '#include "mheap.h"\n'),
    ("layering", "src/heap/heap.cc", '#include "../page/page.h"\n'),
    ("memory calls", "src/heap/heap.cc", "int y = ::madvise (p, 1, 4);\n"),
    ("memory calls", "numa/topology.cc", "long z = syscall(SYS_mbind, 0);\n"),
    ("memory calls", "src/os/linux.cc", "long z = syscall(SYS_mmap, 0);\n"),
    ("memory calls", "src/heap/heap.cc", "#include <sys/mman.h>\n"),
    ("memory calls", "src/cli/main.cc", "// a comment\n/* and */ void* p = mmap(0, 1, 0, 0, -1, 0);\n"),
    ("file length", "src/heap/heap.cc", "\n" * source_checks.MAX_LINES),
    ("line length", "scripts/tool", "#" * (source_checks.MAX_COLUMNS + 1) + "\n"),
    ("unfinished work", "src/heap/heap.cc", "// TO" + "DO: later\n"),
    ("READMEs", "src/page/page.cc", "\n"),
    ("READMEs", "tests/heap/heap_test.cc", "\n"),
    ("machine paths", "src/heap/heap.cc", "// see /ro" + "ot/notes\n"),
]


def plant(root, changes=()):
    for path, text in list(CLEAN.items()) + list(changes):
        full = pathlib.Path(root) / path
        full.parent.mkdir(parents=True, exist_ok=True)
        with open(full, "a", encoding="utf-8") as file:
            file.write(text)


def source_failures():
    failures = []
    for wanted, path, text in [(None, "README.md", "")] + SOURCE_VIOLATIONS:
        with tempfile.TemporaryDirectory() as root:
            plant(root, [(path, text)])
            objected = {name for name, check in source_checks.CHECKS.items() if check(root)}
            if objected != ({wanted} if wanted else set()):
                failures.append(f"{wanted or 'nothing'} should object to {path} + {text[:60]!r}; "
                                f"did: {sorted(objected)}")
    return failures, 1 + len(SOURCE_VIOLATIONS)


GOOD = 'extern "C" { void* malloc(unsigned long) { return 0; } void free(void*) {} }\n'
SHARED = ["-shared", "-fPIC", "-nodefaultlibs", "-lc", "-Wl,-z,now", "-Wl,-z,nodelete"]
# what is wrong, sources of the library, options
LIBRARY_VIOLATIONS = [
    (None, [GOOD], SHARED),
    (None, [GOOD + "__attribute__((weak)) void handler(); static void (*volatile keep)() = handler;\n"], SHARED),
    ("imports _Z7handler", [GOOD + "void handler(); static void (*volatile keep)() = handler;\n"], SHARED),
    ("NEEDED libstdc++", [GOOD], ["-shared", "-fPIC", "-Wl,--no-as-needed", "-lstdc++", "-Wl,-z,now,-z,nodelete"]),
    ("exports leak", [GOOD + 'extern "C" void leak() {}\n'], SHARED),
    ("does not export free", ['extern "C" void* malloc(unsigned long) { return 0; }\n'], SHARED),
    ("imports fopen", [GOOD + '#include <stdio.h>\n__attribute__((visibility("hidden"))) void* f() { '
                      'return fopen("/", "r"); }\nstatic void* (*volatile keep)() = f;\n'], SHARED),
    ("-z nodelete", [GOOD], SHARED[:-1]),
    ("-z now", [GOOD], ["-Wl,-z,lazy" if o.endswith("now") else o for o in SHARED]),
    ("initial-exec", [GOOD + '__attribute__((visibility("hidden"))) extern __thread int t; __thread int t;\n'
                     '__attribute__((visibility("hidden"))) int* f() { return &t; }\n'], SHARED),
]
# what is wrong, the sources of libnumaheap.o and of a second member
ARCHIVE_VIOLATIONS = [
    (None, GOOD, ""),
    ("free is in second.o", 'extern "C" void* malloc(unsigned long) { return 0; }\n', 'extern "C" void free(void*) {}\n'),
    ("exports leak", GOOD + 'extern "C" void leak() {}\n', ""),
    ("_Z4leakv is in libnumaheap.o", GOOD + "void leak() {}\n", ""),
    ("_Z4leakv is not weak", GOOD, "void leak() {}\n"),
    ("COMDAT groups", GOOD + "inline int f() { return 1; } static int (*volatile keep)() = f;\n", ""),
    ("imports _Z7outsidev", GOOD + "void outside(); static void (*volatile keep)() = outside;\n", ""),
]


def library_failures():
    compiler = os.environ.get("CXX") or shutil.which("g++") or "c++"
    failures = []

    def expect(wanted, violations, what):
        if not (violations == [] if wanted is None else any(wanted in v for v in violations)):
            failures.append(f"{what}: expected {wanted or 'no violation'}; got {violations}")

    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        plant(root)
        for wanted, sources, options in LIBRARY_VIOLATIONS:
            source = root / "library.cc"
            source.write_text("".join(sources))
            subprocess.run([compiler, "-fno-builtin", str(source), "-o", str(root / "libnumaheap.so"), *options],
                           check=True)
            expect(wanted, library_checks.shared_library(root, root), "shared library")
        for wanted, *sources in ARCHIVE_VIOLATIONS:
            objects = [str(root / "libnumaheap.o"), str(root / "second.o")]
            for text, target in zip(sources, objects):
                source = root / "member.cc"
                source.write_text(text)
                subprocess.run([compiler, "-fno-builtin", "-c", str(source), "-o", target], check=True)
            library = root / "libnumaheap.a"
            library.unlink(missing_ok=True)
            subprocess.run(["ar", "rc", str(library), *objects], check=True)
            expect(wanted, library_checks.static_library(root, root), "static library")
        tool = root / "numaheap"
        for wanted, table in ((None, "| a |"), ("table of options", "| b |")):
            tool.write_text(f"#!/bin/sh\necho '{table}'\n")
            tool.chmod(0o755)
            expect(wanted, library_checks.options_page(root, root), "options page")
        library_checks.update_options(root, root)
        expect(None, library_checks.options_page(root, root), "options page after --update-options")
    return failures, len(LIBRARY_VIOLATIONS) + len(ARCHIVE_VIOLATIONS) + 3


def run(_root):
    failures, count = source_failures()
    more, more_count = library_failures()
    for failure in failures + more:
        print(f"FAILED: {failure}")
    print(f"{count + more_count - len(failures + more)} of {count + more_count} planted cases judged as expected")
    return 1 if failures or more else 0
