"""Checks that need only the sources. Each takes the root of a tree and returns a list of violations, one line each."""
import os
import re

LAYERS = ["base", "os", "numa", "page", "heap", "central", "cache", "process", "large", "api"]
# What may be included from each folder, beside the system's headers. The tool sees the library through its public
# headers; base, os and numa are linked into it because it parses options and reads the topology as the library does.
MAY_INCLUDE = {layer: set(LAYERS[: i + 1]) for i, layer in enumerate(LAYERS)}
for top in ("process", "api"):
    MAY_INCLUDE[top].add("numaheap")
MAY_INCLUDE["cli"] = {"cli", "base", "os", "numa", "numaheap"}
MAY_INCLUDE["include"] = {"numaheap"}
OURS = {*LAYERS, "cli", "numaheap"}

MAX_LINES = 450
# The rule is 120; a comment that runs a word over is not worth a red build.
MAX_COLUMNS = 132
CODE = (".h", ".hpp", ".cc", ".c", ".def", ".inc")
SKIPPED_FOLDERS = {"build", "__pycache__"}


def files(root):
    """(path relative to root, text) of every text file of the tree; build trees and hidden folders left out."""
    for folder, below, names in os.walk(root):
        below[:] = sorted(b for b in below if b not in SKIPPED_FOLDERS and (not b.startswith(".") or b == ".ci"))
        for name in sorted(set(names) - {".git"}):  # a file in a linked worktree
            full = os.path.join(folder, name)
            with open(full, "rb") as file:
                data = file.read()
            if b"\0" not in data[:8192]:
                yield os.path.relpath(full, root), data.decode("utf-8", "replace")


def code_files(root, *tops):
    for path, text in files(root):
        if path.endswith(CODE) and path.split(os.sep)[0] in tops:
            yield path, text


def folder_of(path):
    """The layer (or cli, include) to which a file belongs, None for files directly in src/."""
    parts = path.split(os.sep)
    if parts[0] in ("numa", "include"):
        return parts[0]
    return parts[1] if parts[0] == "src" and len(parts) > 2 else None


TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.S)


def without_comments_and_strings(text):
    """The same lines with comments and literals blanked. A digit separator (1'000) is no literal."""
    def blank(match):
        token = match.group(0)
        if token[0] == "'" and match.start() and text[match.start() - 1].isalnum():
            return token
        return "\n" * token.count("\n") or " "
    return TOKEN.sub(blank, text)


def layering(root):
    found = []
    for path, text in code_files(root, "src", "numa", "include"):
        mine = folder_of(path)
        if mine not in MAY_INCLUDE:
            found.append(f"{path}: belongs to no layer")
            continue
        for number, line in enumerate(text.splitlines(), 1):
            match = re.match(r'\s*#\s*include\s*(["<])([^">]+)[">]', line)
            if not match:
                continue
            quote, name = match.groups()
            top = name.split("/")[0] if "/" in name else ""
            where = f"{path}:{number}: includes {name}"
            if top in OURS:
                if top not in MAY_INCLUDE[mine]:
                    found.append(f"{where}: {mine} may include only {', '.join(sorted(MAY_INCLUDE[mine]))}")
            elif quote == '"':
                found.append(f"{where}: written from src/ (\"layer/file.h\"), or with <> if it is the system's")
    return found


MEMORY_CALLS = ("mmap mmap64 munmap mremap mprotect pkey_mprotect madvise posix_madvise process_madvise mbind "
                "set_mempolicy shmat brk sbrk").split()
CALL = re.compile(r"(?<![\w.>])(" + "|".join(MEMORY_CALLS) + r")\s*\(")
RAW_CALL = re.compile(r"\b(?:SYS|__NR)_(" + "|".join(MEMORY_CALLS) + r")\b")
# These have no wrapper in libc.
RAW_CALL_ALLOWED_IN_OS = {"mbind", "set_mempolicy", "process_madvise"}
# While memory is write-protected no hook of another library may run: it could store there, and wait for us for ever. Nor may
# one while a fork child repairs its heaps (PastHooks).
RAW_CALL_ALLOWED_IN = {
    "src/os/page_mover.cc": {"mremap", "mprotect"},
    "src/os/linux_calls.h": {"mmap", "munmap", "madvise", "mprotect", "mremap"},
}


def memory_calls(root):
    found = []
    for path, text in code_files(root, "src", "numa", "include"):
        in_os = folder_of(path) == "os"
        for number, line in enumerate(without_comments_and_strings(text).splitlines(), 1):
            names = [] if in_os else [f"calls {name}()" for name in CALL.findall(line)]
            names += [f"uses the number of {name}" for name in RAW_CALL.findall(line)
                      if not in_os or name not in RAW_CALL_ALLOWED_IN_OS | RAW_CALL_ALLOWED_IN.get(str(path), set())]
            if not in_os and re.search(r"#\s*include\s*<(sys/mman|numaif)\.h>", line):
                names.append("includes the header of such calls")
            found += [f"{path}:{number}: {name}; only src/os does, and through libc where libc has it"
                      for name in names]
    return found


def written_by_hand(path):
    name = os.path.basename(path)
    return name != "LICENSE" and (path.endswith(CODE + (".py", ".sh", ".cmake")) or "." not in name)


def file_length(root):
    found = []
    for path, text in files(root):
        lines = text.count("\n")
        if written_by_hand(path) and lines > MAX_LINES:
            found.append(f"{path}: {lines} lines, at most {MAX_LINES}")
    return found


def line_length(root):
    return [f"{path}:{number}: {len(line)} columns, at most {MAX_COLUMNS}" for path, text in files(root)
            if written_by_hand(path) for number, line in enumerate(text.splitlines(), 1) if len(line) > MAX_COLUMNS]


# Written in pieces: this file is checked too.
UNFINISHED = re.compile(r"\b(" + "TO" + "DO|FIX" + "ME|X" + r"XX)\b")


def unfinished(root):
    return [f"{path}:{number}: unfinished: {line.strip()}" for path, text in files(root)
            for number, line in enumerate(text.splitlines(), 1) if UNFINISHED.search(line)]


def readmes(root):
    """A README.md in every folder that holds files; the data of a test (tests/<folder>/<data>/) needs none."""
    folders = {os.path.dirname(path) for path, _ in files(root)}
    return [f"{folder or '.'}: no README.md" for folder in sorted(folders)
            if not os.path.exists(os.path.join(root, folder, "README.md"))
            and not (folder.split(os.sep)[0] == "tests" and folder.count(os.sep) >= 2) and folder != ".ci"]


MACHINE = re.compile(r"(?<![\w.$}])/(?:wo" + r"rk|ro" + r"ot|ho" + r"me)/\w")


def machine_paths(root):
    return [f"{path}:{number}: a path of one machine: {line.strip()}" for path, text in files(root)
            for number, line in enumerate(text.splitlines(), 1) if MACHINE.search(line)]


CHECKS = {
    "layering": layering,
    "memory calls": memory_calls,
    "file length": file_length,
    "line length": line_length,
    "unfinished work": unfinished,
    "READMEs": readmes,
    "machine paths": machine_paths,
}
