#include "cli/reserve.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

#include "base/options.h"
#include "base/scan.h"
#include "os/procfs.h"

namespace nh::cli {
namespace {

// Large enough that steps cost nothing, small enough that somebody who watches sees them.
constexpr std::uint64_t kStepBytes = 4 * GiB;

int write_text(const std::string& path, const std::string& text) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC);
  if (fd < 0) return errno;
  const int error = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0 : errno;
  return ::close(fd) != 0 && error == 0 ? errno : error;
}

NodePool read_pool(const ReserveRequest& request, const NodePool& before) {
  for (const NodePool& pool : node_pools(request.root, request.kib)) {
    if (pool.directory == before.directory) return pool;
  }
  return before;
}

std::string node_directory(const ReserveRequest& request, int node) {
  return request.root + "/sys/devices/system/node/node" + std::to_string(node);
}

int compact_node(const ReserveRequest& request, int node) {
  const std::string own = node_directory(request, node) + "/compact";
  return write_text(path_exists(own.c_str()) ? own : request.root + "/proc/sys/vm/compact_memory", "1");
}

// Up by steps until the kernel gives less than asked for; down at once.
void set_pool(const ReserveRequest& request, const Progress& progress, PoolChange* change) {
  const std::uint64_t step = std::max<std::uint64_t>(1, kStepBytes / request.page_bytes());
  change->after = read_pool(request, change->before);
  for (;;) {
    const std::uint64_t now = change->after.lasting();
    const std::uint64_t next = now < change->wanted ? std::min(change->wanted, now + step) : change->wanted;
    progress(change->before.node, "pages", now, change->wanted);
    change->error = write_text(change->before.directory + "/nr_hugepages", std::to_string(next));
    change->after = read_pool(request, change->before);
    if (change->error != 0 || next == change->wanted || change->after.lasting() < next) return;
  }
}

std::string right(const std::string& text, std::size_t width) {
  return std::string(width - std::min(width, text.size()), ' ') + text;
}
std::string row(std::initializer_list<std::pair<std::string, std::size_t>> cells) {
  std::string line;
  for (const auto& [text, width] : cells) line += right(text, width);
  return line + "\n";
}
std::string pages(std::uint64_t n) { return std::to_string(n) + (n == 1 ? " page" : " pages"); }

std::string sudo(const ReserveRequest& request) { return request.is_root ? "" : "sudo "; }

// Why a node has fewer pages than it was to have, and what to do.
std::string reason(const ReserveRequest& request, const PoolChange& change) {
  const std::string node = "node " + std::to_string(change.before.node) + ": ";
  if (change.error != 0) {
    return node + "the kernel refused: " + ::strerror(change.error) + " (" + change.before.directory +
           "/nr_hugepages). " +
           (request.kib >= 1048576 ? "Pages of 1 GiB may have to be set aside at boot: --persist says how."
                                   : "In a container this is the host's to do.");
  }
  const NodeState& state = change.state;
  const std::uint64_t missing = (change.wanted - change.after.lasting()) * request.page_bytes();
  std::string text = node + pages(change.wanted - change.after.lasting()) + " of " + size_name(request.page_bytes()) +
                     " refused. " + human(state.free) + " are free there, " + human(state.free_pieces) +
                     " of that in pieces of 2 MiB or more: ";
  if (state.free < missing) {
    text += "memory is in use; numastat -m tells by what. Ask for less, or when it is free.";
  } else if (!request.compact) {
    text +=
        "it is fragmented. --compact has the kernel put it together first; --persist says how to have pages at boot.";
  } else {
    text += "what lies between cannot be moved. --persist says how to have pages at boot, before it is fragmented.";
  }
  return text;
}

std::string wrapped(const std::string& text) {
  constexpr std::size_t kColumns = 100;
  std::string out;
  std::size_t column = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find(' ', at), text.size());
    if (at > 0) {
      const bool full = column + 1 + (end - at) > kColumns;
      out += full ? "\n  " : " ";
      column = full ? 2 : column + 1;
    }
    out.append(text, at, end - at);
    column += end - at;
    at = end + 1;
  }
  return out + "\n";
}

}  // namespace

