#!/usr/bin/env python3
"""map_test.py TOOL LIBRARY ARCHIVE CC: `map` against processes of known contents and made-up maps. See README.md."""
import json
import os
import random
import re
import subprocess
import xml.etree.ElementTree as ElementTree

from live_fixture import UNIT, Fixture, environment, main, tool

SVG = "{http://www.w3.org/2000/svg}"
KINDS = {"b": "base", "T": "thp", "M": "2m", "G": "1g"}


def made_up(nodes, units, pid=4711, seed=1):
    """A map of so many nodes, each with so many units in use, and first-touch memory of all nodes."""
    rng = random.Random(seed)
    heaps = []
    for kind, node in [("node", n) for n in range(nodes)] + [("first_touch", -1)]:
        backing = "".join(rng.choice("MMMMTb" if node % 2 == 0 else "GGT") for _ in range(units))
        backing += "-" * min(3, -units % 32) + "." * max(0, -units % 32 - 3)
        large = "".join("O" if b in KINDS and rng.random() < 0.1 else "." for b in backing)
        large = re.sub(r"(?<=[MTGb])?\.\.\.\.\.\.", lambda m: "[====]" if rng.random() < 0.2 else m[0], large)
        large = "".join(p if b in KINDS else "." for p, b in zip(large, backing))
        full = [0 if b not in KINDS else 100 if p != "." else rng.choice([0, 1, 30, 60, 99, 100])
                for b, p in zip(backing, large)]
        arenas = []
        for i in range(0, len(backing), 32):
            arena = {"address": hex((node + 2 << 40) + (i << 21)), "count": 1, "backing": backing[i:i + 32],
                     "large": large[i:i + 32], "full": full[i:i + 32]}
            if node < 0:
                arena["nodes"] = [rng.randrange(-1, nodes) for _ in range(32)]
            arenas.append(arena)
        heaps.append({"kind": kind, "node": node, "paged": False, "units": len(backing),
                      "backed": {name: backing.count(letter) for letter, name in KINDS.items()},
                      "object_bytes": sum(full) * UNIT // 100, "large_objects": large.count("O") + large.count("["),
                      "left_out_arenas": 0, "arenas": arenas})
    return {"numaheap_map": 1, "pid": pid, "command": 'solver <"&>', "unit_bytes": UNIT, "heaps": heaps}


