// What the nodes' memory is good for at the moment: whether we may use it, and whether there is any left.
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/format.h"
#include "base/scan.h"
#include "os/linux_calls.h"
#include "os/procfs.h"

namespace nh::linux_os_detail {
namespace {

// Other processes and our own other threads fault memory in between the look and the use of it.
constexpr std::size_t kMarginShare = 64;  // of the node's memory

// What the kernel keeps back on a node of this size. Each node has a share of min_free_kbytes by its size; half as much
// again is where reclaim stops.
std::size_t kept_back(std::uint64_t node_bytes) {
  std::uint64_t kib = 0;
  if (!read_number("/proc/sys/vm/min_free_kbytes", &kib)) return 64 * MiB;
  std::uint64_t machine_kib = 0;
  LineReader lines("/proc/meminfo");
  // "MemTotal:       24579480 kB", the first line.
  for (std::string_view line; machine_kib == 0 && lines.next(&line);) {
    std::string_view number = trimmed(after(line, ':'));
    if (head(line, 9) == "MemTotal:" && !take_decimal(&number, &machine_kib)) break;
  }
  const std::uint64_t node_kib = node_bytes / KiB;
  const std::uint64_t share = machine_kib <= node_kib ? kib : kib * node_kib / machine_kib;
  return (share + share / 2) * KiB;
}

}  // namespace

// Clean pages of files count for half, as in the kernel's own MemAvailable: some of them are in use for good.
bool node_has_room(NodeId node, std::size_t bytes) {
  Text<80> path;
  path.text("/sys/devices/system/node/node").sdec(node.value).text("/meminfo");
  std::uint64_t total = 0, free = 0, files = 0;
  LineReader lines(path.c_str());
  // "Node 0 MemFree:          714224 kB"
  for (std::string_view line; lines.next(&line);) {
    std::string_view field = trimmed(after(after(before(line, ':'), ' '), ' '));
    std::string_view number = trimmed(after(line, ':'));
    std::uint64_t kib = 0;
    if (!take_decimal(&number, &kib)) continue;
    if (field == "MemTotal") total = kib * KiB;
    if (field == "MemFree") free = kib * KiB;
    if (field == "Active(file)" || field == "Inactive(file)") files += kib * KiB;
  }
  if (total == 0) return true;
  return free + files / 2 >= bytes + total / kMarginShare + kept_back(total);
}

bool allowed_nodes(NodeSet* out) {
  const ErrnoKeeper keep;
  *out = NodeSet();
  return ::syscall(SYS_get_mempolicy, nullptr, out->words(), (unsigned long){NodeSet::kBits}, nullptr, MPOL_F_MEMS_ALLOWED) == 0;
}

}  // namespace nh::linux_os_detail
