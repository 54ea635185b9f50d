"""numaheap in gdb: what a pointer is, what the heaps hold, which spans there are. In a running process or a core file.

    (gdb) source scripts/gdb/numaheap.py
    (gdb) numaheap ptr P          the object that P points to or into: size, place, whether it is free
    (gdb) numaheap heap           a row per heap: what is in use, how much memory backs it, on which pages
    (gdb) numaheap spans SIZE     the spans of objects of SIZE bytes; SIZE may be "large"

Reads memory only, and calls nothing in the process. It goes by the library's debug information, so it fits the library
that it finds, and needs one that was built with it (as scripts/build does).
"""
import struct

import gdb

PAGE_SHIFT, ARENA_SHIFT, UNIT = 13, 26, 2 << 20
PAGES_PER_ARENA = 1 << (ARENA_SHIFT - PAGE_SHIFT)
USE = ("free pages", "in use", "in use, sampled", "free (kept by a CPU, or on its way into its heap)")
HEAPS = ("node", "first touch", "touched pages", "interleaved", "paged")
PAGES = ("base", "THP", "2M", "1G")
SMALL_LISTS, TINY, LARGE, FIRST_BIN = 136, 136, 137, 138
PLACED = 0x100


def evaluate(text):
    try:
        return gdb.parse_and_eval(text)
    except gdb.error as error:
        raise gdb.GdbError(f"numaheap: {error}. Is libnumaheap in the process, and built with debug information?")


def atomic(value):
    return int(value["_M_i"])


def human(count):
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


class Span:
    """A span's descriptor, read once."""

    def __init__(self, address):
        value = gdb.Value(address).cast(gdb.lookup_type("nh::MSpan").pointer()).dereference()
        self.address = address
        self.start, self.pages = int(value["start_addr"]), int(value["npages"])
        self.object_size, self.objects, self.taken = int(value["elem_size"]), int(value["nelems"]), int(value["alloc_count"])
        self.code = int(value["span_class"]["code_"])
        self.heap, self.use = int(value["heap"]), int(value["use"])
        self.lines = int(value["free_index"])
        self.site = int(value["sample"]["site"])

    @property
    def list(self):
        return self.code & (PLACED - 1)

    @property
    def is_large(self):
        return self.list >= LARGE

    @property
    def is_tiny(self):
        return self.list == TINY

    @property
    def end(self):
        return self.start + (self.pages << PAGE_SHIFT)

    @property
    def first_object(self):
        return self.start + self.lines * 64 if self.is_large else self.start

    def kind(self):
        if self.list == LARGE:
            return "large object"
        if self.is_large:
            return "large object that CPUs keep"
        if self.is_tiny:
            return "blocks of tiny objects"
        return "objects" + (" without pointers" if self.code & 1 else "") + (", placed" if self.code & PLACED else "")


class Heap:
    """The heap of the process, as far as these commands need it."""

    def __init__(self):
        self.process = evaluate("nh::g_process")
        space = self.process["space"]
        self.base, self.used = int(space["base_"]), atomic(space["used_bytes_"])
        self.spans, self.owners = int(space["spans_"]["place_"]), int(space["owners_"]["place_"])
        self.inferior = gdb.selected_inferior()
        if self.used == 0:
            raise gdb.GdbError("numaheap: the heap has not been started yet")

    def words(self, address, count, letter):
        size = struct.calcsize(letter)
        return struct.unpack(f"<{count}{letter}", bytes(self.inferior.read_memory(address, count * size)))

    def contains(self, p):
        return self.base <= p < self.base + self.used

    def arena_has_heap(self, arena):
        return self.words(self.owners + arena * 8, 1, "I")[0] != 0

    def spans_of_arena(self, arena):
        table = self.words(self.spans + arena * PAGES_PER_ARENA * 8, PAGES_PER_ARENA, "Q")
        return [Span(address) for address in table if address != 0]

    def all_spans(self):
        for arena in range(self.used >> ARENA_SHIFT):
            if self.arena_has_heap(arena):
                yield from self.spans_of_arena(arena)

    def span_around(self, p):
        """Only the first page of a span knows it; large ones may have begun arenas before."""
        page = (p - self.base) >> PAGE_SHIFT
        arena = page // PAGES_PER_ARENA
        while arena >= 0 and self.arena_has_heap(arena):
            table = self.words(self.spans + arena * PAGES_PER_ARENA * 8, PAGES_PER_ARENA, "Q")
            last = page - arena * PAGES_PER_ARENA if page // PAGES_PER_ARENA == arena else PAGES_PER_ARENA - 1
            for at in range(last, -1, -1):
                if table[at] != 0:
                    span = Span(table[at])
                    return span if p < span.end else None
            arena -= 1
        return None

    def name_of_heap(self, number):
        config = self.process["heaps"]["heaps_"][number]["heap"]["config_"]
        kind, node = HEAPS[int(config["backing"]["kind"])], int(config["node"]["value"])
        if kind == "node":
            return f"{kind} {node}"
        return f"{kind} (twin of heap {number - self.twins()})" if kind in ("paged", "touched pages") else kind

    def twins(self):
        return int(self.process["originals"])

    def is_marked_free(self, p):
        return self.words(p + 8, 1, "Q")[0] == int(evaluate("nh::g_free_key")) ^ p

    def place_of(self, span):
        """The stack that allocated a sampled object."""
        site = evaluate("nh::g_sites")["sites_"]["_M_b"]["_M_p"][span.site]
        for i in range(atomic(site["depth"])):
            yield int(site["frame"][i])


