// A heap of one node on the real operating system, set up from the layers as src/api does it for a process, for
// benchmarks that time one layer. The program's own malloc stays the system's.
#pragma once

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "base/bits.h"
#include "cache/cpu_caches.h"
#include "cache/mcache.h"
#include "central/free_mark.h"
#include "heap/address_space.h"
#include "os/os.h"
#include "os/rseq.h"

namespace bench {

inline constexpr nh::HeapId kHeap{0};

[[noreturn]] inline void die(const char* why) {
  std::fprintf(stderr, "%s\n", why);
  std::exit(1);
}

// The process's only heap; never torn down. THP, so that no row depends on the machine's pools.
class OneNodeHeap {
 public:
  static OneNodeHeap& get() {
    static OneNodeHeap heap;
    return heap;
  }

  nh::AddressSpace& space() { return space_; }
  nh::HeapSet& set() { return set_; }
  nh::MHeap& heap() { return set_[kHeap].heap; }

 private:
  OneNodeHeap() {
    const nh::OsOps& os = nh::linux_os();
    nh::g_free_key = 0x9e3779b97f4a7c15;
    nh::AddressSpace::Config space;
    space.bytes = 64 * nh::GiB;
    space.heap_table_bytes = nh::HeapArenas::table_bytes(space.bytes);
    if (!space_.init(os, space)) die("no address space for the heap");
    const std::size_t bytes = nh::align_up(sizeof(nh::NodeHeap), nh::kOsPageSize);
    void* memory = os.reserve(bytes, nh::kOsPageSize);
    if (memory == nullptr || os.make_writable(memory, bytes) != 0) die("no memory for the heap");
    set_.init(static_cast<nh::NodeHeap*>(memory), 1, &space_);

    const auto cpus = static_cast<unsigned>(sysconf(_SC_NPROCESSORS_CONF));
    nh::MHeap::Config heap;
    heap.id = kHeap;
    heap.node = nh::NodeId(0);
    heap.cpus = cpus;
    heap.backing.huge_pages = nh::HugePagesOption::kThp;
    heap.backing.nodes = nh::NodeSet::of(heap.node);
    set_[kHeap].heap.init(os, space_, heap);

    nh::CacheConfig caches;
    caches.cpus = cpus;
    if (!nh::g_caches.init(os, set_, caches, [](nh::CpuId) { return kHeap; })) die("no memory for the caches");
    if (nh::rseq_init() != nh::RseqMode::kGlibc) die("no restartable sequences through libc here");
    nh::g_caches.set_mode(nh::CacheMode::kRseq);
  }

  nh::AddressSpace space_;
  nh::HeapSet set_;
};

}  // namespace bench
