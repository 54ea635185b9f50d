// What the placement tests share: threads on chosen nodes, and the kernel's word on where pages lie.
#pragma once

#include <pthread.h>

#include <cstddef>
#include <cstdint>

#include "harness/case.h"
#include "numaheap/numaheap.h"

// The machine of run.sh: four nodes of two CPUs each, numbered in order.
constexpr int kNodes = 4;
constexpr int kCpusPerNode = 2;
constexpr int kCpus = kNodes * kCpusPerNode;
constexpr std::size_t kKiB = 1024;
constexpr std::size_t kMiB = 1024 * kKiB;
constexpr std::size_t kHuge = 2 * kMiB;

inline int node_of_cpu(int cpu) { return cpu / kCpusPerNode; }

// Binds the calling thread to one CPU and makes sure that the kernel agrees about the CPU's node.
void pin(int cpu);

// Runs body(cpu) on a thread pinned to each of these CPUs, all at once, and waits for them.
void on_cpus(const int* cpus, int count, void (*body)(int cpu, void* argument), void* argument);
void on_all_cpus(void (*body)(int cpu, void* argument), void* argument);
// On one CPU, while the caller waits.
void on_cpu(int cpu, void (*body)(int cpu, void* argument), void* argument);

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

  // Takes `n` objects of 16 B to `largest`, evenly over the powers of two, so that every size class has its share.
  void allocate(std::size_t n, std::size_t largest, std::uint64_t seed);
  // Writes to every page of every object.
  void write() const;
  // Writes a pattern over all of it; and whether it is still there.
  void fill(std::uint64_t seed) const;
  bool intact(std::uint64_t seed) const;
  void free_all();
};

// Counts pages of 4 KiB by the node that move_pages(2) says they lie on.
struct Census {
  long on[kNodes] = {};
  long absent = 0;  // nothing behind the address yet
  long total = 0;

  void add(const void* p, std::size_t bytes);
  void add(const Objects& objects) {
    for (std::size_t i = 0; i < objects.count; i++) add(objects.list[i].p, objects.list[i].bytes);
  }
  long elsewhere(int node) const { return total - on[node]; }
};

// Expects every counted page on this node.
#define EXPECT_ALL_ON(census, node)                                                                                 \
  EXPECT((census).total > 0 && (census).elsewhere(node) == 0,                                                       \
         "node %d: of %ld pages %ld, %ld, %ld, %ld on nodes 0 to 3, %ld absent", (node), (census).total,            \
         (census).on[0], (census).on[1], (census).on[2], (census).on[3], (census).absent)

// The statistics of the heap of a node; of the first-touch heap where node is -1.
numaheap_heap_stats heap_of(int node);

// What a node's pool of 2 MiB pages holds (nr_hugepages, free_hugepages).
long pool_pages(int node, const char* counter);
