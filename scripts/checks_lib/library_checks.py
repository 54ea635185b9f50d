"""Checks of what was built: each takes the root of the tree and a build directory and returns a list of violations."""
import pathlib
import re
import subprocess

# ld-linux is part of libc: it defines __rseq_offset and __tls_get_addr.
ALLOWED_NEEDED = re.compile(r"libc\.so\.6|ld-linux[-\w]*\.so\.\d+")
# Functions of libc that allocate or take stdio's locks: called from inside malloc they recurse or deadlock.
# fputs and fwrite are left out: malloc_info() writes to the stream it is given.
FORBIDDEN_IMPORTS = set("""
malloc calloc realloc free memalign aligned_alloc posix_memalign reallocarray valloc pvalloc
printf fprintf vprintf vfprintf dprintf vdprintf sprintf snprintf vsnprintf asprintf vasprintf puts putchar perror
__printf_chk __fprintf_chk __vfprintf_chk __sprintf_chk __snprintf_chk __vsnprintf_chk __asprintf_chk
fopen fdopen freopen getline getdelim popen opendir fdopendir scandir strdup strndup qsort setenv putenv
""".split())
FORBIDDEN_IMPORT_PATTERN = re.compile(r"_Z|__cxa_(?!finalize|atexit)|_Unwind_|__gxx_")

OPTIONS_PAGE = "docs/options.md"
BEGIN, END = "<!-- options:begin -->", "<!-- options:end -->"


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def expected_exports(root, shared):
    """Lines that begin with "shared:" count for the shared library only."""
    lines = (pathlib.Path(root) / "src/api/exports.txt").read_text().splitlines()
    names = [line for line in lines if line and not line.startswith("#")]
    return {name.removeprefix("shared: ") for name in names if shared or not name.startswith("shared: ")}


def compare_exports(root, names, library):
    expected = expected_exports(root, library.endswith(".so"))
    extra = [f"{library}: exports {name}, which src/api/exports.txt does not list" for name in sorted(names - expected)]
    return extra + [f"{library}: does not export {name}" for name in sorted(expected - names)]


def forbidden_imports(names, library):
    return [f"{library}: imports {name}" for name in sorted(names)
            if name in FORBIDDEN_IMPORTS or FORBIDDEN_IMPORT_PATTERN.match(name)]


def symbols(library, *options):
    """(name without version, type letter) of every symbol."""
    result = set()
    for line in output("nm", "--format=posix", *options, str(library)).splitlines():
        fields = line.split()
        if len(fields) >= 2 and not line.endswith(":"):
            result.add((fields[0].split("@")[0], fields[1]))
    return result


def strong_imports(library, option):
    """A weak reference needs no library: it is how operator new finds the program's new_handler."""
    return {name for name, kind in symbols(library, option, "--undefined-only") if kind not in "wv"}


def shared_library(root, build):
    library = pathlib.Path(build) / "libnumaheap.so"
    found = []
    dynamic = output("readelf", "--dynamic", "--wide", str(library))
    for needed in re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic):
        if not ALLOWED_NEEDED.fullmatch(needed):
            found.append(f"{library.name}: NEEDED {needed}; it may need libc and nothing else")
    flags = " ".join(re.findall(r"\(FLAGS(?:_1)?\)(.*)", dynamic)).split()
    found += [f"{library.name}: not linked with -z {flag.lower()}" for flag in ("NOW", "NODELETE") if flag not in flags]
    if "TEXTREL" in dynamic:
        found.append(f"{library.name}: has relocations in its code")
    found += compare_exports(root, {n for n, _ in symbols(library, "-D", "--defined-only")}, library.name)
    found += forbidden_imports(strong_imports(library, "-D"), library.name)
    # General-dynamic TLS is allocated lazily, by malloc.
    if "R_X86_64_DTPMOD64" in output("readelf", "--relocs", "--wide", str(library)):
        found.append(f"{library.name}: has thread-local variables that are not initial-exec")
    return found


# How operator new and delete are called between the members of the archive (src/api/static_operators.S.in).
INTERNAL = "numaheap_internal"
CXX_RUNTIME = {"_ZSt15get_new_handlerv", "_ZSt17__throw_bad_allocv"}


def static_library(root, build):
    library = pathlib.Path(build) / "libnumaheap.a"
    found = []
    exports = set()
    for line in output("nm", "--format=posix", "-A", "-g", "--defined-only", str(library)).splitlines():
        member, name, kind = re.match(r".*\[(.*)\]: (\S+) (\S)", line).groups()
        if name.startswith(INTERNAL):
            continue
        exports.add(name)
        is_operator = name.startswith("_Z")
        if (member == "libnumaheap.o") == is_operator:
            found.append(f"{library.name}: {name} is in {member}; a program must get all of the C family or none, and "
                         "what needs the C++ runtime only if it is C++")
        if is_operator and kind not in "WV":
            found.append(f"{library.name}: {name} is not weak; a program could not replace it")
    found += compare_exports(root, exports, library.name)
    # A group that the linker drops in favour of the program's copy leaves our local references dangling.
    if "COMDAT" in output("readelf", "--section-groups", "--wide", str(library)):
        found.append(f"{library.name}: has COMDAT groups")
    found += forbidden_imports(strong_imports(library, "-g") - CXX_RUNTIME, library.name)
    return found


def option_table(build):
    return output(str(pathlib.Path(build) / "numaheap"), "options", "--markdown").strip()


def split_options_page(root):
    text = (pathlib.Path(root) / OPTIONS_PAGE).read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        return None
    head, rest = text.split(BEGIN)
    table, tail = rest.split(END)
    return head, table.strip(), tail


def options_page(root, build):
    parts = split_options_page(root)
    if parts is None:
        return [f"{OPTIONS_PAGE}: no single {BEGIN} ... {END}"]
    if parts[1] != option_table(build):
        return [f"{OPTIONS_PAGE}: the table of options is not what `numaheap options --markdown` says; "
                "scripts/checks --build DIR --update-options rewrites it"]
    return []


def update_options(root, build):
    head, _, tail = split_options_page(root)
    (pathlib.Path(root) / OPTIONS_PAGE).write_text(f"{head}{BEGIN}\n{option_table(build)}\n{END}{tail}")


CHECKS = {
    "shared library": shared_library,
    "static library": static_library,
    "options page": options_page,
}
