#!/usr/bin/env python3
"""doctor_test.py TOOL LIBRARY CC: `numaheap doctor` and `reserve` on this machine, as root, as nobody, in sandboxes."""
import fcntl
import json
import os
import pty
import resource
import shlex
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import termios
import unittest

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "process"))
from harness import machine  # noqa: E402

TOOL, LIBRARY, CC = sys.argv[1:4]
CALLS = {"mbind": 237, "set_mempolicy": 238, "get_mempolicy": 239, "move_pages": 279, "userfaultfd": 323,
         "membarrier": 324}
NOBODY = 65534
COLUMNS = 100


def environment(**extra):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("NUMAHEAP_", "LD_", "GLIBC_", "KUBERNETES_"))}
    return {**env, "LC_ALL": "C", "TERM": "xterm", **extra}


def numbers(*names):
    return ",".join(str(CALLS[name]) for name in names)


class Fixture(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="numaheap-doctor-")
        os.chmod(cls.dir, 0o755)  # for nobody
        cls.tool = shutil.copy(TOOL, cls.dir)
        shutil.copy(LIBRARY, os.path.join(cls.dir, "libnumaheap.so"))
        with open(os.path.join(HERE, "sandbox.c"), encoding="ascii") as file:
            cls.sandbox = cls.compile("sandbox", file.read())

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.dir)

    @classmethod
    def compile(cls, name, text, *flags):
        source, program = os.path.join(cls.dir, name + ".c"), os.path.join(cls.dir, name)
        with open(source, "w", encoding="ascii") as file:
            file.write(text)
        subprocess.run([CC, "-O1", "-w", "-fno-builtin", "-o", program, source, *flags], check=True)
        return program

    def call(self, *words, front=(), env=None, nobody=False, **options):
        if nobody:
            if os.geteuid() != 0:
                self.skipTest("only root can become nobody")
            options.update(user=NOBODY, group=NOBODY, extra_groups=[])
        return subprocess.run([*front, self.tool, *words], env=env or environment(), text=True, capture_output=True,
                              timeout=120, cwd="/", **options)

    def doctor(self, *words, **options):
        """The JSON, after a look at whether the text says the same."""
        as_text, as_json = self.call("doctor", *words, **options), self.call("doctor", "--json", *words, **options)
        self.assertEqual((as_text.stderr, as_json.stderr), ("", ""))
        self.assertLessEqual(max(map(len, as_text.stdout.splitlines())), COLUMNS, as_text.stdout)
        self.assertNotIn("\033", as_text.stdout)
        found = json.loads(as_json.stdout)
        self.assertEqual(as_json.returncode, found["status"])
        costs = any(finding["severity"] != "note" for finding in found["findings"])
        self.assertEqual(found["status"], 1 if costs else 2 if found["unseen"] else 0)
        for finding in found["findings"]:
            self.assertTrue(finding["title"] and finding["here"] and finding["costs"], finding)
            self.assertIn(finding["severity"].upper() + " " * (9 - len(finding["severity"])) + finding["title"][:40],
                          as_text.stdout)
        return {**found, "by_id": {finding["id"]: finding for finding in found["findings"]}}

    def front(self, *words):
        """A command that can be put in front of others here, or a skip."""
        if subprocess.run([*words, "true"], capture_output=True, check=False).returncode != 0:
            self.skipTest(shlex.join(words) + " is not possible here")
        return words


