// Statistics on their way out: to the caller of the public API, to malloc_stats() and malloc_info(), to the files and
// tables that NUMAHEAP_STATS and NUMAHEAP_REPORT ask for at exit. Texts are built in one static buffer under a lock, so
// that no report allocates or changes what it reports.
#include <cerrno>
#include <cstdio>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

#include "process/malloc_info.h"
#include "process/process.h"
#include "process/stats.h"
#include "process/upkeep.h"
#include "base/check.h"

namespace nh {
namespace {

Lock g_lock{LockRank::kInit};
// The JSON object of a heap takes about 550 bytes.
char g_buffer[kMaxHeaps * 700];

// Builds a text with `write` and hands it to `use`.
template <typename Write, typename Use>
void with_text(Write&& write, Use&& use) {
  LockGuard guard(g_lock);
  TextWriter out(g_buffer, sizeof g_buffer);
  write(out);
  use(out.view());
}

bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

int copy_out(std::string_view text, char* buffer, std::size_t capacity) {
  if (capacity != 0) {
    const std::size_t n = text.size() < capacity ? text.size() : capacity - 1;
    std::memcpy(buffer, text.data(), n);
    buffer[n] = '\0';
  }
  return static_cast<int>(text.size());
}

void write_stats_file(const char* pattern) {
  Text<1200> path;
  for (const char* c = pattern; *c != '\0'; c++) {
    if (c[0] == '%' && c[1] == 'p') {
      path.sdec(getpid());
      c++;
    } else {
      path.ch(*c);
    }
  }
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  bool ok = fd >= 0;
  if (ok) {
    const bool json = path.view().ends_with(".json");
    with_text([&](TextWriter& out) { json ? write_stats_json(out) : write_stats_text(out); },
              [&](std::string_view text) { ok = write_all(fd, text); });
    ok &= ::close(fd) == 0;
  }
  if (!ok) {
    const int error = errno;
    Text<1400> line;
    line.text("NUMAHEAP_STATS: cannot write ").text(path.view()).text(" (errno ").sdec(error).ch(')');
    warn_line(line.c_str());
  }
}

// Programs close stderr in an atexit function to see write errors (coreutils do), before our destructor runs.
int g_stderr_copy = -1;

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
  if (!options.report && std::strcmp(options.stats.c_str(), "stderr") != 0) return;
  // Above the numbers that shells and daemons hand out themselves.
  constexpr int kOutOfTheWay = 100;
  g_stderr_copy = ::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, kOutOfTheWay);
}

void report_at_exit() {
  if (!started()) return;
  const Options& options = g_process.options;
  const int fd = g_stderr_copy >= 0 ? g_stderr_copy : STDERR_FILENO;
  auto to_stderr = [fd](std::string_view text) { write_all(fd, text); };
  if (std::strcmp(options.stats.c_str(), "stderr") == 0) {
    with_text(write_stats_text, to_stderr);
  } else if (!options.stats.empty()) {
    write_stats_file(options.stats.c_str());
  }
  if (wants_report()) with_text(write_report, to_stderr);
}

void repair_reports_after_fork() {
  if (g_lock.held() && !g_lock.held_by_me()) g_lock.reset_after_fork();
}

struct mallinfo2 collect_mallinfo() {
  struct mallinfo2 info = {};
  if (!started()) return info;
  std::uint64_t cached[kMaxHeaps];
  g_caches.totals(cached);
  for (unsigned i = 0; i < g_process.heaps.count(); i++) {
    const numaheap_heap_stats s = collect_heap(i, cached[i]);
    info.arena += s.committed_bytes;
    info.hblks += s.large_objects;
    info.hblkhd += s.hugetlb_bytes;
    info.uordblks += s.live_bytes;
    info.fordblks += s.cached_bytes + s.free_bytes;
    info.keepcost += s.free_bytes;
  }
  return info;
}

void write_malloc_stats() {
  if (!ensure_started()) return;
  with_text(write_stats_text, [](std::string_view text) { write_all(STDERR_FILENO, text); });
}

int write_malloc_info(int options, FILE* stream) {
  if (options != 0) {
    errno = EINVAL;
    return -1;
  }
  if (!ensure_started()) return -1;
  // stdio may allocate, so it is called with no lock held and a text that is finished.
  const struct mallinfo2 info = collect_mallinfo();
  Text<1024> out;
  out.text("<malloc version=\"numaheap ").text(numaheap_version()).text("\">\n");
  auto element = [&](const char* type, std::size_t bytes) {
    out.text("<total type=\"").text(type).text("\" size=\"").dec(bytes).text("\"/>\n");
  };
  element("live", info.uordblks);
  element("free", info.fordblks);
  element("hugetlb", info.hblkhd);
  out.text("<system type=\"current\" size=\"").dec(info.arena).text("\"/>\n");
  out.text("<large count=\"").dec(info.hblks).text("\"/>\n</malloc>\n");
  return std::fwrite(out.view().data(), 1, out.size(), stream) == out.size() ? 0 : -1;
}

}  // namespace nh

#define NH_EXPORT extern "C" [[gnu::visibility("default")]]

NH_EXPORT int numaheap_stats_text(char* buffer, size_t capacity) {
  int length = 0;
  if (!nh::ensure_started()) return 0;
  nh::with_text(nh::write_stats_text, [&](std::string_view text) { length = nh::copy_out(text, buffer, capacity); });
  return length;
}

NH_EXPORT int numaheap_stats_json(char* buffer, size_t capacity) {
  int length = 0;
  if (!nh::ensure_started()) return 0;
  nh::with_text(nh::write_stats_json, [&](std::string_view text) { length = nh::copy_out(text, buffer, capacity); });
  return length;
}
