#!/usr/bin/env python3
"""top_test.py TOOL LIBRARY ARCHIVE CC: `top`, plain and on a terminal. See README.md."""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

from live_fixture import TOOL, Fixture, environment, main, tool

ENTER, LEAVE = "\033[?1049h", "\033[?1049l"


# A shell that starts a job, as far as stopping takes one: the kernel stops no process that nobody would continue.
SHELL = """
import os, signal, subprocess, sys
def job():
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
sys.exit(subprocess.Popen(sys.argv[1:], preexec_fn=job).wait())
"""


class Terminal:
    """The tool on a terminal of its own."""

    def __init__(self, *words, columns=100, rows=30, job_of=(), **env):
        self.master, self.slave = pty.openpty()
        self.resize(columns, rows)
        self.before = termios.tcgetattr(self.slave)
        self.child = subprocess.Popen([*job_of, TOOL, "top", *map(str, words)], stdin=self.slave, stdout=self.slave,
                                      stderr=self.slave, env=environment(TERM="xterm-256color", **env), start_new_session=True,
                                      preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        self.output = ""

    def resize(self, columns, rows):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, pattern, seconds=20):
        """All output so far; fails if the pattern does not come."""
        end = time.monotonic() + seconds
        while not re.search(pattern, self.output, re.S):
            if time.monotonic() > end or not select.select([self.master], [], [], max(0, end - time.monotonic()))[0]:
                raise AssertionError(f"{pattern!r} does not come: {self.output[-2000:]!r}")
            self.output += os.read(self.master, 65536).decode()
        return self.output

    def type(self, keys):
        os.write(self.master, keys.encode())

    def is_as_before(self):
        return termios.tcgetattr(self.slave) == self.before

    def close(self):
        self.child.kill()
        self.child.wait()
        os.close(self.master)
        os.close(self.slave)