bool add_wish(std::string_view text, ReserveRequest* request, std::string* problem) {
  const std::string quoted = "'" + std::string(text) + "'";
  NodeList nodes;
  const std::string_view amount = after(text, '=');
  if (amount.empty() || !parse_node_list(before(text, '='), &nodes)) {
    *problem = quoted + " is no node with an amount; write --node 0=4G, --node 0-3=4G or --node all=4G";
    return false;
  }
  std::uint64_t bytes = 0, count = 0;
  std::string_view digits = amount;
  if (take_decimal(&digits, &count) && digits.empty()) {
    bytes = count * request->page_bytes();
  } else if (parse_size(amount, &bytes)) {
    count = (bytes + request->page_bytes() - 1) / request->page_bytes();
  } else {
    *problem = "'" + std::string(amount) + "' is no amount; write a size (4G, 512M) or a number of pages of " +
               size_name(request->page_bytes());
    return false;
  }
  const std::vector<NodePool> pools = node_pools(request->root, request->kib);
  NodeSet known;
  for (const NodePool& pool : pools) known.add(NodeId(pool.node));
  if (nodes.all) nodes.nodes = known;
  for (NodeId node = nodes.nodes.first(); node.valid(); node = nodes.nodes.next(NodeId(node.value + 1))) {
    const std::string name = "node " + std::to_string(node.value);
    const auto at =
        std::find_if(pools.begin(), pools.end(), [&](const NodePool& pool) { return pool.node == node.value; });
    if (at == pools.end()) {
      *problem = name + ": there is none with pages of " + size_name(request->page_bytes()) + "; there are " +
                 node_list(known);
      return false;
    }
    for (const PoolChange& change : request->changes) {
      if (change.before.node != node.value) continue;
      *problem = name + " is named twice; one amount is enough";
      return false;
    }
    PoolChange change;
    change.before = change.after = *at;
    change.wanted = count;
    change.state = node_state(request->root, node.value);
    if (change.state.total > 0 && bytes > change.state.total) {
      *problem = name + ": " + human(bytes) + " are asked for, but it has " + human(change.state.total) +
                 " in all; the rest of "
                 "the system needs some, too";
      return false;
    }
    request->changes.push_back(change);
  }
  std::sort(request->changes.begin(), request->changes.end(),
            [](const PoolChange& a, const PoolChange& b) { return a.before.node < b.before.node; });
  return true;
}

std::string reserve_obstacle(const ReserveRequest& request, const std::string& command_line) {
  for (const PoolChange& change : request.changes) {
    const std::string file = change.before.directory + "/nr_hugepages";
    if (::access(file.c_str(), W_OK) == 0) continue;
    const int error = errno;
    const std::string what =
        "node " + std::to_string(change.before.node) + ": " + file + " cannot be written: " + ::strerror(error);
    if (error == EROFS || request.is_root)
      return what + ". /sys is protected, as in a container: run this on the host, as root";
    return what + ". As root: sudo " + command_line;
  }
  return "";
}

void reserve(ReserveRequest* request, const Progress& progress) {
  // Those that shrink first: what they give back others may need.
  for (const bool shrinking : {true, false}) {
    for (PoolChange& change : request->changes) {
      if ((change.wanted < change.before.lasting()) != shrinking) continue;
      if (request->compact && !shrinking && change.wanted > change.before.lasting()) {
        progress(change.before.node, "compacting", change.before.lasting(), change.wanted);
        compact_node(*request, change.before.node);
      }
      set_pool(*request, progress, &change);
      change.state = node_state(request->root, change.before.node);
    }
  }
}

bool all_came(const ReserveRequest& request) {
  return std::all_of(request.changes.begin(), request.changes.end(), [](const PoolChange& change) {
    return change.error == 0 && change.after.lasting() == change.wanted;
  });
}

std::string pools_text(const std::string& root) {
  std::string text = row({{"node", 6}, {"size", 7}, {"pages", 10}, {"free", 10}, {"in use", 10}, {"memory", 12}});
  for (const std::uint64_t kib : pool_sizes(root)) {
    for (const NodePool& pool : node_pools(root, kib)) {
      text += row({{std::to_string(pool.node), 6},
                   {size_name(kib * KiB), 7},
                   {std::to_string(pool.total), 10},
                   {std::to_string(pool.free), 10},
                   {std::to_string(pool.total - std::min(pool.free, pool.total)), 10},
                   {human(pool.total * kib * KiB), 12}});
    }
  }
  return text;
}

std::string plan_text(const ReserveRequest& request) {
  std::string text = row({{"node", 6},
                          {"size", 7},
                          {"now", 10},
                          {"wanted", 10},
                          {"memory", 12},
                          {"node's free", 14},
                          {"in 2M pieces", 15}});
  for (const PoolChange& change : request.changes) {
    text += row({{std::to_string(change.before.node), 6},
                 {size_name(request.page_bytes()), 7},
                 {std::to_string(change.before.lasting()), 10},
                 {std::to_string(change.wanted), 10},
                 {human(change.wanted * request.page_bytes()), 12},
                 {human(change.state.free), 14},
                 {human(change.state.free_pieces), 15}});
  }
  text += "\n";
  for (const PoolChange& change : request.changes) {
    if (request.compact && change.wanted > change.before.lasting()) {
      text +=
          "would write 1 to " + node_directory(request, change.before.node).substr(request.root.size()) + "/compact\n";
    }
    text += wrapped("would write " + std::to_string(change.wanted) + " to " +
                    change.before.directory.substr(request.root.size()) + "/nr_hugepages");
  }
  return text + "Nothing was changed.\n";
}

