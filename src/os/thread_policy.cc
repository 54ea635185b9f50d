#include "os/thread_policy.h"

#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/linux_calls.h"

namespace nh {
namespace {

bool set(int mode, const NodeSet& nodes) {
  // The kernel takes one off the length before it counts bits.
  const unsigned long length = nodes.empty() ? 0 : NodeSet::kBits + 1;
  return ::syscall(SYS_set_mempolicy, mode, nodes.empty() ? nullptr : nodes.words(), length) == 0;
}

}  // namespace

ThreadPolicy::ThreadPolicy() {
  const linux_os_detail::ErrnoKeeper keep;
  known_ = ::syscall(SYS_get_mempolicy, &mode_, nodes_.words(), (unsigned long){NodeSet::kBits}, nullptr, 0) == 0;
}

ThreadPolicy::~ThreadPolicy() {
  const linux_os_detail::ErrnoKeeper keep;
  if (changed_) set(mode_, nodes_);
}

void ThreadPolicy::prefer(NodeId node) {
  const linux_os_detail::ErrnoKeeper keep;
  if (known_ && set(MPOL_PREFERRED, NodeSet::of(node))) changed_ = true;
}

void ThreadPolicy::clear() {
  const linux_os_detail::ErrnoKeeper keep;
  if (known_ && mode_ != MPOL_DEFAULT && set(MPOL_DEFAULT, NodeSet())) changed_ = true;
}

}  // namespace nh
