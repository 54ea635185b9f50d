#include "cache/cpu_caches.h"

#include <cstring>
#include <new>

#include "base/check.h"
#include "cache/mcache.h"

namespace nh {
namespace {

// Before start every thread's cpu_id reads -1 and finds lists that are empty and take nothing. Or 0: in an IFUNC resolver
// of the program the thread-local storage exists already, but has not got its initial values yet.
// Bytes, so that the tables are constants: one that is filled in later would undo what init() wrote.
alignas(ListSet) char g_boot_lists[sizeof(ListSet)];

}  // namespace

constinit CpuSlots g_local_slots = {{g_boot_lists, g_boot_lists, g_boot_lists}};
constinit CpuSlots g_all_slots = {{g_boot_lists, g_boot_lists, g_boot_lists}};
constinit HotState g_hot{0, 0, nullptr, nullptr, 0, nullptr, kMaxHeaps, 0, 0};
constinit CpuCaches g_caches;
__thread std::uint32_t t_rseq_aborts = 0;

const char* cache_mode_name(CacheMode mode) {
  switch (mode) {
    case CacheMode::kRseq: return "rseq";
    case CacheMode::kOwnRseq: return "own-rseq";
    case CacheMode::kFallback: return "fallback";
    case CacheMode::kOff: return "off";
  }
  return "?";
}

bool CpuCaches::init(const OsOps& os, HeapSet& heaps, const CacheConfig& config, HeapOfCpu heap_of_cpu) {
  os_ = &os;
  heaps_ = &heaps;
  config_ = config;
  heap_of_cpu_ = heap_of_cpu;
  mode_ = config.bytes_per_cpu == 0 ? CacheMode::kOff : CacheMode::kFallback;

  NH_CHECK(config.cpus <= kMaxCpus, "more CPUs than a kernel can have");
  MetadataPool& memory = heaps[HeapId(0)].heap.metadata();
  empty_ = static_cast<char*>(memory.alloc(list_sets() * sizeof(ListSet), 64));
  caches_ = static_cast<std::atomic<CpuCache*>*>(memory.alloc(config.cpus * sizeof(caches_[0]), 64));
  if (empty_ == nullptr || caches_ == nullptr) return false;
  for (unsigned i = 0; i < 2 + config.cpus; i++) g_local_slots.of[i] = g_all_slots.of[i] = empty_;

  AddressSpace& space = heaps.space();
  g_hot.free_key = g_free_key;
  g_hot.page_map = space.page_map();
  g_hot.spans = space.spans();
  g_hot.extent_heap = config.extent_heap;
  // Before start, and where there are no twins, the lists of the local heap serve.
  g_hot.twin_lists = config.twins == kMaxHeaps ? 0 : static_cast<std::uint32_t>(list_offset(HeapId(config.twins), SpanClass()));
  g_hot.owners = space.owners();
  g_hot.base = space.base();
  // Last: from here on pointers are looked up.
  space.mirror_used_bytes(&g_hot.used_bytes);
  return true;
}

CpuCache* CpuCaches::prepare(int cpu) {
  const HeapId local = heap_of_cpu_(CpuId(cpu));
  MetadataPool& memory = (*heaps_)[local].heap.metadata();
  auto* cache = static_cast<CpuCache*>(memory.alloc(sizeof(CpuCache), 64));
  auto* lists = static_cast<ListSet*>(memory.alloc(list_sets() * sizeof(ListSet), 64));
  if (cache == nullptr || lists == nullptr) return nullptr;
  new (cache) CpuCache{};
  cache->lists = lists;
  cache->local = local;
  cache->cpu = static_cast<std::uint32_t>(cpu);
  // Faulted in now rather than by some free() later on; the lists of the other heaps only when they are needed.
  for (FreeList& list : lists[list_set(local, false)].of) list.cap = 0;
  // Two threads may get here at once for one CPU; one cache stays, the other's memory is lost, once per CPU.
  CpuCache* expected = nullptr;
  if (!caches_[cpu].compare_exchange_strong(expected, cache, std::memory_order_acq_rel)) return expected;
  LockGuard guard(drain_lock_);
  publish(cpu, cache);
  return cache;
}

void CpuCaches::publish(int cpu, CpuCache* cache) {
  if (mode_ != CacheMode::kRseq && mode_ != CacheMode::kOwnRseq) return;
  // A sequence loads one of the two pointers, so their order does not matter. release: it sees zeroed lists behind them.
  char* lists = reinterpret_cast<char*>(cache->lists);
  __atomic_store_n(&all_slots()[cpu], lists, __ATOMIC_RELEASE);
  char* const local = diverted_.load(std::memory_order_relaxed) ? empty_ : lists + list_offset(cache->local, SpanClass());
  __atomic_store_n(&local_slots()[cpu], local, __ATOMIC_RELEASE);
}

// Sequences under way pop from the lists that they have found: as if they had been a moment earlier.
void CpuCaches::divert_malloc(bool diverted) {
  LockGuard guard(drain_lock_);
  diverted_.store(diverted, std::memory_order_relaxed);
  for_each([this](CpuCache& cache) { publish(static_cast<int>(cache.cpu), &cache); });
}

void CpuCaches::withdraw(int cpu) {
  __atomic_store_n(&local_slots()[cpu], empty_, __ATOMIC_RELAXED);
  __atomic_store_n(&all_slots()[cpu], empty_, __ATOMIC_RELAXED);
}

// Here and nowhere else: whoever gets false does without sequences.
bool CpuCaches::has_sequences() const {
  return (mode_ == CacheMode::kRseq || mode_ == CacheMode::kOwnRseq) && rseq_register_thread() && rseq_got_through();
}

CpuCache* CpuCaches::current_cache() {
  const CpuId cpu = current_cpu();
  const int index = cpu.valid() && static_cast<unsigned>(cpu.value) < config_.cpus ? cpu.value : 0;
  CpuCache* cache = cache_of(index);
  return cache != nullptr ? cache : prepare(index);
}

CpuId CpuCaches::current_cpu() const {
  const int cpu = rseq_current_cpu();
  return CpuId(cpu >= 0 ? cpu : current_cpu_slow());
}

HeapId CpuCaches::local_heap() { return heap_of_cpu_(current_cpu()); }

void CpuCaches::repair_after_fork(bool lost) {
  if (drain_lock_.held() && !drain_lock_.held_by_me()) drain_lock_.reset_after_fork();
  // All CPUs lose their lists then. (Where lists have locks no large objects are kept.)
  for (unsigned h = 0; lost && h < heaps_->count(); h++) large_capacity_[h].store(0, std::memory_order_relaxed);
  for (unsigned cpu = 0; cpu < config_.cpus && caches_ != nullptr; cpu++) {
    CpuCache* cache = cache_of(static_cast<int>(cpu));
    if (cache == nullptr) continue;
    // Lists of a sequence that was cut short by the fork are whole: it had not committed. Under a lock they may not be.
    if (!cache->lock.held_by_me() && (cache->lock.held() || lost)) {
      cache->lock.reset_after_fork();
      for (unsigned set = 0; set < list_sets(); set++) cache->lists[set] = ListSet{};
      cache->capacity_bytes = 0;
      cache->large_capacity_bytes = 0;
      std::memset(cache->turned_away, 0, sizeof cache->turned_away);
    }
    if (!cache->tiny_lock.held_by_me() && (cache->tiny_lock.held() || lost)) {
      cache->tiny_lock.reset_after_fork();
      cache->tiny_block = 0;  // its last bytes are lost to the child
    }
    // A drain may have been under way. If it is this thread's (it forked in a signal handler), it publishes the cache itself
    // when it is done.
    if (!drain_lock_.held_by_me()) publish(static_cast<int>(cpu), cache);
  }
}

}  // namespace nh
