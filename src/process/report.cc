// Statistics on their way out: to the caller of the public API, to malloc_stats() and malloc_info(), to the files and
// tables that NUMAHEAP_STATS and NUMAHEAP_REPORT ask for at exit. Texts are built in one static buffer under a lock, so
// that no report allocates or changes what it reports. Files are opened, written and closed by system call: libc's
// functions are cancellation points, and a thread that is cancelled there would keep the lock.
#include <cerrno>
#include <cstdio>
#include <cstring>

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "process/output_file.h"
#include "process/malloc_info.h"
#include "process/process.h"
#include "process/stats.h"
#include "process/upkeep.h"
#include "base/bits.h"
#include "base/check.h"
#include "base/stderr.h"
#include "os/os.h"

namespace nh {
namespace {

Lock g_lock{LockRank::kInit};
// What a text takes: beside the head the JSON object of a heap, about 550 bytes, and what is in RAM on a node, five parts of
// it, 150.
constexpr std::size_t kHeadBytes = 4 * KiB;
constexpr std::size_t kBytesPerHeap = 900;
// Enough for a machine with few nodes. Others map more for the moment, since a buffer for the largest would count in the
// virtual size of every process.
char g_buffer[16 * KiB];

// Builds a text with `write` and hands it to `use`.
template <typename Write, typename Use>
void with_text(Write&& write, Use&& use) {
  LockGuard guard(g_lock);
  const OsOps& os = linux_os();
  const std::size_t wanted = align_up(kHeadBytes + g_process.heaps.count() / 2 * kBytesPerHeap, kOsPageSize);
  void* memory = wanted <= sizeof g_buffer ? nullptr : os.reserve(wanted, kOsPageSize);
  // Without memory the text is cut.
  const bool mapped = memory != nullptr && os.make_writable(memory, wanted) == 0;
  TextWriter out(mapped ? static_cast<char*>(memory) : g_buffer, mapped ? wanted : sizeof g_buffer);
  write(out);
  use(out.view());
  if (memory != nullptr) os.unmap(memory, wanted);
}

int copy_out(std::string_view text, char* buffer, std::size_t capacity) {
  if (capacity != 0) {
    const std::size_t n = text.size() < capacity ? text.size() : capacity - 1;
    std::memcpy(buffer, text.data(), n);
    buffer[n] = '\0';
  }
  return static_cast<int>(text.size());
}

void write_stats_text_now(TextWriter& out) { write_stats_text(out, Moment::kAnytime); }
void write_stats_json_now(TextWriter& out) { write_stats_json(out, Moment::kAnytime); }

void write_stats_file(const char* pattern) {
  Text<1200> path;
  write_own_file_name(path, pattern);
  const int fd = open_to_write(path.c_str());
  bool ok = fd >= 0;
  if (ok) {
    const bool json = path.view().ends_with(".json");
    with_text([&](TextWriter& out) { json ? write_stats_json(out, Moment::kExit) : write_stats_text(out, Moment::kExit); },
              [&](std::string_view text) { ok = write_to(fd, text.data(), text.size()); });
    ok &= ::syscall(SYS_close, fd) == 0;
  }
  if (!ok) {
    const int error = fd < 0 ? -fd : errno;
    Text<1400> line;
    line.text("NUMAHEAP_STATS: cannot write ").text(path.view()).text(" (errno ").sdec(error).ch(')');
    warn_line(line.c_str());
  }
}

// Whether this process is one whose table NUMAHEAP_REPORT_PID wants.
bool wants_report() {
  const Options& options = g_process.options;
  if (!options.report) return false;
  if (options.report_pid == 0 || options.report_pid == static_cast<std::uint64_t>(getpid())) return true;
  for (unsigned i = 0; i < g_process.heaps.count(); i++) {
    const HeapStats s = g_process.heaps[HeapId(i)].heap.stats();
    if (s.committed_bytes + s.released_bytes > kHugeSize) return true;
  }
  return false;
}

}  // namespace

void prepare_report() {
  const Options& options = g_process.options;
  if (options.report || options.leaks || std::strcmp(options.stats.c_str(), "stderr") == 0) note_stderr_path();
}

void report_at_exit() {
  if (!started()) return;
  const Options& options = g_process.options;
  auto to_stderr = [](std::string_view text) { report_to_stderr(text.data(), text.size()); };
  if (std::strcmp(options.stats.c_str(), "stderr") == 0) {
    with_text([](TextWriter& out) { write_stats_text(out, Moment::kExit); }, to_stderr);
  } else if (!options.stats.empty()) {
    write_stats_file(options.stats.c_str());
  }
  if (wants_report()) with_text(write_report, to_stderr);
}

void repair_reports_after_fork() {
  if (g_lock.held() && !g_lock.held_by_me()) g_lock.reset_after_fork();
}

namespace {

// The fields mean what they mean in glibc, so that they add up for programs that know it: arena + hblkhd is all memory,
// uordblks + hblkhd what is in use, and uordblks + fordblks is arena. Large objects count as glibc's mapped blocks.
struct mallinfo2 sum_up(std::size_t* hugetlb_bytes) {
  struct mallinfo2 info = {};
  *hugetlb_bytes = 0;
  if (!started()) return info;
  std::uint64_t cached[kMaxHeaps];
  g_caches.totals(cached);
  std::size_t all = 0, idle = 0;
  for (unsigned i = 0; i < g_process.heaps.count(); i++) {
    const HeapUse use = heap_use(i, cached[i]);
    all += use.committed_bytes;
    idle += use.idle_bytes;
    *hugetlb_bytes += use.hugetlb_bytes;
    info.hblks += use.large_objects;
    info.hblkhd += use.large_bytes;
    info.uordblks += use.small_bytes;
  }
  // Other threads go on meanwhile; differences stay at or above zero all the same.
  info.arena = all > info.hblkhd ? all - info.hblkhd : 0;
  if (info.uordblks > info.arena) info.uordblks = info.arena;
  info.fordblks = info.arena - info.uordblks;
  info.keepcost = idle < info.fordblks ? idle : info.fordblks;
  return info;
}

}  // namespace

struct mallinfo2 collect_mallinfo() {
  std::size_t hugetlb_bytes;
  return sum_up(&hugetlb_bytes);
}

void write_malloc_stats() {
  if (!ensure_started()) return;
  // The program asks for it, and may have put another file in the place of stderr on purpose.
  with_text(write_stats_text_now, [](std::string_view text) { write_to(STDERR_FILENO, text.data(), text.size()); });
}

int write_malloc_info(int options, FILE* stream) {
  if (options != 0) {
    errno = EINVAL;
    return -1;
  }
  if (!ensure_started()) return -1;
  // stdio may allocate, so it is called with no lock held and a text that is finished.
  std::size_t hugetlb_bytes;
  const struct mallinfo2 info = sum_up(&hugetlb_bytes);
  Text<1024> out;
  out.text("<malloc version=\"numaheap ").text(numaheap_version()).text("\">\n");
  auto element = [&](const char* type, std::size_t bytes) {
    out.text("<total type=\"").text(type).text("\" size=\"").dec(bytes).text("\"/>\n");
  };
  element("live", info.uordblks + info.hblkhd);
  element("free", info.fordblks);
  element("hugetlb", hugetlb_bytes);
  out.text("<system type=\"current\" size=\"").dec(info.arena + info.hblkhd).text("\"/>\n");
  out.text("<large count=\"").dec(info.hblks).text("\"/>\n</malloc>\n");
  return std::fwrite(out.view().data(), 1, out.size(), stream) == out.size() ? 0 : -1;
}

}  // namespace nh

#define NH_EXPORT extern "C" [[gnu::visibility("default")]]

NH_EXPORT int numaheap_stats_text(char* buffer, size_t capacity) {
  int length = 0;
  if (!nh::ensure_started()) return 0;
  nh::with_text(nh::write_stats_text_now, [&](std::string_view text) { length = nh::copy_out(text, buffer, capacity); });
  return length;
}

NH_EXPORT int numaheap_stats_json(char* buffer, size_t capacity) {
  int length = 0;
  if (!nh::ensure_started()) return 0;
  nh::with_text(nh::write_stats_json_now, [&](std::string_view text) { length = nh::copy_out(text, buffer, capacity); });
  return length;
}