class Doctor(Fixture):
    def test_here(self):
        found = self.doctor()
        self.assertEqual(found["unseen"], [])
        self.assertEqual(sum(node["cpus"] for node in found["nodes"]) > 0, True)
        with open("/proc/meminfo", encoding="ascii") as file:
            memory = int(file.readline().split()[1]) * 1024
        self.assertAlmostEqual(sum(node["memory_bytes"] for node in found["nodes"]) / memory, 1, delta=0.01)
        self.assertEqual(found["root"], os.geteuid() == 0)
        # What the library needs of a kernel that can build it: these were tried, not looked up.
        for name in ("rseq", "membarrier", "populate"):
            self.assertEqual(found["tried"][name], "works", found["tried"])
        self.assertNotIn("no-library", found["by_id"])
        self.assertEqual(len(found["huge_page_trials"]), sum(node["cpus"] > 0 and node["allowed"] for node in found["nodes"]))
        if found["transparent_huge_pages"]["enabled"] in ("always", "madvise"):
            some_small = any(trial["bytes"] < 2 << 20 for trial in found["huge_page_trials"])
            self.assertEqual(some_small, "thp-scarce" in found["by_id"])

    def test_as_nobody(self):
        found = self.doctor(nobody=True)
        self.assertFalse(found["root"])
        self.assertEqual(found["unseen"], [])
        for finding in found["findings"]:
            for remedy in finding["mend"]:
                if remedy["who"] == "root" and "command" in remedy:
                    self.assertIn("sudo ", remedy["command"])

    def test_in_a_sandbox_without_privileges(self):
        front = self.front("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")
        refused = ("mbind", "set_mempolicy", "get_mempolicy", "move_pages", "userfaultfd", "membarrier")
        found = self.doctor(front=(*front, self.sandbox, "-e", numbers(*refused)))
        self.assertTrue(found["seccomp"])
        self.assertNotEqual(found["container"], "")
        for name in ("mbind", "get_mempolicy", "move_pages", "membarrier"):
            self.assertEqual(found["tried"][name], "Operation not permitted", name)
        self.assertNotEqual(found["tried"]["userfaultfd"], "works")
        self.assertEqual(found["by_id"]["no-membarrier"]["severity"], "costs")
        self.assertEqual("bind-refused" in found["by_id"], len(found["nodes"]) > 1)
        whose = {remedy["who"] for finding in found["findings"] for remedy in finding["mend"]}
        self.assertNotIn("root", whose)  # who is root in here mends nothing

    def test_a_filter_that_kills_kills_the_trial_only(self):
        found = self.doctor(front=(self.sandbox, "-k", numbers("move_pages", "membarrier")))
        for name in ("move_pages", "membarrier"):
            self.assertEqual(found["tried"][name], "the process that tried it was killed")
        self.assertEqual(found["tried"]["populate"], "works")

    def test_without_sys(self):
        front = self.front("unshare", "--user", "--map-root-user", "--mount", "--",
                           "sh", "-c", 'mount -t tmpfs none /sys && exec "$@"', "sh")
        found = self.doctor(front=front)
        self.assertEqual(len(found["unseen"]), 1)
        self.assertIn("/sys is missing", found["unseen"][0])
        self.assertEqual(found["by_id"].keys() & {"thp-missing", "thp-never", "pool-missing"}, set())

    def test_limits_and_prctl(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_AS, (1 << 32, 1 << 32))
        found = self.doctor(front=(self.sandbox, "-t"), preexec_fn=limit)
        self.assertIn("4.0 GiB", found["by_id"]["limit-address-space"]["here"])
        self.assertIn("PR_SET_THP_DISABLE", found["by_id"]["thp-forbidden"]["here"])
        self.assertEqual({trial["bytes"] for trial in found["huge_page_trials"]}, {4096})
        self.assertEqual(found["status"], 1)

    def test_settings(self):
        found = self.doctor(env=environment(NUMAHEAP_POLCY="local", NUMAHEAP_RSEQ="off"))
        self.assertIn("did you mean NUMAHEAP_POLICY?", found["by_id"]["setting-wrong"]["here"])
        self.assertEqual(found["by_id"]["setting-slow"]["mend"][0]["command"], "unset NUMAHEAP_RSEQ")

    def test_another_malloc(self):
        other = self.compile("other.so", "extern void* __libc_malloc(unsigned long n);\n"
                             "void* malloc(unsigned long n) { return __libc_malloc(n); }\n", "-shared", "-fPIC")
        none = self.compile("none.so", "int unused;\n", "-shared", "-fPIC")
        ours = os.path.join(self.dir, "libnumaheap.so")
        found = self.doctor(env=environment(LD_PRELOAD=f"{ours}:{none}"))
        self.assertEqual(found["by_id"].keys() & {"other-malloc", "preload-missing"}, set())
        found = self.doctor(env=environment(LD_PRELOAD=f"{ours}:{other}"))
        self.assertEqual(found["by_id"]["other-malloc"]["severity"], "note")
        found = self.doctor(env=environment(LD_PRELOAD=f"{other}:{ours}"))
        self.assertEqual(found["by_id"]["other-malloc"]["severity"], "serious")
        self.assertIn(other + " before libnumaheap.so", found["by_id"]["other-malloc"]["here"])

    def test_programs_that_cannot_be_preloaded(self):
        self.assertNotIn("program", self.doctor("/bin/true")["by_id"])
        self.assertNotIn("program", self.doctor("--", self.compile("plain", "int main(void) { return 0; }\n"))["by_id"])
        own = self.compile("own", "void* malloc(unsigned long n) { return 0; }\nint main(void) { return 0; }\n",
                           "-rdynamic")
        self.assertIn("malloc of its own", self.doctor(own)["by_id"]["program"]["here"])
        ours = self.compile("ours", 'const char* name = "NUMAHEAP_HUGE_SOURCE";\nvoid* malloc(unsigned long n) { return 0; }\n'
                            "int main(void) { return 0; }\n", "-rdynamic")
        self.assertNotIn("program", self.doctor(ours)["by_id"])  # libnumaheap.a is in it
        gains = self.compile("gains", "int main(void) { return 0; }\n")
        os.chmod(gains, 0o755 | stat.S_ISUID)
        self.assertNotIn("program", self.doctor(gains)["by_id"])  # its owner gains nothing
        found = self.doctor(gains, nobody=True)
        self.assertEqual((found["by_id"]["program"]["severity"], found["by_id"]["program"]["here"]),
                         ("serious", "it is set-uid, and so ignores LD_PRELOAD"))

    def on_a_terminal(self, columns, **extra):
        controller, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        process = subprocess.Popen([self.tool, "doctor"], env=environment(NUMAHEAP_RSEQ="off", **extra),
                                   stdout=terminal, stdin=subprocess.DEVNULL)
        os.close(terminal)
        text = b""
        try:
            while piece := os.read(controller, 65536):
                text += piece
        except OSError:
            pass  # EIO: the other side is closed
        process.wait()
        os.close(controller)
        return text.decode().replace("\r\n", "\n")

    def test_colours_and_width_of_a_terminal(self):
        self.assertIn("\033[1;33mCOSTS\033[0m", self.on_a_terminal(80))
        for extra in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
            text = self.on_a_terminal(80, **extra)
            self.assertNotIn("\033", text)
            self.assertIn("COSTS", text)
            self.assertLessEqual(max(map(len, text.splitlines())), 80, text)
        self.assertLessEqual(max(map(len, self.on_a_terminal(300, NO_COLOR="1").splitlines())), COLUMNS)

    def test_mistakes(self):
        r = self.call("doctor", "--jsno")
        self.assertEqual((r.returncode, r.stdout), (2, ""))
        self.assertIn("no such option '--jsno'; did you mean '--json'?", r.stderr)
        self.assertIn("Exit status:", self.call("doctor", "--help").stdout)


