// Some heaps with their mcentrals on a fake machine.
#pragma once

#include <memory>
#include <vector>

#include "central/free_mark.h"
#include "central/heap_set.h"
#include "heap/heap_world.h"

namespace nh::test {

struct CentralWorldConfig {
  std::vector<FakeNode> nodes = {FakeNode{}};  // one heap each
  std::size_t window_bytes = 16 * GiB;
  unsigned cpus = 4;
  bool first_touch = false;  // one heap more, of first-touch memory
};

// Heap i is bound to node i, and each falls back to the others in order of distance on a ring: i + 1, i + 2, ...
class CentralWorld {
 public:
  explicit CentralWorld(const CentralWorldConfig& c = {}) : os(FakeOsConfig{.nodes = c.nodes}) {
    set_fallback_quiet(true);
    set_lock_waiter({[](std::atomic<std::uint32_t>*, std::uint32_t) { sched_yield(); }, nullptr});
    g_free_key = 0x9e3779b97f4a7c15;
    const auto nodes = static_cast<unsigned>(c.nodes.size());
    const unsigned count = nodes + (c.first_touch ? 1 : 0);
    memory_.reset(static_cast<NodeHeap*>(std::aligned_alloc(alignof(NodeHeap), sizeof(NodeHeap) * count)));
    std::memset(static_cast<void*>(memory_.get()), 0, sizeof(NodeHeap) * count);
    ok = space.init(os.ops(), window_of(c.window_bytes, count));
    heaps.init(memory_.get(), count, &space);
    for (unsigned h = 0; h < nodes; h++) {
      MHeap::Config config;
      config.id = HeapId(h);
      config.node = NodeId(static_cast<int>(h));
      config.cpus = c.cpus;
      config.backing.nodes = NodeSet::of(config.node);
      config.bind_metadata = nodes > 1;
      if (nodes > 1) config.backing.policy = BindMode::kBind;
      heaps[HeapId(h)].heap.init(os.ops(), space, config);
      // The first unit of a heap is not proven. Of several nodes it is used up, so that a full node shows.
      if (nodes > 1) first_units.push_back(heaps[HeapId(h)].heap.alloc_large(kHugeSize, kPageSize, false));
      for (unsigned i = 1; i < nodes; i++) {
        heaps[HeapId(h)].fallback[heaps[HeapId(h)].fallbacks++] = static_cast<std::uint16_t>((h + i) % nodes);
      }
    }
    if (!c.first_touch) return;
    MHeap::Config config = first_touch_heap(c.nodes).heap;
    config.id = HeapId(nodes);
    config.cpus = c.cpus;
    config.backing.policy_places = true;  // on which node pages lie is not the matter here
    heaps[config.id].heap.init(os.ops(), space, config);
  }
  MHeap& heap(unsigned h = 0) { return heaps[HeapId(h)].heap; }

  FakeOs os;
  AddressSpace space;
  HeapSet heaps;
  std::vector<MSpan*> first_units;
  bool ok = false;

 private:
  struct Free {
    void operator()(NodeHeap* p) const { std::free(p); }
  };
  std::unique_ptr<NodeHeap, Free> memory_;
};

// The objects of a chain, in order; the chain is left as it is.
inline std::vector<void*> members(void* head) {
  std::vector<void*> out;
  for (void* p = head; p != nullptr; p = next_object(p)) out.push_back(p);
  return out;
}
// Links objects; nullptr for none.
inline void* chain(const std::vector<void*>& objects) {
  void* head = nullptr;
  for (std::size_t i = objects.size(); i-- > 0;) {
    next_object(objects[i]) = head;
    head = objects[i];
  }
  return head;
}

}  // namespace nh::test
