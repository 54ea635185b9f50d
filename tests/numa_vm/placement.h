// What the placement tests share: the machine as the kernel describes it, threads on chosen CPUs, and the kernel's word on
// where pages lie.
#pragma once

#include <pthread.h>

#include <cstddef>
#include <cstdint>

#include "harness/case.h"
#include "numaheap/numaheap.h"

constexpr int kMaxNodes = 8;
constexpr int kMaxCpus = 8;
constexpr std::size_t kKiB = 1024;
constexpr std::size_t kMiB = 1024 * kKiB;
constexpr std::size_t kHuge = 2 * kMiB;

// Read from /sys, with none of the library's code.
struct Machine {
  int nodes = 0;
  int cpus = 0;
  int node_of[kMaxCpus] = {};
  std::size_t memory[kMaxNodes] = {};  // bytes; 0: a node without memory
  int distance[kMaxNodes][kMaxNodes] = {};

  int first_cpu(int node) const;  // -1 where it has none
  // The node whose memory is nearest to `from`, other than `from` itself and `but`. At equal distance a node with CPUs comes
  // before a memory-only one.
  int nearest(int from, int but = -1) const;
  // Where the objects of a CPU belong: its own node, or the nearest one with memory.
  int home(int cpu) const { return memory[node_of[cpu]] != 0 ? node_of[cpu] : nearest(node_of[cpu]); }
};
const Machine& machine();

// For cases that are about the machine of four nodes and no other.
constexpr int kNodes = 4;
constexpr int kCpus = 8;
inline int node_of_cpu(int cpu) { return machine().node_of[cpu]; }

// Binds the calling thread to one CPU and makes sure that the kernel agrees about the CPU's node.
void pin(int cpu);

// Runs body(cpu) on a thread pinned to each of these CPUs, all at once, and waits for them.
void on_cpus(const int* cpus, int count, void (*body)(int cpu, void* argument), void* argument);
void on_all_cpus(void (*body)(int cpu, void* argument), void* argument);
// On one CPU, or on the first one of a node, while the caller waits.
void on_cpu(int cpu, void (*body)(int cpu, void* argument), void* argument);
void on_node(int node, void (*body)(int cpu, void* argument), void* argument);

// Objects of one thread. The list itself lies outside the heap under test.
struct Objects {
  struct Object {
    unsigned char* p;
    std::size_t bytes;
  };
  Object* list = nullptr;
  std::size_t count = 0;
  std::size_t capacity = 0;

  explicit Objects(std::size_t most);
  ~Objects();
  Objects(const Objects&) = delete;
  Objects& operator=(const Objects&) = delete;

  // Takes `n` objects of 16 B to `largest`, equally many from each power of two, so that every size class has its share.
  void allocate(std::size_t n, std::size_t largest, std::uint64_t seed);
  // The same, half as many from each power of two as from the one below: equal bytes, and room for a great number.
  void allocate_many(std::size_t n, std::size_t largest, std::uint64_t seed);
  // n objects of one size. Returns how many there were when malloc refused.
  std::size_t allocate_same(std::size_t n, std::size_t bytes);
  void take(void* p, std::size_t bytes);
  // Writes to every page of every object.
  void write() const;
  // Writes a pattern over all of it; and whether it is still there.
  void fill(std::uint64_t seed) const;
  bool intact(std::uint64_t seed) const;
  void free_all();

 private:
  void allocate_sized(std::size_t n, std::size_t largest, std::uint64_t seed, bool fewer_large);
};

// Objects of every CPU.
struct Lists {
  Objects* of[kMaxCpus];
  explicit Lists(std::size_t most);
  ~Lists();
  Lists(const Lists&) = delete;
  Lists& operator=(const Lists&) = delete;
  Objects& operator[](int cpu) const { return *of[cpu]; }
};

// A set of pages of 4 KiB, up to 4 GiB of them; its memory lies outside the heap under test. One thread at a time.
class PageSet {
 public:
  PageSet();
  ~PageSet();
  PageSet(const PageSet&) = delete;
  PageSet& operator=(const PageSet&) = delete;

  void add(const void* p, std::size_t bytes);
  std::size_t size() const { return size_; }
  template <typename Visit>
  void for_each(Visit&& visit) const {
    for (std::size_t i = 0; i < size_; i++) visit(reinterpret_cast<void*>(pages_[i]));
  }

 private:
  static constexpr std::size_t kMost = 1 << 20;
  std::uintptr_t* pages_ = nullptr;  // in the order of their coming
  std::uint32_t* slots_ = nullptr;   // 2 * kMost: 1 + index into pages_, at the page's hash or after it
  std::size_t size_ = 0;
};

// The number of the page frame behind an address: where it lies, to the page. 0: nothing there. Root may ask.
std::uint64_t frame_of(const void* p);

// Counts pages of 4 KiB by the node that move_pages(2) says they lie on. A page that several objects share counts once.
struct Census {
  long on[kMaxNodes] = {};
  long absent = 0;  // nothing behind the address yet
  long total = 0;

  void add(const PageSet& pages);
  void add(const void* p, std::size_t bytes);
  void add(const Objects& objects);
  long elsewhere(int node) const { return total - on[node]; }
  // "of 10 pages 3 7 0 0 on the nodes, 0 absent"; good until the next call.
  const char* text() const;
};

// Expects every counted page on this node.
#define EXPECT_ALL_ON(census, node) \
  EXPECT((census).total > 0 && (census).elsewhere(node) == 0, "node %d: %s", (node), (census).text())

// The statistics of the heap of a node; of the first-touch heap where node is -1.
numaheap_heap_stats heap_of(int node);

// What a node's pool of 2 MiB pages holds (nr_hugepages, free_hugepages).
long pool_pages(int node, const char* counter);

// How much of [p, p + bytes) lies on huge pages of either kind, as /proc/self/smaps tells. p and bytes: whole mappings, or
// huge pages in the midst of one that has nothing else in it.
std::size_t bytes_on_huge_pages(const void* p, std::size_t bytes);

// What of this process is on huge pages of the pools, and on transparent ones.
struct HugeBytes {
  std::size_t hugetlb, transparent;
};
HugeBytes huge_bytes();
