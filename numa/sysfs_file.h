// Reading one file of a tree of /sys and /proc after the other into one buffer, which lies on the caller's stack: a heap
// does not exist yet.
#pragma once

#include <cstring>
#include <string_view>

#include "base/format.h"
#include "base/scan.h"
#include "base/units.h"
#include "numa/cpu_list.h"
#include "numa/sysfs_topology.h"
#include "os/procfs.h"

namespace nh {

// A path in the tree, to be added to.
class SysfsPath : public Text<512> {
 public:
  SysfsPath(const SysfsRoot& root, std::string_view path) { text(root.path).text(path); }
};

class SysfsFile {
 public:
  // Longer files are cut at the size of the buffer, which shows as a malformed or shorter list.
  SysfsFile(const SysfsRoot& root, char* buffer, std::size_t bytes) : root_(root), buffer_(buffer), bytes_(bytes) {}

  // <root><path>; false where it cannot be read.
  bool read(std::string_view path) {
    SysfsPath full(root_, path);
    return read_path(&full);
  }
  // <root>/sys/devices/system/node/node<id>/<name>
  bool read_of_node(NodeId node, std::string_view name) {
    SysfsPath full(root_, "/sys/devices/system/node/node");
    full.dec(static_cast<std::uint64_t>(node.value)).ch('/').text(name);
    return read_path(&full);
  }
  bool read_nodes(std::string_view path, NodeSet* nodes) { return read(path) && parse_node_id_list(text(), nodes); }
  // What was read last. Kernels before 4.0 put a NUL behind lists.
  std::string_view text() const { return {buffer_, size_}; }
  // A file of one number; 0 where there is none.
  std::uint64_t number_of_node(NodeId node, std::string_view name) {
    std::uint64_t value = 0;
    return read_of_node(node, name) && parse_number(text(), &value) ? value : 0;
  }

  const SysfsRoot& root() const { return root_; }

 private:
  bool read_path(SysfsPath* full) {
    size_ = 0;
    if (full->truncated() || read_file(full->c_str(), buffer_, bytes_) < 0) return false;
    size_ = std::strlen(buffer_);
    return true;
  }

  const SysfsRoot root_;
  char* const buffer_;
  const std::size_t bytes_;
  std::size_t size_ = 0;
};

}  // namespace nh