std::string outcome_text(const ReserveRequest& request) {
  std::string text =
      row({{"node", 6}, {"size", 7}, {"before", 10}, {"wanted", 10}, {"now", 10}, {"free", 10}, {"memory", 12}});
  std::string reasons;
  for (const PoolChange& change : request.changes) {
    text += row({{std::to_string(change.before.node), 6},
                 {size_name(request.page_bytes()), 7},
                 {std::to_string(change.before.lasting()), 10},
                 {std::to_string(change.wanted), 10},
                 {std::to_string(change.after.lasting()), 10},
                 {std::to_string(change.after.free), 10},
                 {human(change.after.total * request.page_bytes()), 12}});
    if (change.error != 0 || change.after.lasting() < change.wanted) reasons += wrapped(reason(request, change));
    if (change.after.surplus > 0) {
      reasons += wrapped("node " + std::to_string(change.before.node) + ": " + pages(change.after.surplus) +
                         " more are in use; they go when their processes give them back.");
    }
  }
  if (!reasons.empty()) text += "\n" + reasons;
  return text + "\nUntil the next boot (--persist: for good). To undo it:\n  " + undo_line(request) + "\n";
}

std::string undo_line(const ReserveRequest& request) {
  std::string line = sudo(request) + request.tool + " reserve";
  if (request.kib != 2048) line += " --size " + size_name(request.page_bytes());
  for (const PoolChange& change : request.changes) {
    line += " --node " + std::to_string(change.before.node) + "=" +
            size_name(change.before.lasting() * request.page_bytes());
  }
  return line;
}

std::string lasting_text(const ReserveRequest& request) {
  const std::string size = size_name(request.page_bytes());
  const std::vector<NodePool> pools = node_pools(request.root, request.kib);
  std::string by_node, units;
  std::uint64_t total = 0;
  bool even = request.changes.size() == pools.size();
  for (const PoolChange& change : request.changes) {
    const std::string count = std::to_string(change.wanted);
    by_node += (by_node.empty() ? "" : ",") + std::to_string(change.before.node) + ":" + count;
    const std::string above = request.root + "/sys/devices/system/node/";
    units += "ExecStart=/bin/sh -c 'echo " + count + " > " +
             (change.before.directory.starts_with(above) ? change.before.directory.substr(above.size())
                                                         : change.before.directory.substr(request.root.size())) +
             "/nr_hugepages'\n";
    total += change.wanted;
    even = even && change.wanted == request.changes[0].wanted;
  }
  std::uint64_t default_kib = 0;
  read_field((request.root + "/proc/meminfo").c_str(), "Hugepagesize", &default_kib);
  std::string text =
      "# Ways to have these huge pages after every boot. One is enough; nothing has been changed.\n\n"
      "# 1. Kernel arguments: set aside before memory is fragmented, the surest way for pages of 1 GiB.\n"
      "#    On Debian: add them to GRUB_CMDLINE_LINUX in /etc/default/grub, then run update-grub.\n";
  if (pools.size() > 1) text += "#    Counts by node are understood from Linux 5.16 on.\n";
  text += "hugepagesz=" + size + " hugepages=" + (pools.size() > 1 ? by_node : std::to_string(total)) + "\n\n" +
          "# 2. systemd: /etc/systemd/system/numaheap-pages-" + size +
          ".service, then\n"
          "#    systemctl enable --now numaheap-pages-" +
          size +
          "\n"
          "[Unit]\nDescription=Huge pages of " +
          size +
          " by NUMA node\nDefaultDependencies=no\nBefore=sysinit.target\n\n"
          "[Service]\nType=oneshot\nRemainAfterExit=yes\nWorkingDirectory=/sys/devices/system/node\n" +
          units + "\n[Install]\nWantedBy=sysinit.target\n\n";
  if (!even || default_kib != request.kib) {
    text += "# 3. sysctl cannot say this: vm.nr_hugepages counts pages of the default size";
    text += (default_kib > 0 ? " (" + size_name(default_kib * KiB) + ")" : "") +
            ",\n#    and the kernel spreads them evenly over the nodes.\n";
  } else {
    text += "# 3. sysctl: /etc/sysctl.d/90-numaheap.conf, then sysctl --system.";
    text += std::string(pools.size() > 1 ? " The kernel spreads them over the nodes." : "") +
            "\nvm.nr_hugepages = " + std::to_string(total) + "\n";
  }
  return text;
}

}  // namespace nh::cli
