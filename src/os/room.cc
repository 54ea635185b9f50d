#include "os/room.h"

#include <cstdint>
#include <string_view>

#include <sys/resource.h>

#include "base/format.h"
#include "base/scan.h"
#include "os/linux_calls.h"
#include "os/procfs.h"

namespace nh {
namespace {

std::size_t minus(std::size_t a, std::size_t b) { return a > b ? a - b : 0; }
std::size_t least(std::size_t a, std::size_t b) { return a < b ? a : b; }

// Calls visit(name, bytes) for the lines "Name: number kB" of a file; `skip` words stand before each name.
template <typename Visit>
bool for_each_field(const char* path, unsigned skip, Visit&& visit) {
  LineReader lines(path);
  bool any = false;
  for (std::string_view line; lines.next(&line);) {
    for (unsigned i = 0; i < skip; i++) line = trimmed(after(line, ' '));
    std::string_view number = trimmed(after(line, ':'));
    std::uint64_t kib = 0;
    if (!take_decimal(&number, &kib)) continue;
    visit(before(line, ':'), kib * KiB);
    any = true;
  }
  return any;
}

// What the kernel keeps back of so much memory: reclaim and the killer begin above it.
std::size_t kept_back(std::size_t bytes, std::size_t of_machine) {
  std::uint64_t kib = 0;
  if (!read_number("/proc/sys/vm/min_free_kbytes", &kib)) return 64 * MiB;
  const std::size_t all = kib * KiB + kib * KiB / 2;
  return of_machine <= bytes ? all : static_cast<std::size_t>(static_cast<double>(all) * static_cast<double>(bytes) /
                                                              static_cast<double>(of_machine));
}

struct MachineMemory {
  std::size_t total = 0, free = 0, files = 0, commit_limit = 0, committed = 0;
};

MachineMemory machine_memory() {
  MachineMemory m;
  for_each_field("/proc/meminfo", 0, [&](std::string_view name, std::size_t bytes) {
    if (name == "MemTotal") m.total = bytes;
    if (name == "MemFree") m.free = bytes;
    if (name == "Active(file)" || name == "Inactive(file)") m.files += bytes;
    if (name == "CommitLimit") m.commit_limit = bytes;
    if (name == "Committed_AS") m.committed = bytes;
  });
  return m;
}

// Clean pages of files count for half, as in the kernel's own MemAvailable: some of them are in use for good.
std::size_t room_of(const MachineMemory& m) {
  return m.total == 0 ? SIZE_MAX : minus(m.free + m.files / 2, kept_back(m.total, m.total));
}

std::size_t room_under(std::size_t used, int resource) {
  rlimit limit;
  if (getrlimit(static_cast<__rlimit_resource>(resource), &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return SIZE_MAX;
  return minus(limit.rlim_cur, used);
}

}  // namespace

std::size_t room_of_group() {
  MemoryLimit group;
  linux_os().forget_state();
  return linux_os().memory_limit(&group) ? minus(group.limit, group.used) : SIZE_MAX;
}

std::size_t room_of_machine() {
  const linux_os_detail::ErrnoKeeper keep;
  return least(room_of(machine_memory()), room_of_group());
}

std::size_t room_of_process() {
  const linux_os_detail::ErrnoKeeper keep;
  const MachineMemory machine = machine_memory();
  std::size_t room = room_of(machine);
  std::uint64_t overcommit = 0;
  if (read_number("/proc/sys/vm/overcommit_memory", &overcommit) && overcommit == 2) {
    room = least(room, minus(machine.commit_limit, machine.committed));
  }
  std::size_t mapped = 0, data = 0;
  for_each_field("/proc/self/status", 0, [&](std::string_view name, std::size_t bytes) {
    if (name == "VmSize") mapped = bytes;
    if (name == "VmData") data = bytes;
  });
  room = least(room, room_under(mapped, RLIMIT_AS));
  room = least(room, room_under(data, RLIMIT_DATA));
  return least(room, room_of_group());
}

std::size_t room_of_node(NodeId node) {
  Text<80> path;
  path.text("/sys/devices/system/node/node").sdec(node.value).text("/meminfo");
  std::size_t total = 0, free = 0, files = 0;
  // "Node 0 MemFree:          714224 kB"
  for_each_field(path.c_str(), 2, [&](std::string_view name, std::size_t bytes) {
    if (name == "MemTotal") total = bytes;
    if (name == "MemFree") free = bytes;
    if (name == "Active(file)" || name == "Inactive(file)") files += bytes;
  });
  return total == 0 ? SIZE_MAX : minus(free + files / 2, kept_back(total, machine_memory().total));
}

ProcessFacts process_facts() {
  ProcessFacts facts;
  LineReader lines("/proc/self/status");
  for (std::string_view line; lines.next(&line);) {
    std::string_view number = trimmed(after(line, ':'));
    std::uint64_t value = 0;
    if (!take_decimal(&number, &value)) continue;
    if (before(line, ':') == "Threads") facts.threads = value;
    if (before(line, ':') == "Seccomp") facts.filtered = value == 2;
  }
  return facts;
}

}  // namespace nh
