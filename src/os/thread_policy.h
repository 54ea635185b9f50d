// The memory policy of the calling thread, for as long as an object lives: where its page faults take memory from. Unlike
// a policy of the mapping it leaves no trace there, so that mappings go on merging.
#pragma once

#include "base/node_set.h"

namespace nh {

class ThreadPolicy {
 public:
  ThreadPolicy();
  // Puts back what was.
  ~ThreadPolicy();
  ThreadPolicy(const ThreadPolicy&) = delete;
  ThreadPolicy& operator=(const ThreadPolicy&) = delete;

  // From this node, from others when it is full. Does nothing where the kernel refuses.
  void prefer(NodeId node);
  // As if the thread had none.
  void clear();

 private:
  NodeSet nodes_;
  int mode_ = 0;
  bool known_;
  bool changed_ = false;
};

}  // namespace nh
