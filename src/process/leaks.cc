#include "process/leaks.h"

#include <algorithm>
#include <cerrno>

#include <unistd.h>

#include "base/bits.h"
#include "base/format.h"
#include "base/check.h"
#include "base/lock.h"
#include "base/scan.h"
#include "base/stderr.h"
#include "os/loader.h"
#include "process/background.h"
#include "process/leak_marking.h"
#include "process/leak_roots.h"
#include "process/process.h"
#include "process/sampling.h"
#include "process/stopped_threads.h"

namespace nh {
namespace {

Lock g_lock{LockRank::kInit};

constexpr unsigned kClassRows = kSizeClasses + kLargeBins;
constexpr unsigned kSizeRows = kClassRows + 64;  // larger objects by powers of two
constexpr std::size_t kMostLines = 20;
constexpr std::size_t kColumns = 100;
constexpr std::size_t kReportBytes = 16 * KiB;

// What was lost of one size or at one site: [0] directly, [1] indirectly.
struct Row {
  unsigned key = 0;
  std::uint64_t bytes[2] = {};
  std::uint64_t objects[2] = {};  // in 1/kObjectUnit
  std::uint64_t all_bytes() const { return bytes[0] + bytes[1]; }
  void add(bool direct, std::uint64_t more_bytes, std::uint64_t more_objects) {
    bytes[!direct] += more_bytes;
    objects[!direct] += more_objects;
  }
};

struct Findings {
  bool by_site = false;
  Scratch<Row> rows;
  numaheap_leaks sums = {};