class Top(Fixture):
    def terminal(self, *words, **options):
        t = Terminal(*words, **options)
        self.addCleanup(t.close)
        return t

    def watched(self, *words, **options):
        child = self.live_program(1)
        self.statistics(child)
        return child, self.terminal(child.pid, "--interval", "0.1", *words, **options)

    def test_plain(self):
        child = self.live_program(4)
        self.statistics(child)
        quiet = tool("top", child.pid, "--count", "2", "--interval", "0.2")
        self.assertEqual((quiet.returncode, quiet.stderr), (0, ""))
        self.assertNotIn("\033", quiet.stdout)
        self.assertEqual(len(re.findall(r"^live_program, process \d+, caches ", quiet.stdout, re.M)), 2)
        self.assertEqual(len(re.findall(r"per second: 0 objects in 0 batches, 0 remote frees, 0 B growth, ", quiet.stdout)), 2)
        self.short_lines(quiet.stdout)
        # Bars: live and cached memory is there, and in the locale without UTF-8 there are letters instead.
        self.assertRegex(quiet.stdout, r"\nnode \d+ +█.*[TMGb]")
        plain = subprocess.run([TOOL, "top", str(child.pid), "--count", "1"], env=dict(environment(), LC_ALL="C"),
                               capture_output=True)
        self.assertRegex(plain.stdout.decode("ascii"), r"\nnode \d+ +#")

    def test_rates(self):
        child = self.live_program(1)
        self.statistics(child)
        self.keep_busy(child)
        r = tool("top", child.pid, "--count", "2", "--interval", "0.5")
        rates = re.findall(r"per second: (\S+) objects in (\S+) batches", r.stdout)
        self.assertEqual(rates[0], ("0", "0"))
        self.assertNotEqual(rates[1][0], "0")
        self.assertRegex(r.stdout, r"\d syscalls")

    def test_all(self):
        children = [self.live_program(n) for n in (1, 3)]
        for child in children:
            self.statistics(child)
        for sort, first in (("committed", children[1]), ("name", children[0])):
            r = tool("top", "--count", "1", "--sort", sort)
            self.assertRegex(r.stdout, r"^\d+ processes on numaheap")
            order = [int(pid) for pid in re.findall(r"^(\d+) live_program ", r.stdout, re.M)]
            mine = [pid for pid in order if pid in [c.pid for c in children]]
            self.assertEqual(len(mine), 2)
            self.assertEqual(mine[0], first.pid, sort)
            self.short_lines(r.stdout)

    def test_words(self):
        for words, text in ((("--interval", "0"), "--interval does not take '0'"), (("--interval=x",), "does not take 'x'"),
                            (("--count", "0"), "--count does not take '0'"), (("--sort", "size"), "does not take 'size'"),
                            (("--sort",), "--sort needs a value"), (("-x",), "no such option '-x'"),
                            (("x",), "not one process id"), (("--all", "1"), "one of PID and --all")):
            self.complaint(tool("top", *words), 2, text)

    def test_screen(self):
        child, t = self.watched(COLORTERM="truecolor")
        screen = t.read_until("keys: q quit")
        self.assertIn(ENTER, screen)
        self.assertIn("\033[38;2;", screen)
        self.assertFalse(t.is_as_before())
        t.type("q")
        self.assertEqual(t.child.wait(20), 0)
        self.assertIn(LEAVE, t.read_until(re.escape(LEAVE)))
        self.assertTrue(t.is_as_before())
        self.assertIsNone(child.poll())

    def test_colours(self):
        for env, wanted, refused in (({}, "\033[38;5;", "\033[38;2;"), ({"NO_COLOR": "1"}, "live_program", "\033[38;")):
            _, t = self.watched(**env)
            screen = t.read_until("keys: q quit")
            self.assertIn(wanted, screen)
            self.assertNotIn(refused, screen)

    def test_dumb_terminal(self):
        child = self.live_program(1)
        self.statistics(child)
        r = subprocess.run(["script", "-qec", f"env TERM=dumb {TOOL} top {child.pid} --count 1", "/dev/null"],
                           env=environment(), text=True, capture_output=True, stdin=subprocess.DEVNULL)
        self.assertNotIn("\033", r.stdout)
        self.assertIn("live_program, process", r.stdout)

    def test_sort_keys_and_size(self):
        t = self.terminal("--interval", "30", rows=60)
        t.read_until("keys: q quit")
        for _ in range(2):  # a key draws at once, and so does a changed size
            t.output = ""
            t.type("n")
            t.read_until("keys: q quit", 5)
        t.output = ""
        t.resize(70, 12)
        screen = t.read_until(r"\033\[J", 5)
        self.assertLessEqual(screen.count("\r\n"), 11)
        self.assertNotIn("remote/s", screen)

    def test_signals(self):
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGSEGV, signal.SIGABRT):
            _, t = self.watched()
            t.read_until("keys: q quit")
            t.child.send_signal(sig)
            self.assertEqual(t.child.wait(20), -sig)
            t.read_until(re.escape(LEAVE))
            self.assertTrue(t.is_as_before(), sig)

    def test_stop_and_go_on(self):
        _, t = self.watched(job_of=(sys.executable, "-c", SHELL))
        t.read_until("keys: q quit")
        with open(f"/proc/{t.child.pid}/task/{t.child.pid}/children") as f:
            pid = int(f.read())
        os.kill(pid, signal.SIGTSTP)
        self.wait_for(pid, "T")
        t.read_until(re.escape(LEAVE))
        self.assertTrue(t.is_as_before())
        t.output = ""
        os.kill(pid, signal.SIGCONT)
        t.read_until(re.escape(ENTER) + ".*keys: q quit")
        self.assertFalse(t.is_as_before())
        t.type("q")
        self.assertEqual(t.child.wait(20), 0)

    def test_process_that_ends(self):
        child, t = self.watched()
        t.read_until("keys: q quit")
        child.kill()
        child.wait()
        self.assertEqual(t.child.wait(20), 0)
        screen = t.read_until(r"numaheap: top: process \d+ \(live_program\) has ended")
        self.assertLess(screen.index(LEAVE), screen.index("has ended"))
        self.assertTrue(t.is_as_before())

    def test_hung_up(self):
        _, t = self.watched()
        t.read_until("keys: q quit")
        os.close(t.master)
        t.master = os.open("/dev/null", os.O_RDONLY)
        self.assertIn(t.child.wait(20), (0, -signal.SIGHUP))

    def test_new_process_is_found(self):
        t = self.terminal("--interval", "0.1")
        t.read_until("keys: q quit")
        child = self.live_program(1)
        t.read_until(rf"{child.pid} live_program")


if __name__ == "__main__":
    main()