def describe(heap, p):
    if p == 0:
        return "null"
    if not heap.contains(p):
        return f"{p:#x} is not memory of numaheap"
    span = heap.span_around(p)
    if span is None:
        return f"{p:#x} lies in pages of numaheap that are free"
    lines = [f"{p:#x} lies in a span of {span.pages} pages at {span.start:#x}: {span.kind()}, heap {span.heap} "
             f"({heap.name_of_heap(span.heap)})"]
    if span.is_large:
        lines.append(f"  object {span.first_object:#x}, {human(span.object_size)}, "
                     + ("free" if span.list != LARGE and heap.is_marked_free(span.first_object) else USE[span.use]))
        lines += offset_line(p, span.first_object)
        if span.use == 2:
            lines.append("  allocated at")
            lines += ["    " + gdb.execute(f"info symbol {frame:#x}", to_string=True).strip() for frame in heap.place_of(span)]
        return "\n".join(lines)
    if span.is_tiny or span.object_size == 8:
        lines.append(f"  {span.objects} blocks of {span.object_size} bytes; which objects live is told by their start bits")
        return "\n".join(lines)
    index = (p - span.start) // span.object_size
    if index >= span.objects:
        lines.append("  behind its last object")
        return "\n".join(lines)
    first = span.start + index * span.object_size
    state = "free" if heap.is_marked_free(first) else "in use"
    lines.append(f"  object {first:#x}, {span.object_size} bytes, number {index} of {span.objects}, {state}")
    return "\n".join(lines + offset_line(p, first))


def offset_line(p, first):
    return [] if p == first else [f"  {p:#x} is {abs(p - first)} bytes {'into it' if p > first else 'before it'}"]


class Numaheap(gdb.Command):
    """What numaheap knows: ptr, heap, spans. `help numaheap ptr` and so on."""

    def __init__(self):
        super().__init__("numaheap", gdb.COMMAND_DATA, prefix=True)


class Ptr(gdb.Command):
    """numaheap ptr P: the object that P points to or into: its size, its place, whether it is free."""

    def __init__(self):
        super().__init__("numaheap ptr", gdb.COMMAND_DATA, gdb.COMPLETE_EXPRESSION)

    def invoke(self, argument, from_tty):
        if not argument:
            raise gdb.GdbError("numaheap ptr: which pointer? An expression is missing.")
        print(describe(Heap(), int(evaluate(argument).cast(gdb.lookup_type("unsigned long")))))


class HeapTable(gdb.Command):
    """numaheap heap: a row per heap."""

    def __init__(self):
        super().__init__("numaheap heap", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        heap = Heap()
        print(f"window {heap.base:#x} .. {heap.base + heap.used:#x} ({human(heap.used)} of addresses)")
        print(f"{'heap':>4}  {'kind':<24} {'spans':>8} {'large':>7} {'in use':>12}  backed on")
        heaps = heap.process["heaps"]
        for number in range(int(heaps["count_"])):
            one = heaps["heaps_"][number]["heap"]
            backed = [(name, atomic(one["backed_"][i]) * UNIT) for i, name in enumerate(PAGES)]
            pages = ", ".join(f"{name} {human(size)}" for name, size in backed if size) or "nothing"
            print(f"{number:>4}  {heap.name_of_heap(number):<24} {atomic(one['spans_']):>8} {atomic(one['large_objects_']):>7} "
                  f"{human(atomic(one['in_use_'])):>12}  {pages}")


class Spans(gdb.Command):
    """numaheap spans SIZE: the spans of objects of SIZE bytes; "large": the large objects."""

    MOST = 50

    def __init__(self):
        super().__init__("numaheap spans", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        if argument != "large" and not argument.isdigit():
            raise gdb.GdbError('numaheap spans: takes the size of the objects in bytes, or "large"')
        shown = objects = taken = total = 0
        for span in Heap().all_spans():
            wanted = span.is_large if argument == "large" else not span.is_large and span.object_size == int(argument)
            if not wanted:
                continue
            total += 1
            objects += 1 if span.is_large else span.objects
            taken += 1 if span.is_large else span.taken
            if shown < self.MOST:
                shown += 1
                state = f"{human(span.object_size)}, {USE[span.use]}" if span.is_large else f"{span.taken} of {span.objects} taken"
                print(f"{span.start:#x}  heap {span.heap}  {span.pages} pages  {span.kind()}, {state}")
        if total > shown:
            print(f"... and {total - shown} more")
        print(f"{total} spans, {taken} of {objects} objects are with the program or in CPUs' caches")


Numaheap()
Ptr()
HeapTable()
Spans()