  bool prepare() {
    by_site = g_sites.ready();
    return rows.make(by_site ? Sites::kMost : kSizeRows);
  }
};

unsigned size_row(const LeakMarking::Object& object) {
  const SpanClass c = object.span->span_class;
  return c == kLargeClass ? kClassRows + log2_floor(object.bytes | 1) : c.row();
}

void note(void* to, const LeakMarking::Object& object, bool direct) {
  Findings& found = *static_cast<Findings*>(to);
  (direct ? found.sums.direct_objects : found.sums.indirect_objects)++;
  (direct ? found.sums.direct_bytes : found.sums.indirect_bytes) += object.bytes;
  if (!found.by_site) {
    found.rows[size_row(object)].add(direct, object.bytes, kObjectUnit);
  } else if (object.span->sampled()) {
    found.rows[object.span->sample.site].add(direct, object.span->sample.bytes, object.span->sample.objects);
  }
}

void mark_from(void* marking, std::uintptr_t start, std::uintptr_t end) {
  static_cast<LeakMarking*>(marking)->mark_from(start, end);
}

// With the other threads stopped. EAGAIN: what was prepared has become too small.
int look_at_rest(LeakMarking& marking, LeakRoots& roots, const StoppedThreads& threads, std::uintptr_t stack_pointer,
                 Findings* found) {
  if (!marking.collect() || !roots.leave_out_heap()) return EAGAIN;
  bool all = true;
  const auto leave_out = [&](std::uintptr_t start, std::uintptr_t end) { all = all && roots.leave_out(start, end); };
  marking.for_each_table(leave_out);
  leave_out(address(threads.memory().begin()), address(threads.memory().begin()) + threads.memory().bytes());
  if (!all) return EAGAIN;
  // The stack may be an object itself.
  marking.mark_from(address(&stack_pointer), address(&stack_pointer + 1));
  threads.for_each_registers(mark_from, &marking);
  // A thread that was stopped while it takes a tiny object may know no more than the cache. So what is lost of the block that a
  // CPU fills is missed.
  g_caches.for_each([&](CpuCache& cache) { marking.mark_from(address(&cache.tiny_block), address(&cache.tiny_block + 1)); });
  if (const int error = roots.for_each(threads, stack_pointer, mark_from, &marking); error != 0) return error;
  marking.for_each_lost(note, found);
  found->sums.running_threads = threads.running();
  return 0;
}

int look_once(std::uintptr_t stack_pointer, Findings* found) {
  LeakMarking marking;
  LeakRoots roots;
  StoppedThreads threads;
  if (!marking.prepare() || !roots.prepare() || !threads.prepare()) return ENOMEM;
  pause_background();
  threads.stop();
  const int error = look_at_rest(marking, roots, threads, stack_pointer, found);
  threads.resume();
  resume_background();
  return error;
}

int look(std::uintptr_t stack_pointer, Findings* found) {
  constexpr int kAttempts = 4;
  LockGuard guard(g_lock);
  int error = found->prepare() ? EAGAIN : ENOMEM;
  for (int i = 0; i < kAttempts && error == EAGAIN; i++) error = look_once(stack_pointer, found);
  return error;
}

// ---- the report ---------------------------------------------------------------------------------------------------------

std::uint64_t whole(std::uint64_t objects) { return (objects + kObjectUnit / 2) / kObjectUnit; }

void write_number(TextWriter& out, std::uint64_t n, std::size_t width) {
  Text<24> text;
  out.right(text.dec(n).view(), width);
}
void write_bytes(TextWriter& out, std::uint64_t n, std::size_t width) {
  Text<40> text;
  out.right(text.bytes(n).view(), width);
}

// "function+0x12", "libfoo.so+0x1234" where the file has no name for it, or the address alone.
void write_frame(TextWriter& out, const void* frame) {
  Dl_info info = {};
  if (!describe_address(frame, &info)) {
    out.ptr(frame);
  } else if (info.dli_sname != nullptr) {
    out.text(info.dli_sname).ch('+').hex(address(frame) - address(info.dli_saddr));
  } else {
    const std::string_view path = info.dli_fname;
    const std::size_t slash = path.rfind('/');
    out.text(slash == path.npos ? path : tail(path, slash + 1)).ch('+').hex(address(frame) - address(info.dli_fbase));
  }
}

// The innermost callers, as many as fit.
void write_site(TextWriter& out, const Site& site, std::size_t columns) {
  const unsigned depth = site.depth.load(std::memory_order_acquire);
  std::size_t used = 0;
  for (unsigned i = 0; i < depth; i++) {
    Text<300> frame;
    write_frame(frame, site.frame[i]);
    if (i != 0 && used + 3 + frame.size() > columns) break;
    out.text(i == 0 ? "" : " < ").text(frame.view());
    used += frame.size() + (i == 0 ? 0 : 3);
  }
}

void write_row(TextWriter& out, const Findings& found, const Row& row) {
  write_bytes(out, row.bytes[0], 12);
  write_number(out, whole(row.objects[0]), 10);
  write_bytes(out, row.bytes[1], 12);
  write_number(out, whole(row.objects[1]), 10);
  out.text("  ");
  if (found.by_site) {
    write_site(out, g_sites[row.key], kColumns - 46);
  } else if (row.key < kClassRows) {
    out.bytes(kSizeClassTable[row.key].bytes);
  } else {
    out.bytes(std::uint64_t{1} << (row.key - kClassRows)).text(" and more");
  }
  out.ch('\n');
}

void write_report(TextWriter& out, Findings& found) {
  const numaheap_leaks& sums = found.sums;
  out.text("numaheap: process ").sdec(::getpid()).text(" has lost ");
  if (sums.direct_objects == 0) {
    out.text("no object\n");
  } else {
    Row* const rows = found.rows.begin();
    const unsigned count = static_cast<unsigned>(found.rows.capacity());
    for (unsigned i = 0; i < count; i++) rows[i].key = i;
    std::sort(rows, rows + count, [](const Row& a, const Row& b) { return a.all_bytes() > b.all_bytes(); });
    out.text("objects: nothing points to them\n");
    out.right("directly", 12).right("objects", 10).right("indirectly", 12).right("objects", 10);
    out.text(found.by_site ? "  allocated by (estimated from samples)\n" : "  of size\n");
    std::size_t lines = 0;
    for (; lines < kMostLines && lines < count && rows[lines].all_bytes() != 0; lines++) write_row(out, found, rows[lines]);
    write_bytes(out, sums.direct_bytes, 12);
    write_number(out, sums.direct_objects, 10);
    write_bytes(out, sums.indirect_bytes, 12);
    write_number(out, sums.indirect_objects, 10);
    out.text("  in all\n");
    if (!found.by_site) out.text("  who allocated them is known with NUMAHEAP_PROFILE=/dev/null,interval=4K\n");
  }
  if (sums.running_threads == 0) return;
  out.text("  threads that block signals and were not stopped: ").dec(sums.running_threads);
  out.text("; what only their registers hold counts as lost\n");
}

// A frame of its own: the callers hold nothing of ours that could look like a pointer.
template <typename Use>
[[gnu::noinline]] int find(std::uintptr_t stack_pointer, numaheap_leaks* leaks, bool report, Use&& use) {
  Findings found;
  if (const int error = look(stack_pointer, &found); error != 0) return error;
  *leaks = found.sums;
  if (!report) return 0;
  Scratch<char> text;
  if (!text.make(kReportBytes)) return ENOMEM;
  TextWriter out(text.begin(), text.capacity());
  write_report(out, found);
  return use(out.view());
}

[[gnu::noinline]] void say_failure(int error) {
  Text<200> line;
  line.text("NUMAHEAP_LEAKS: could not look for leaks (errno ").sdec(error);
  line.text(error == ENOENT ? ": /proc is not mounted)" : error == ENOMEM ? ": no memory for the tables)" : ")");
  warn_line(line.c_str());
}

// Where the stack of the callers begins, their registers on it. What lies deeper is ours.
#define NH_STACK_WITH_REGISTERS()   \
  ({                                \
    __builtin_unwind_init();        \
    std::uintptr_t sp;              \
    asm volatile("mov %%rsp, %0" : "=r"(sp)); \
    sp;                             \
  })

}  // namespace

[[gnu::noinline]] int find_leaks(numaheap_leaks* leaks, int fd) {
  return find(NH_STACK_WITH_REGISTERS(), leaks, fd >= 0, [fd](std::string_view text) {
    return write_to(fd, text.data(), text.size()) ? 0 : errno;
  });
}

[[gnu::noinline]] void leaks_at_exit() {
  if (!started() || !g_process.options.leaks) return;
  numaheap_leaks leaks;
  // A script has many children, of which hardly any loses anything.
  const int error = find(NH_STACK_WITH_REGISTERS(), &leaks, true, [&leaks](std::string_view text) {
    if (leaks.direct_objects != 0) report_to_stderr(text.data(), text.size());
    return 0;
  });
  if (error != 0) say_failure(error);
}

void repair_leaks_after_fork() {
  if (!g_lock.held() || g_lock.held_by_me()) return;
  g_lock.reset_after_fork();
  repair_stopped_threads_after_fork();
}

}  // namespace nh
