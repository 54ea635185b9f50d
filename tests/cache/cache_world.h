// CPU caches over the heaps of a fake machine, and a register of who has which object.
#pragma once

#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "cache/cpu_caches.h"
#include "cache/mcache.h"
#include "cache/tiny.h"
#include "central/central_world.h"

namespace nh::test {

inline unsigned possible_cpus() { return static_cast<unsigned>(sysconf(_SC_NPROCESSORS_CONF)); }

// Runs the calling thread on this CPU alone; false where that is not allowed.
inline bool pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  return sched_setaffinity(0, sizeof set, &set) == 0;
}
inline void unpin() {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (unsigned cpu = 0; cpu < possible_cpus(); cpu++) CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof set, &set);
}

// CPU 0 belongs to heap 0, CPU 1 to heap 1, ..., round and round.
inline unsigned g_world_heaps = 1;
inline HeapId heap_of_world_cpu(CpuId cpu) {
  return HeapId(cpu.valid() ? static_cast<unsigned>(cpu.value) % g_world_heaps : 0);
}

struct CacheWorldConfig {
  CacheMode mode = CacheMode::kFallback;
  unsigned heaps = 1;
  std::size_t bytes_per_cpu = 4 * MiB;
  Help help = Help::kNeighbours;
  std::size_t node_bytes = 4 * GiB;
  bool extents = false;  // one heap more, of first-touch memory
};

