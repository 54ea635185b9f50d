// A heap on a fake machine: what the tests of src/heap and of the layers above it start from.
#pragma once

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <thread>

#include "base/lock.h"
#include "heap/mheap.h"
#include "support/fake_os.h"

namespace nh::test {

// A window with the tables of so many heaps.
inline AddressSpace::Config window_of(std::size_t bytes, unsigned heaps = 1) {
  return {.bytes = bytes, .heap_table_bytes = HeapArenas::table_bytes(bytes), .heaps = heaps};
}

struct HeapWorldConfig {
  FakeOsConfig os;
  MHeap::Config heap;
  std::size_t window_bytes = GiB;
};

// The heap of node 0, which has what the machine has; bound where there is more than one node.
inline HeapWorldConfig node_heap(std::vector<FakeNode> nodes, HugePagesOption huge_pages = HugePagesOption::kAuto) {
  HeapWorldConfig c;
  c.os.nodes = std::move(nodes);
  c.heap.node = NodeId(0);
  c.heap.cpus = 4;
  c.heap.backing.huge_pages = huge_pages;
  c.heap.backing.nodes = NodeSet::of(NodeId(0));
  c.heap.bind_metadata = c.os.nodes.size() > 1;
  if (c.heap.bind_metadata) c.heap.backing.policy = BindMode::kBind;
  return c;
}
inline HeapWorldConfig first_touch_heap(std::vector<FakeNode> nodes) {
  HeapWorldConfig c = node_heap(std::move(nodes));
  c.heap.node = NodeId();
  c.heap.bind_metadata = false;
  c.heap.backing.policy = BindMode::kDefault;
  c.heap.backing.kind = HeapKind::kFirstTouch;
  for (std::size_t n = 1; n < c.os.nodes.size(); n++) c.heap.backing.nodes.add(NodeId(static_cast<int>(n)));
  return c;
}

// set_up() may be told to fail by os.fail_call(), so it is not done by the constructor.
struct HeapWorld {
  explicit HeapWorld(const HeapWorldConfig& c = node_heap({FakeNode{}})) : config(c), os(c.os) {
    set_fallback_quiet(true);
    // Threads that spin for a lock keep its holder from running where CPUs are few.
    set_lock_waiter({[](std::atomic<std::uint32_t>*, std::uint32_t) { sched_yield(); }, nullptr});
  }
  bool set_up() {
    if (!space.init(os.ops(), window_of(config.window_bytes))) return false;
    heap.init(os.ops(), space, config.heap);
    return true;
  }
  // Bytes of the address space that somebody has asked the OS for and not given back.
  std::size_t mapped_bytes() const {
    return os.bytes_in_state(PageState::kReserved) + os.bytes_in_state(PageState::kReadable) +
           os.bytes_in_state(PageState::kWritable);
  }

  HeapWorldConfig config;
  FakeOs os;
  AddressSpace space;
  MHeap heap;
};

inline char* start_of(const MSpan* span) { return reinterpret_cast<char*>(span->start_addr); }
// The first class whose spans have at least so many pages. The longest have 16.
inline SpanClass class_with_pages(std::size_t pages) {
  unsigned c = 4;
  while (c + 1 < kSizeClasses && kSizeClassTable[c].pages < pages) c++;
  return make_span_class(c, false);
}

// Pages that the tests write and read: all of a small span, of a large one so many that it stays cheap.
inline bool is_sample(std::size_t page) { return page < 24 || page % 61 == 0; }
template <typename Visit>
bool all_samples(const MSpan* span, std::size_t pages, Visit visit) {
  for (std::size_t p = 0; p < pages; p++) {
    if (is_sample(p) && !visit(reinterpret_cast<std::uint64_t*>(start_of(span) + p * kPageSize), p)) return false;
  }
  return true;
}

// Marks pages with the span's own value, so that two owners of a page, or a page that was lost and came back zeroed, are
// found out.
inline void fill(const MSpan* span, std::uint64_t value) {
  all_samples(span, span->npages, [&](std::uint64_t* page, std::size_t p) {
    page[0] = page[kPageSize / 8 - 1] = value + p;
    return true;
  });
}
inline bool holds(const MSpan* span, std::uint64_t value, std::size_t pages) {
  return all_samples(span, pages, [&](const std::uint64_t* page, std::size_t p) {
    return page[0] == value + p && page[kPageSize / 8 - 1] == value + p;
  });
}
inline bool reads_zero(const MSpan* span) {
  return all_samples(span, span->npages, [](const std::uint64_t* page, std::size_t) {
    return page[0] == 0 && page[kPageSize / 8 - 1] == 0;
  });
}

// Forks while another thread, which does `work`, is at the beginning of a call to the OS. Returns what `child` returns in
// the child, which finds everything as that thread has left it; -1 where the child did not come to its end.
inline int in_child_during(FakeOs& os, FakeCall call, const std::function<void()>& work, const std::function<int()>& child) {
  std::atomic<bool> inside{false}, forked{false};
  os.on_call(call, [&] {
    inside = true;
    while (!forked) sched_yield();
  });
  std::thread other(work);
  while (!inside) sched_yield();
  const pid_t pid = fork();
  if (pid == 0) {
    alarm(30);  // whoever waits for a thread that does not exist here waits for ever
    os.on_call(call, {});
    _exit(child());
  }
  forked = true;
  other.join();
  os.on_call(call, {});
  int status = 0;
  return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace nh::test
