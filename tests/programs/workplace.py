"""Where one run of a program happens: a folder of its own, with or without the library."""

import hashlib
import os
import resource
import signal
import subprocess
import threading

TIMEOUT = 300


class ProgramFailed(Exception):
    pass


def quick():
    return os.environ.get("NH_TEST_QUICK") == "1"


def scaled(full, in_quick):
    return in_quick if quick() else full


def describe_end(code):
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


class Workplace:
    def __init__(self, folder, inputs, library, statistics):
        self.folder = folder
        self.inputs = inputs
        self.library = library
        self.statistics = statistics
        self.settings = None  # of the surroundings, for the environment
        self.address_space = None  # bytes, where it is limited
        os.mkdir(folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def input(self, name):
        return os.path.join(self.inputs, name)

    def environment(self, settings=None):
        """A small, fixed environment: what the caller's shell has set must not decide about the output."""
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": self.folder, "TMPDIR": self.folder, "LC_ALL": "C", "TZ": "UTC"}
        if self.library:
            env["LD_PRELOAD"] = self.library
            env["NUMAHEAP_STATS"] = os.path.join(self.statistics, "%p.json")
        env.update(self.settings or {})
        env.update(settings or {})
        return env

    def limit(self):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if self.address_space is not None:
            resource.setrlimit(resource.RLIMIT_AS, (self.address_space, self.address_space))

    def start(self, command, env=None, **arguments):
        return subprocess.Popen(command, env=self.environment(env), cwd=self.folder, start_new_session=True,
                                preexec_fn=self.limit, **arguments)

    def run(self, command, env=None, stdin=None, stdin_text=None, status=0):
        """Runs to the end and returns stdout as bytes. stdin: a path. Any other exit status than `status` fails."""
        with open(stdin or os.devnull, "rb") as source:
            process = self.start(command, env, stdin=subprocess.PIPE if stdin_text is not None else source,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            out, err = self.finish(process, stdin_text)
        self.judge(command, process.returncode, err, status, out)
        return out

    def hash_output(self, command, env=None):
        """Like run(), for output that is too large to keep: its digest and length."""
        digest, length = hashlib.sha256(), 0
        with open(self.path("stderr"), "w+b") as err:
            process = self.start(command, env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err)
            watchdog = threading.Timer(TIMEOUT, os.killpg, (process.pid, signal.SIGKILL))
            watchdog.start()
            try:
                while block := process.stdout.read(1 << 20):
                    digest.update(block)
                    length += len(block)
                process.wait()
            finally:
                watchdog.cancel()
            err.seek(0)
            self.judge(command, process.returncode, err.read(), 0, b"")
        return f"{length} bytes, sha256 {digest.hexdigest()}\n"

    @staticmethod
    def finish(process, stdin_text=None):
        try:
            return process.communicate(stdin_text, timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            _, err = process.communicate()
            raise ProgramFailed(f"still running after {TIMEOUT} s: {' '.join(process.args)[:200]}\n"
                                f"{err.decode(errors='replace')[-2000:]}") from None

    @staticmethod
    def judge(command, code, err, wanted, out):
        text = err.decode(errors="replace")
        if code != wanted:
            said = text[-3000:] + out.decode(errors="replace")[-3000:]
            raise ProgramFailed(f"{' '.join(command)[:200]}: {describe_end(code)}\n{said}")
        # A library that is asked for nothing has nothing to say.
        said = [line for line in text.splitlines() if line.startswith("numaheap:")]
        if said:
            raise ProgramFailed(f"{' '.join(command)[:200]}: unexpected on stderr:\n" + "\n".join(said[:10]))


def file_digest(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return f"{os.path.getsize(path)} bytes, sha256 {digest.hexdigest()}\n"