class Reserve(Fixture):
    def test_sets_and_undoes(self):
        pool = "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"
        if os.geteuid() != 0 or not os.access(pool, os.W_OK):
            self.skipTest("the pools cannot be set here")
        try:
            with machine.exclusive(), machine.pool(4):  # which puts back what was there
                before = machine.read(pool)
                wanted = int(before) + 3
                r = self.call("reserve", "--node", f"0={wanted}")
                self.assertEqual((r.returncode, r.stderr, machine.read(pool)), (0, "", str(wanted)), r.stdout)
                undo = r.stdout.splitlines()[-1].strip()
                self.assertTrue(undo.startswith(self.tool + " reserve --node 0="), undo)
                subprocess.run(undo, shell=True, check=True, capture_output=True)
                self.assertEqual(machine.read(pool), before)
        except machine.Unavailable as error:
            self.skipTest(str(error))

    def test_without_the_privilege(self):
        r = self.call("reserve", "--node=all=4M", nobody=True)
        self.assertEqual((r.returncode, r.stdout), (1, ""))
        self.assertRegex(r.stderr, r"node 0: /sys/\S+/nr_hugepages cannot be written: .*")
        self.assertIn(f"sudo {self.tool} reserve --node=all=4M\n", r.stderr)

    def test_what_changes_nothing(self):
        for words in ((), ("--node", "0=4M", "--dry-run"), ("--node", "0=4M", "--dry-run", "--compact"),
                      ("--node", "0=4M", "--persist")):
            r = self.call("reserve", *words, nobody=os.geteuid() == 0)
            self.assertEqual((r.returncode, r.stderr), (0, ""), words)
            self.assertLessEqual(max(map(len, r.stdout.splitlines())), COLUMNS)

    def test_the_unit_is_one(self):
        text = self.call("reserve", "--node", "0=4M", "--persist").stdout
        unit = os.path.join(self.dir, "numaheap-pages-2M.service")
        with open(unit, "w", encoding="ascii") as file:
            file.write(text[text.index("[Unit]"):text.index("# 3. ")])
        if shutil.which("systemd-analyze") is None:
            self.skipTest("no systemd-analyze")
        r = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
        self.assertNotIn("numaheap-pages", r.stderr)

    def test_mistakes(self):
        for words, text in ((("4G",), "on which node? As in --node 0=4G or --node all=4G"),
                            (("--node",), "--node needs a value, as in --node 0=4G"),
                            (("--node", "--dry-run"), "--node needs a value"),
                            (("--size", "4M"), "no pool of pages of '4M'; it has 2M"),
                            (("--node", "999=4G"), "node 999: there is none"), (("--node", "0=x"), "'x' is no amount"),
                            (("--compact",), "how much, and where?"), (("--restore",), "no such option '--restore'"),
                            (("--node", "0=1", "--persist", "--compact"), "do not go with it"),
                            (("--persit",), "did you mean '--persist'?")):
            r = self.call("reserve", *words)
            self.assertEqual((r.returncode, r.stdout), (2, ""), words)
            self.assertIn(text, r.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
