"""What the tests of `stat`, `top` and `map` share: the tool, and processes of known contents.
Command line: TOOL LIBRARY ARCHIVE CC, and then unittest's."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

TOOL, LIBRARY, ARCHIVE, CC = sys.argv[1:5]
HERE = os.path.dirname(os.path.abspath(__file__))
UNIT = 2 << 20


def environment(**extra):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("NUMAHEAP_", "LD_", "LC_", "COLORTERM", "NO_COLOR"))}
    env.update(LC_ALL="C.UTF-8", NUMAHEAP_SCAVENGE="off", NUMAHEAP_QUIET="1", **extra)
    return env


def tool(*words, **options):
    return subprocess.run([TOOL, *map(str, words)], env=environment(), text=True, capture_output=True, timeout=60, **options)


class Fixture(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="numaheap-live-")
        cls.program = cls.compile("live_program")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.dir)

    @classmethod
    def compile(cls, name, *options):
        program = os.path.join(cls.dir, name)
        subprocess.run([CC, "-O1", "-pthread", "-w", "-o", program, os.path.join(HERE, "live_program.c"), *options],
                       check=True)
        return program

    def start(self, *command, preload=LIBRARY, **env):
        env = environment(**env)
        if preload:
            env["LD_PRELOAD"] = preload
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.addCleanup(self.end, child)
        return child

    @staticmethod
    def end(child):
        child.kill()
        child.communicate()

    def live_program(self, *arguments, program=None, **options):
        return self.start(program or self.program, *map(str, arguments), **options)

    @staticmethod
    def statistics(child):
        child.stdin.write("?")
        child.stdin.flush()
        return json.loads("".join(iter(child.stdout.readline, ".\n")))

    @staticmethod
    def keep_busy(child):
        child.stdin.write("f")
        child.stdin.flush()

    def wait_for(self, pid, states):
        """Until /proc says one of these letters."""
        for _ in range(500):
            with open(f"/proc/{pid}/stat") as f:
                if f.read().rsplit(")", 1)[1].split()[0] in states:
                    return
            time.sleep(0.01)
        self.fail(f"process {pid} is never {states}")

    def complaint(self, r, status, text):
        """One line, about what `text` says."""
        self.assertEqual((r.returncode, r.stdout), (status, ""), r.stderr)
        self.assertRegex(r.stderr, r"^numaheap: [^\n]*" + text + r"[^\n]*\n$")

    def short_lines(self, text):
        for line in text.splitlines():
            self.assertLessEqual(len(line), 100, line)


def main():
    unittest.main(argv=sys.argv[:1] + sys.argv[5:])
