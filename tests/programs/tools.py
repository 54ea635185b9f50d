"""sort and git."""

import base64
import glob
import hashlib
import os
import shutil
import subprocess

from program import Program
from workplace import scaled

AUTHOR = {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_COMMITTER_NAME": "A",
          "GIT_COMMITTER_EMAIL": "a@example.org", "GIT_CONFIG_NOSYSTEM": "1"}


def prepare_sort(folder):
    """Lines of 76 characters that are the same on every machine."""
    with open(os.path.join(folder, "lines"), "wb") as file:
        for mib in range(scaled(500, 40)):
            # 57 bytes become a line; what is left over is cut off.
            block = hashlib.shake_128(str(mib).encode()).digest((1 << 20) * 57 // 77 // 57 * 57)
            file.write(base64.encodebytes(block))


def run_sort(place):
    # Half of the lines in memory at a time: two threads sort, and the halves are merged through files.
    size = scaled("700M", "60M")
    return {"sorted": place.hash_output(["sort", "--parallel=2", "-S", size, "-T", place.folder, place.input("lines")])}


def prepare_git(folder):
    """A repository of this machine's C++ headers: ten commits, each of which changes many files."""
    repository = os.path.join(folder, "repository")
    os.mkdir(repository)
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": folder, "LC_ALL": "C", **AUTHOR}

    def git(*words, date="1700000000 +0000"):
        subprocess.run(["git", "-C", repository, *words], check=True, stdout=subprocess.DEVNULL,
                       env={**env, "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date})

    git("init", "-q", "-b", "main")
    sources = sorted(path for pattern in ("/usr/include/c++/*/**/*", "/usr/include/linux/**/*.h") for path in
                     glob.glob(pattern, recursive=True) if os.path.isfile(path))[:scaled(1200, 200)]
    for step in range(10):
        for number, source in enumerate(sources):
            # A tenth of the files comes with each commit; those that are there already change in every third one.
            if number % 10 > step or (number % 10 < step and (number + step) % 3):
                continue
            target = os.path.join(repository, source.lstrip("/"))
            with open(target if os.path.exists(target) else source, encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
            lines[step::17] = [f"{line} // revision {step}" for line in lines[step::17]]
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "w", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")
        git("add", "-A")
        git("commit", "-q", "-m", f"revision {step}", date=f"{1700000000 + step * 3600} +0000")


def run_git(place):
    repository = place.path("repository")
    shutil.copytree(place.input("repository"), repository)

    def git(*words):
        return place.run(["git", "-C", repository, *words], env=AUTHOR).decode(errors="replace")

    blamed = sorted(git("ls-files", "*/bits/*").split())[:scaled(20, 5)]
    outputs = {
        "log": place.hash_output(["git", "-C", repository, "log", "-p", "--stat", "-M"], env=AUTHOR),
        "blame": "".join(git("blame", "-C", "-w", name) for name in blamed),
        "grep": git("grep", "-c", "revision [3-5]"),
    }
    git("gc", "--prune=now", "--quiet")
    outputs["fsck"] = git("fsck", "--full", "--strict")
    outputs["objects"] = "\n".join(sorted(git("rev-list", "--objects", "--all").splitlines()))
    git("checkout", "-q", "-b", "side", "HEAD~5")
    outputs["merge"] = git("merge-base", "side", "main") + git("diff", "--shortstat", "main", "side")
    outputs["archive"] = place.hash_output(["git", "-C", repository, "archive", "HEAD"], env=AUTHOR)
    return outputs


PROGRAMS = [
    Program("sort", run_sort, {"sort": "coreutils"}, prepare_sort, large=True),
    Program("git", run_git, {"git": "git"}, prepare_git),
]