// The fast path reads globals that init() points to these caches: one world at a time.
class CacheWorld {
 public:
  explicit CacheWorld(const CacheWorldConfig& c = {})
      : central({.nodes = std::vector<FakeNode>(c.heaps, FakeNode{.memory_bytes = c.node_bytes}),
                 .cpus = possible_cpus(),
                 .first_touch = c.extents}) {
    g_world_heaps = c.heaps;
    CacheConfig config;
    config.cpus = possible_cpus();
    config.bytes_per_cpu = c.bytes_per_cpu;
    config.help = c.help;
    if (c.extents) config.extent_heap = c.heaps;
    ok = central.ok && caches.init(central.os.ops(), central.heaps, config, heap_of_world_cpu);
    caches.set_mode(c.mode);
    caches.set_fences(c.mode == CacheMode::kRseq);  // that program has registered with membarrier
    owner_bytes_ = central.space.max_bytes() / 8;
    void* p = mmap(nullptr, owner_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ok = ok && p != MAP_FAILED;
    owners_ = static_cast<std::atomic<std::uint8_t>*>(p);
  }
  ~CacheWorld() { munmap(owners_, owner_bytes_); }

  // As malloc() and free() do it, the fast path first. Objects of 16 bytes and more; above 4 MiB extents.
  void* alloc(std::size_t size, bool noscan = false) {
    void* p;
    if (size > kMaxSmallSize) {
      p = alloc_large(size, noscan);
      if (p == nullptr) return nullptr;
    } else if (!mcache_alloc(size, &p)) {
      p = caches.alloc(class_for(size));
      if (p == nullptr) return nullptr;
      unmark(p);
    }
    taken(p);
    return p;
  }
  // A placed object of heap h, or of one that helps out.
  void* alloc_placed(HeapId h, std::size_t size, Help help = Help::kNeighbours) {
    void* p = caches.alloc_from(h, make_placed(class_for(size)), help);
    if (p == nullptr) return nullptr;
    unmark(p);
    taken(p);
    return p;
  }
  void free(void* p) {
    given_back(p);
    MSpan* span = central.space.span_of(p);
    switch (mcache_free(p)) {
      case FreeOutcome::kDone: return;
      case FreeOutcome::kFull:
        if (is_large(span->span_class)) return free_large(span);
        caches.free(p, entry_class(central.space.entry(p)), central.space.heap_of(p));
        return;
      case FreeOutcome::kOdd:
        if (span == nullptr || span->span_class != kLargeClass) {
          errors++;
          return;
        }
        if (span->use != SpanUse::kInUse) {
          errors++;
        } else if (!mcache_free_extent(span)) {
          free_large(span);
        }
    }
  }
  void free_large(MSpan* span) {
    caches.large_turned_away(*span);
    central.heaps.free_large(span);
  }
  void taken(void* p) { errors += owners_[(address(p) - central.space.base()) / 8].exchange(1) != 0; }
  void given_back(void* p) { errors += owners_[(address(p) - central.space.base()) / 8].exchange(0) != 1; }

  HeapId extent_heap() const { return HeapId(caches.config().extent_heap); }
  FreeList& list_of(std::size_t size, int cpu = 0, bool noscan = false) {
    CpuCache* cache = nullptr;
    caches.for_each([&](CpuCache& c) { if (c.cpu == static_cast<unsigned>(cpu)) cache = &c; });
    if (size <= kMaxBinBytes) return cache->lists[list_set(cache->local, false)].of[bin_class(size, noscan).list()];
    return cache->lists[list_set(extent_heap(), false)].of[extent_class(static_cast<unsigned>(div_up(size, kHugeSize))).list()];
  }

  std::size_t spans() {
    std::size_t n = 0;
    for (unsigned h = 0; h < central.heaps.count(); h++) n += central.heap(h).stats().spans;
    return n - central.first_units.size();
  }
  // Everything that was freed finds its way home: nothing was lost on the way.
  void empty() {
    caches.drain_all();
    central.heaps.trim_centrals();
  }
  // Nobody uses the caches meanwhile. What lists may hold adds up to what is accounted and stays within the limit.
  // slack: objects that a list may hold beyond its capacity, because its room is a hint.
  std::string audit(unsigned slack) {
    std::string wrong;
    caches.for_each([&](CpuCache& cache) {
      std::uint64_t capacity = 0;
      for (unsigned set = 0; set < 2 * central.heaps.count(); set++) {
        for (unsigned c = 0; c < kCachedClasses; c++) {
          const FreeList& list = cache.lists[set].of[c];
          capacity += std::uint64_t{list.cap} * size_class(static_cast<SpanClass>(c)).bytes;
          std::size_t length = 0;
          for (void* p : members(list.head)) {
            length++;
            if (has_mark(static_cast<SpanClass>(c)) && mark_word(p) != free_mark(p)) {
              wrong += " an object of class " + std::to_string(c) + " lost its mark;";
            }
          }
          if (length > list.cap + std::size_t{slack}) wrong += " list of class " + std::to_string(c) + " too long;";
          const std::size_t said = list.count();
          if (said > length + slack || length > said + slack) {
            wrong += " class " + std::to_string(c) + " says " + std::to_string(said) + " and holds " +
                     std::to_string(length) + ";";
          }
        }
      }
      if (capacity != cache.capacity_bytes) wrong += " capacity is not what is accounted;";
      if (capacity > caches.config().bytes_per_cpu) wrong += " above the limit;";
      wrong += audit_large(cache, slack);
    });
    return wrong;
  }

  CentralWorld central;
  CpuCaches caches;
  std::atomic<int> errors{0};
  bool ok = false;

 private:
  void* alloc_large(std::size_t size, bool noscan) {
    const bool extent = size > kMaxBinBytes;
    void* p;
    if (!extent && mcache_alloc_bin(size, noscan, &p)) return p;
    MSpan* span = extent ? mcache_take_extent(static_cast<unsigned>(div_up(size, kHugeSize))) : nullptr;
    if (span == nullptr) {
      const HeapId heap = extent ? extent_heap() : caches.local_heap();
      span = central.heaps.alloc_large(heap, size, kPageSize, noscan, caches.config().help);
      if (span == nullptr) return nullptr;
      caches.large_missed(*span);
    }
    p = start_of(span);
    if (!extent) mark_word(p) = 0;
    return p;
  }
  std::string audit_large(const CpuCache& cache, unsigned slack) {
    std::string wrong;
    std::uint64_t capacity = 0;
    for (unsigned h = 0; h < central.heaps.count(); h++) {
      for (unsigned code = kFirstBinList; code < kClassCodes; code++) {
        const FreeList& list = cache.lists[list_set(HeapId(h), false)].of[code];
        if (list.cap == 0 && list.head == nullptr) continue;
        const bool extent = HeapId(h) == extent_heap();
        const std::size_t bytes =
            extent ? units_of_extent(SpanClass(code)) * kHugeSize : size_class(static_cast<SpanClass>(code)).bytes;
        const std::string name = " list of " + std::to_string(bytes) + " bytes";
        capacity += list.cap * bytes;
        if (HeapId(h) != cache.local && !extent) wrong += name + " of another node;";
        // Two threads of one CPU may both find it below its limit.
        const std::size_t most = bytes < 256 * KiB ? 256 * KiB / bytes : 1;
        if (list.cap > most + (slack != 0 ? 1 : 0)) wrong += name + " may hold too many;";
        if (members(list.head).size() > list.cap + std::size_t{slack}) wrong += name + " is too long;";
        for (void* p : members(list.head)) {
          const MSpan* span = extent ? static_cast<MSpan*>(p) : central.space.span_of(p);
          const bool here = span != nullptr && span->heap == h && span->pages().bytes() == bytes;
          const bool marked = here && (extent ? span->use == SpanUse::kFreed
                                              : span->span_class == SpanClass(code) && mark_word(p) == free_mark(p));
          if (!marked) wrong += name + " holds something else;";
        }
      }
    }
    if (capacity != cache.large_capacity_bytes) wrong += " capacity for large objects is not what is accounted;";
    if (capacity > 8 * caches.config().bytes_per_cpu) wrong += " above the limit for large objects;";
    return wrong;
  }

  std::atomic<std::uint8_t>* owners_ = nullptr;
  std::size_t owner_bytes_ = 0;
};

// Threads that allocate, free, and hand objects to each other; every object carries its address as a payload.
struct Traffic {
  unsigned threads = 8;
  int steps = 20000;
  bool migrate = false;
  bool large = false;  // bins and extents as well, and less of everything
};
inline void run_traffic(CacheWorld& w, const Traffic& t) {
  constexpr std::size_t kSizes[] = {16, 16, 24, 64, 64, 100, 128, 144, 512, 1024, 3000, 8192, 32768};
  constexpr std::size_t kLargeSizes[] = {100,     8192, 40000, 40000,   64 * KiB, 64 * KiB, 200 * KiB, MiB,
                                         MiB, 3 * MiB, 4 * MiB, 5 * MiB, 8 * MiB,  8 * MiB,  40 * MiB};
  const std::size_t desk_size = t.large ? 16 : 512, most = t.large ? 12 : 400;
  std::vector<std::atomic<void*>> desk(desk_size);
  std::vector<std::thread> threads;
  for (unsigned id = 0; id < t.threads; id++) {
    threads.emplace_back([&, id] {
      FakeOs::set_local_node(NodeId(0));
      std::mt19937 random(id);
      std::vector<void*> mine;
      auto release = [&](void* p) {
        const auto* words = static_cast<std::uintptr_t*>(p);
        w.errors += words[0] != address(p) || words[1] != ~address(p);
        w.free(p);
      };
      for (int step = 0; step < t.steps; step++) {
        if (t.migrate && step % 64 == 0) pin(static_cast<int>(random() % possible_cpus()));
        const unsigned action = random() % 8;
        if (action < 4) {
          const unsigned r = random();
          const std::size_t size = t.large ? kLargeSizes[r % std::size(kLargeSizes)] : kSizes[r % std::size(kSizes)];
          const HeapId heap(random() % g_world_heaps);
          void* p = !t.large && random() % 4 == 0 ? w.alloc_placed(heap, size) : w.alloc(size);
          if (p == nullptr) {
            w.errors++;
            continue;
          }
          static_cast<std::uintptr_t*>(p)[0] = address(p);
          static_cast<std::uintptr_t*>(p)[1] = ~address(p);
          mine.push_back(p);
        } else if (action < 7 && !mine.empty()) {
          std::swap(mine[random() % mine.size()], mine.back());
          release(mine.back());
          mine.pop_back();
        } else if (!mine.empty()) {
          void* other = desk[random() % desk_size].exchange(mine.back());
          mine.pop_back();
          if (other != nullptr) release(other);
        }
        if (mine.size() > most) {
          while (mine.size() > most / 4) {
            release(mine.back());
            mine.pop_back();
          }
        }
      }
      for (void* p : mine) release(p);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (auto& slot : desk) {
    if (void* p = slot.load(); p != nullptr) w.free(p);
  }
}

}  // namespace nh::test
