#include "os/readings.h"

#include <cstring>

#include "base/format.h"
#include "base/scan.h"
#include "os/procfs.h"

namespace nh::readings {

bool huge_pool(std::size_t page_bytes, NodeId node, HugePool* out) {
  // .../hugepages-2048kB/, the counters are files in it.
  Text<160> path;
  if (node.valid()) {
    path.text("/sys/devices/system/node/node").dec(static_cast<std::uint64_t>(node.value)).text("/hugepages");
  } else {
    path.text("/sys/kernel/mm/hugepages");
  }
  path.text("/hugepages-").dec(page_bytes / KiB).text("kB/");
  const auto read_counter = [&path](std::string_view name, std::uint64_t* value) {
    Text<200> file;
    file.text(path.view()).text(name);
    return read_number(file.c_str(), value);
  };

  HugePool pool;
  if (!read_counter("nr_hugepages", &pool.total)) return false;
  // Missing counters mean zero: nothing promised, nothing to be had on demand. Where there are no pages, as on most
  // machines, nothing else is worth a look.
  std::uint64_t reserved = 0, allowed = 0, surplus = 0;
  if (pool.total != 0 && !read_counter("free_hugepages", &pool.free)) return false;
  if (!node.valid()) {
    if (pool.total != 0) read_counter("resv_hugepages", &reserved);
    // A number below zero is printed as one next to 2^64.
    pool.reservations_work = static_cast<std::int64_t>(reserved) >= 0;
    pool.reserved = pool.reservations_work ? reserved : 0;
    read_counter("nr_overcommit_hugepages", &allowed);
    if (allowed != 0) read_counter("surplus_hugepages", &surplus);
    pool.overcommit = allowed > surplus ? allowed - surplus : 0;
  }
  *out = pool;
  return true;
}

int thp_mode() {
  char text[128];
  if (read_file("/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof text) <= 0) return -1;
  // "always [madvise] never": the brackets mark the one in force.
  static constexpr const char* kModes[] = {"[never]", "[madvise]", "[always]"};
  for (int mode = 0; mode < 3; mode++) {
    if (std::strstr(text, kModes[mode]) != nullptr) return mode;
  }
  return -1;
}

// Clean pages of files count for half, as in the kernel's own MemAvailable: some of them are in use for good.
void node_memory(NodeId node, NodeMemory* out) {
  Text<80> path;
  path.text("/sys/devices/system/node/node").sdec(node.value).text("/meminfo");
  std::uint64_t total = 0, free = 0, files = 0;
  LineReader lines(path.c_str());
  // "Node 0 MemFree:          714224 kB"
  for (std::string_view line; lines.next(&line);) {
    const std::string_view field = trimmed(after(after(before(line, ':'), ' '), ' '));
    std::string_view number = trimmed(after(line, ':'));
    std::uint64_t kib = 0;
    if (!take_decimal(&number, &kib)) continue;
    if (field == "MemTotal") total = kib * KiB;
    if (field == "MemFree") free = kib * KiB;
    if (field == "Active(file)" || field == "Inactive(file)") files += kib * KiB;
  }
  *out = {total, free + files / 2};
}

bool promises_anything() {
  std::uint64_t mode = 0;
  return read_number("/proc/sys/vm/overcommit_memory", &mode) && mode == 1;
}

std::uint64_t min_free() {
  std::uint64_t kib = 0;
  return read_number("/proc/sys/vm/min_free_kbytes", &kib) ? kib * KiB : 64 * MiB;
}

}  // namespace nh::readings
