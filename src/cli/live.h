// A process on numaheap, seen from outside: which figures its heaps have at a moment. Reading takes time and memory by the
// number of heaps and CPUs, never by the size of the heap.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/live_block.h"
#include "cli/process_memory.h"
#include "numaheap/numaheap.h"

namespace nh::cli {

struct LiveProcess {
  ProcessMemory memory{0};
  LiveBlock block = {};
  std::uint64_t block_at = 0;
  std::string file;  // where numaheap is
  std::string command;
  std::string version;  // of the library
  std::string cache_mode;

  // True while the process still is the program that was attached to.
  bool same();
};

// Finds numaheap in a process. false, with *why as a sentence. no_numaheap (may be null): whether that is all there is.
bool attach(int pid, LiveProcess* process, std::string* why, bool* no_numaheap = nullptr);
// Why a process that could be read before cannot any more.
std::string why_lost(LiveProcess& process);

struct LiveHeap : numaheap_heap_stats {
  std::uint64_t huge_1g_bytes = 0;  // of hugetlb_bytes, on pages of 1 GiB

  bool used() const { return kind == NUMAHEAP_HEAP_NODE || arenas != 0; }
  void add(const LiveHeap& other);
};
// The numaheap_heap_kind of a heap, or of that whose twin it is. index: less than half of heap_count.
int kind_of_heap(const LiveBlock& block, unsigned index);
// "node 0", "first touch", "interleaved".
std::string heap_name(int kind, int node);
// The same as in JSON, and back; -1: it is none.
const char* heap_kind(int kind);
int heap_kind_of(const std::string& word);

struct LiveFallback {
  std::string name, text;
  std::uint64_t count;
};

struct Snapshot {
  double time = 0;  // seconds, of the monotonic clock
  ProcessFacts facts;
  std::uint64_t memory_syscalls = 0;
  std::vector<LiveHeap> heaps;  // each with its paged twin
  std::vector<LiveFallback> fallbacks;

  LiveHeap total() const;
};
// false, with *why: the process is gone, or runs another program.
bool take_snapshot(LiveProcess& process, Snapshot* out, std::string* why);

// One of the library's objects, a copy of its first bytes.
class LiveObject {
 public:
  LiveObject(const char* bytes, std::size_t size) : bytes_(bytes), size_(size) {}
  // 0 for a field that lies behind what was copied.
  std::uint64_t get(LiveField field) const;

 private:
  const char* bytes_;
  std::size_t size_;
};

// Whether the layout that a block describes can be read: sizes and counts within what numaheap can have.
bool is_plausible(const LiveBlock& block);

// A decimal process id, as a word of a command line; 0: it is none.
int parse_pid(std::string_view word);

}  // namespace nh::cli