class Map(Fixture):
    def file(self, content):
        path = os.path.join(self.dir, "map.json")
        with open(path, "w") as f:
            f.write(content if isinstance(content, str) else json.dumps(content))
        return path

    def check(self, m):
        """A map agrees with itself."""
        for heap in m["heaps"]:
            rows = heap["arenas"]
            self.assertEqual(heap["units"], 32 * (sum(r["count"] for r in rows) + heap["left_out_arenas"]))
            for letter, name in KINDS.items():
                self.assertEqual(heap["backed"][name], sum(r["backing"].count(letter) * r["count"] for r in rows), name)
            for r in rows:
                self.assertEqual([len(r[k]) for k in ("backing", "large", "full")], [32] * 3)
                for backing, large, full in zip(r["backing"], r["large"], r["full"]):
                    self.assertLessEqual(full, 100)
                    if backing not in KINDS:
                        self.assertEqual((large, full), (".", 0))
            # Objects begin and end.
            self.assertRegex("".join(r["large"] for r in rows if r["count"] == 1), r"^(\.|O|\[=*\])*$")

    def of(self, child):
        r = tool("map", child.pid, "--json")
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        m = json.loads(r.stdout)
        self.check(m)
        return m

    def test_known_contents(self):
        for threads, env in ((1, {}), (8, {}), (2, {"NUMAHEAP_RSEQ": "off"}), (2, {"NUMAHEAP_HUGEPAGES": "off"})):
            child = self.live_program(threads, **env)
            inside = self.statistics(child)
            m = self.of(child)
            stats = {(n["kind"], n["id"]): n for n in inside["nodes"]}
            for (kind, node), n in stats.items():
                heaps = [h for h in m["heaps"] if (h["kind"], h["node"]) == (kind, node)]
                for key, names in (("hugetlb_bytes", ("2m", "1g")), ("thp_bytes", ("thp",)), ("base_bytes", ("base",))):
                    self.assertEqual(n[key], UNIT * sum(h["backed"][name] for h in heaps for name in names), (kind, key))
                objects = sum(h["object_bytes"] for h in heaps)
                # Objects in CPUs' caches count; each unit is rounded down, by a byte per span at most.
                self.assertLessEqual(abs(objects - n["live_bytes"] - n["cached_bytes"]), 4096 + n["spans"], kind)
            # Two objects of 10 MiB per thread, in whichever heap, each with four or five units for itself.
            large = ["".join(r["large"] * r["count"] for r in h["arenas"]) for h in m["heaps"]]
            objects = [o for text in large for o in re.findall(r"\[=*\]", text)]
            self.assertEqual(len(objects), 2 * threads, large)
            self.assertLessEqual({len(o) for o in objects}, {4, 5, 6})
            if env.get("NUMAHEAP_HUGEPAGES") == "off":
                self.assertEqual({b for h in m["heaps"] for r in h["arenas"] for b in r["backing"]} - set(".-"), {"b"})

    def test_one_object_of_many_arenas(self):
        source = os.path.join(self.dir, "huge.c")
        with open(source, "w") as f:
            f.write("#include <stdlib.h>\n#include <unistd.h>\nint main() { char* p = malloc(1ul << 40); if (!p) return 1; "
                    'p[0] = 1; write(1, "r\\n", 2); pause(); }')
        program = os.path.join(self.dir, "huge")
        subprocess.run(["cc", "-O0", "-w", "-o", program, source], check=True)
        child = self.start(program, NUMAHEAP_HUGEPAGES="off")
        if child.stdout.readline() != "r\n":
            self.skipTest("this machine does not let a process have a TiB of address space")
        m = self.of(child)
        heap = next(h for h in m["heaps"] if h["large_objects"] == 1)
        self.assertGreaterEqual(heap["units"] * UNIT, 1 << 40)
        self.assertLessEqual(len(heap["arenas"]), 4)
        self.assertGreaterEqual(heap["object_bytes"], 1 << 40)
        self.assertIn(" arenas", tool("map", child.pid).stdout)

    def test_file_is_what_was_read(self):
        child = self.live_program(2)
        self.statistics(child)
        kept = tool("map", child.pid, "--json").stdout
        path = self.file(kept)
        self.assertEqual(tool("map", path, "--json").stdout, kept)
        self.assertEqual(tool("map", path).stdout, tool("map", child.pid).stdout)

    def test_text(self):
        for nodes, units in ((1, 10), (4, 2000)):
            m = made_up(nodes, units)
            path = self.file(m)
            plain = tool("map", path, "--color", "none").stdout
            self.short_lines(plain)
            rows = re.findall(r"^(0x\w+) +(\S.*)$", plain, re.M)
            arenas = [a for h in m["heaps"] for a in h["arenas"]]
            self.assertEqual([address for address, _ in rows], [a["address"] for a in arenas])
            for (_, cells), arena in zip(rows, arenas):
                letters = cells.ljust(64)[0:64:2].replace("\u00b7", ".")
                self.assertEqual(letters, arena["backing"])
                for level, large, full in zip(cells.ljust(64)[1:64:2], arena["large"], arena["full"]):
                    if large != ".":
                        self.assertEqual(level, large)
                    else:
                        self.assertEqual((level == " ", level == "\u2588"), (full == 0, full == 100))
            # Colours add nothing but colours.
            for mode, mark in (("true", "\033[38;2;"), ("256", "\033[38;5;")):
                colored = tool("map", path, "--color", mode).stdout
                self.assertIn(mark, colored)
                bare = re.sub(r"\033\[[0-9;]*m", "", colored)
                self.short_lines(bare)
                self.assertEqual(re.findall(r"^0x.*$", bare, re.M), re.findall(r"^0x.*$", plain, re.M))
            ascii_only = subprocess.run([*tool("map", path).args], env=dict(environment(), LC_ALL="C"), capture_output=True)
            self.assertTrue(ascii_only.stdout.isascii())

    def boxes(self, root):
        """What texts cover, by a width that letters of this font have at most."""
        for t in root.iter(SVG + "text"):
            size = {"title": 18, "heap": 14, "address": 10}.get(t.get("class"), 12)
            x, y = int(t.get("x")), int(t.get("y"))
            yield t.text, x, y - size, x + len(t.text) * size * 0.62, y

    def test_svg(self):
        for nodes, units in ((1, 10), (4, 2000), (8, 40)):
            m = made_up(nodes, units)
            target = os.path.join(self.dir, "map.svg")
            self.assertEqual(tool("map", self.file(m), "--svg", target).returncode, 0)
            root = ElementTree.parse(target).getroot()
            width, height = int(root.get("width")), int(root.get("height"))
            self.assertLess(width, 1700)
            # A cell per unit, coloured by its backing. Partly full ones consist of two pieces.
            panels = root.findall(SVG + "g")
            self.assertEqual(len(panels), len(m["heaps"]))
            cells = [rect for panel in panels for rect in panel.iter(SVG + "rect") if rect.get("width") == "13"]
            letters = [b for h in m["heaps"] for a in h["arenas"] for b in a["backing"]]
            full = [f for h in m["heaps"] for a in h["arenas"] for f in a["full"]]
            classes = [rect.get("class") for rect in cells]
            for letter in KINDS:
                mine = [f for b, f in zip(letters, full) if b == letter]
                self.assertEqual(classes.count("empty" + letter), sum(f < 100 for f in mine))
                self.assertEqual(classes.count("full" + letter), sum(f > 0 for f in mine))
            self.assertEqual(classes.count("mapped"), letters.count("-"))
            self.assertEqual(classes.count("reserved"), letters.count("."))
            # An outline for each large object, and another one for each further row that it reaches.
            outlines = sum(len(re.findall(r"O|\[=*\]?|^=+\]?|^\]", a["large"])) for h in m["heaps"] for a in h["arenas"])
            self.assertEqual(len(root.findall(f".//{SVG}path")), outlines)
            # Nothing lies outside, no text on another.
            for rect in root.iter(SVG + "rect"):
                if rect.get("x"):
                    self.assertLessEqual(int(rect.get("x")) + int(rect.get("width")), width)
                    self.assertLessEqual(int(rect.get("y")) + int(rect.get("height")), height)
            boxes = list(self.boxes(root))
            for text, left, top, right, bottom in boxes:
                self.assertTrue(left >= 0 and top >= 0 and right <= width and bottom <= height, (text, right, width))
            for i, a in enumerate(boxes):
                for b in boxes[i + 1:]:
                    apart = a[3] <= b[1] or b[3] <= a[1] or a[4] <= b[2] or b[4] <= a[2]
                    self.assertTrue(apart, f"{a[0]!r} and {b[0]!r} lie on each other")
            self.assertIn('solver <"&>, process 4711', [t.text for t in root.iter(SVG + "text")])

    def test_files_that_are_no_maps(self):
        good = made_up(1, 10)
        for content, text in (("", "it is no JSON"), ("{", "it is no JSON"), ("[" * 100000, "it is no JSON"),
                              ("{}", "it is no map"), ('{"nodes": []}', "it holds statistics, not a map"),
                              (dict(good, numaheap_map=2), "another version"),
                              (dict(good, heaps=[{"kind": "bananas"}]), "heap 0 of it cannot be understood"),
                              (dict(good, heaps=[dict(good["heaps"][0], arenas=[{"backing": "MM"}])]), "heap 0 of it")):
            self.complaint(tool("map", self.file(content)), 1, text)
        self.complaint(tool("map", os.path.join(self.dir, "none.json")), 1, "cannot read .*: No such file")
        # Whatever else is changed, the tool gets along.
        text = json.dumps(good)
        rng = random.Random(3)
        for _ in range(60):
            at = rng.randrange(len(text))
            r = tool("map", self.file(text[:at] + rng.choice(['"', "9", "-", "{", "]", "\\", "e", ""]) + text[at + 1:]))
            self.assertIn(r.returncode, (0, 1))

    def test_words(self):
        for words, text in (((), "of which process or file"), (("1", "2"), "not '2', too"), (("-x",), "no such option '-x'"),
                            (("1", "--svg"), "--svg needs a value"), (("1", "--color", "red"), "accepts auto.true.256.none"),
                            (("1", "--svg", "x", "--json"), "one of --json and --svg")):
            self.complaint(tool("map", *words), 2, text)
        path = self.file(made_up(1, 10))
        self.complaint(tool("map", path, "--svg", self.dir + "/none/x.svg"), 1, "cannot write .*: No such file")


if __name__ == "__main__":
    main()
