// The slow path of a CPU's cache: what happens when a list is empty or full.
#include "base/check.h"
#include "base/format.h"
#include "cache/access.h"

namespace nh {
namespace {

// A class starts with a small list, which doubles at each miss: a process that uses a size a few times only touches
// few objects of it.
unsigned initial_capacity(SpanClass c) {
  const unsigned batch = batch_objects(c);
  return batch / 8 < 2 ? 2 : batch / 8;
}
// The most that one list may grow to: 256 KiB of objects.
unsigned max_capacity(SpanClass c) {
  const std::size_t n = 256 * KiB / size_class(c).bytes;
  return static_cast<unsigned>(n < 4 ? 4 : n > 4096 ? 4096 : n);
}

// At the CPU's limit every so many misses take capacity from another list.
constexpr unsigned kMissesPerSteal = 16;

FreeList& pop_list(ClassHeader& header, SpanClass c) { return has_two_lists(c) ? header.alloc : header.freed; }

// No list is longer, drift of the room included. A longer one is a ring: an object that was freed, written to (its mark
// with it) and freed again.
constexpr unsigned kLongestList = 1 << 20;

[[noreturn, gnu::cold]] void endless_list(const void* member) {
  Text<160> text;
  text.text("double free of ").ptr(member).text(" or of an object freed just before or after it, which was written to meanwhile");
  fatal(text.c_str());
}

void* last_of(void* head, unsigned* count) {
  unsigned n = 1;
  void* last = head;
  while (void* next = next_object(last)) {
    last = next;
    if (++n > kLongestList) endless_list(last);
  }
  *count = n;
  return last;
}

void count_one(std::uint64_t* counter) { __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED); }

}  // namespace

// Makes sure that `bytes` more of capacity stay within the CPU's limit, if need be by taking unused capacity from other
// lists, a few per call. The capacity counts as used from here on.
template <typename Access>
bool CpuCaches::reserve_capacity(Access& access, std::size_t bytes) {
  constexpr unsigned kListsPerCall = 8;
  CpuCache& cache = access.cache();
  std::uint64_t used = __atomic_add_fetch(&cache.capacity_bytes, bytes, __ATOMIC_RELAXED);
  // Lists of heaps that this CPU never sent anything home to are not even looked at, nor those of placed objects where
  // there were none: their memory was never touched. Asked once: another thread of this CPU may change the answer.
  const bool placed = __atomic_load_n(&cache.has_placed, __ATOMIC_RELAXED);
  const bool all_heaps = placed || __atomic_load_n(&cache.sends_home, __ATOMIC_RELAXED);
  const unsigned first = all_heaps ? 0 : cache.local.value;
  const unsigned lists = (placed ? list_sets() : all_heaps ? heaps_->count() : 1) * kCachedClasses;
  for (unsigned i = 0; used > config_.bytes_per_cpu && i < kListsPerCall; i++) {
    const unsigned at = __atomic_fetch_add(&cache.clock_hand, 1, __ATOMIC_RELAXED) % lists;
    const auto c = static_cast<SpanClass>(at % kCachedClasses);
    ClassHeader& header = cache.lists[first + at / kCachedClasses].of[c];
    for (FreeList* list : {&header.alloc, &header.freed}) {
      // Half of the unused part: a list that is merely low at the moment keeps room. The room is a hint and may say more
      // than the list ever had.
      const unsigned room = __atomic_load_n(&list->room, __ATOMIC_RELAXED);
      const unsigned cap = __atomic_load_n(&list->cap, __ATOMIC_RELAXED);
      const unsigned spare = (room < cap ? room : cap) / 2;
      if (spare == 0 || !access.resize(*list, -static_cast<std::int32_t>(spare))) continue;
      used = __atomic_sub_fetch(&cache.capacity_bytes, std::uint64_t{spare} * size_class(c).bytes, __ATOMIC_RELAXED);
    }
  }
  if (used <= config_.bytes_per_cpu) return true;
  __atomic_fetch_sub(&cache.capacity_bytes, bytes, __ATOMIC_RELAXED);
  return false;
}

// Doubles the lists of a class. False: at their largest, or the CPU's limit is reached.
template <typename Access>
bool CpuCaches::grow_list(Access& access, ClassHeader& header, SpanClass c, bool local) {
  if (!local) __atomic_store_n(&access.cache().sends_home, true, __ATOMIC_RELAXED);
  if (is_placed(c)) __atomic_store_n(&access.cache().has_placed, true, __ATOMIC_RELAXED);
  const unsigned cap = __atomic_load_n(&header.freed.cap, __ATOMIC_RELAXED);
  const unsigned max = max_capacity(c);
  if (cap >= max) return false;
  const unsigned wanted = cap == 0 ? initial_capacity(c) : cap * 2;
  unsigned step = (wanted < max ? wanted : max) - cap;
  // Where the CPU's limit is reached lists grow at the cost of others: rarely and in small steps, or they would do nothing
  // but take from each other (mixed sizes replaced at random under a limit of 2 MiB: 9.5 ns, so 6.5, without limit 5.7).
  CpuCache& cache = access.cache();
  const std::uint64_t used = __atomic_load_n(&cache.capacity_bytes, __ATOMIC_RELAXED);
  if (used + std::size_t{step} * size_class(c).bytes > config_.bytes_per_cpu) {
    if (__atomic_add_fetch(&cache.starved, 1, __ATOMIC_RELAXED) % kMissesPerSteal != 0) return false;
    const unsigned small_step = batch_objects(c) / 2 + 1;
    if (step > small_step) step = small_step;
  }
  const std::size_t bytes = std::size_t{step} * size_class(c).bytes;
  if (reserve_capacity(access, bytes) && !access.resize(header.freed, static_cast<std::int32_t>(step))) {
    __atomic_fetch_sub(&access.cache().capacity_bytes, bytes, __ATOMIC_RELAXED);
    return false;
  }
  if (!has_two_lists(c) || !local) return true;
  // The other list follows, so that a swap always fits.
  const unsigned behind = __atomic_load_n(&header.freed.cap, __ATOMIC_RELAXED);
  const unsigned other = __atomic_load_n(&header.alloc.cap, __ATOMIC_RELAXED);
  if (behind <= other) return true;
  const std::size_t more = std::size_t{behind - other} * size_class(c).bytes;
  if (reserve_capacity(access, more) && !access.resize(header.alloc, static_cast<std::int32_t>(behind - other))) {
    __atomic_fetch_sub(&access.cache().capacity_bytes, more, __ATOMIC_RELAXED);
  }
  return true;
}

// Puts a null-terminated chain of heap h's objects on a list of this CPU, or back to the mcentral.
template <typename Access>
void CpuCaches::keep(Access& access, FreeList& list, HeapId h, SpanClass c, const Batch& batch) {
  if (batch.head == nullptr || access.install(list, batch)) return;
  unsigned count = 0;
  void* last = last_of(batch.head, &count);
  if (access.put(list, batch.head, last, count)) return;
  heaps_->flush(h, c, batch.head, count, h);  // not the program's doing: no remote free
}

template <typename Access>
void* CpuCaches::serve(Access& access, HeapId h, SpanClass c, bool strict) {
  CpuCache& cache = access.cache();
  void* object;
  if (access.pop(pop_list(header_of(cache, h, c), c), &object)) return object;
  return alloc_with(access, h, c, strict);
}

template <typename Access>
void* CpuCaches::alloc_with(Access& access, HeapId h, SpanClass c, bool strict) {
  CpuCache& cache = access.cache();
  ClassHeader& header = header_of(cache, h, c);
  FreeList& target = pop_list(header, c);
  Batch got;
  if (has_two_lists(c)) access.take(header.freed, &got);

  // The count comes from a hint: an empty list may claim to have objects.
  if (got.head == nullptr || got.count < kMinSwap) {
    // A miss: too few objects go around on this CPU.
    grow_list(access, header, c, h == cache.local);
    const unsigned cap = __atomic_load_n(&target.cap, __ATOMIC_RELAXED);
    const unsigned batch = batch_objects(c);
    const unsigned room = cap > got.count ? cap - got.count : 0;
    const unsigned wanted = room < batch ? room : batch;
    if (wanted != 0 || got.head == nullptr) {
      HeapId from = h;
      // No other node is asked while there are objects of our own.
      const bool own_only = strict || got.head != nullptr;
      const Batch more = heaps_->fetch(&from, c, wanted == 0 ? 1 : wanted, CpuId(static_cast<int>(cache.cpu)), own_only);
      count_one(&cache.refills);
      if (from != h) {
        // Another node's objects must not get into this heap's lists. One serves; the others wait with their own.
        if (next_object(more.head) != nullptr) heaps_->flush(from, c, next_object(more.head), more.count - 1, from);
        return more.head;
      }
      if (got.head == nullptr) {
        got = more;
      } else if (more.head != nullptr) {
        unsigned count = 0;
        next_object(last_of(got.head, &count)) = more.head;
        got.count = count + more.count;
      }
    }
  }
  if (got.head == nullptr) return nullptr;
  void* object = got.head;
  got.head = next_object(object);
  got.count = got.count > 0 ? got.count - 1 : 0;
  keep(access, target, h, c, got);
  return object;
}

template <typename Access>
bool CpuCaches::free_with(Access& access, void* p, SpanClass c, HeapId h) {
  CpuCache& cache = access.cache();
  ClassHeader& header = header_of(cache, h, c);
  const bool local = h == cache.local;
  if (access.put(header.freed, p, p, 1)) return true;
  if (grow_list(access, header, c, local) && access.put(header.freed, p, p, 1)) return true;

  Batch out;
  if (!access.take(header.freed, &out)) return false;
  // The list that malloc() pops from may have run empty by now. It takes what the full one held, and not an object more.
  if (local && has_two_lists(c) && access.install(header.alloc, out)) {
    if (access.put(header.freed, p, p, 1)) return true;
    out = Batch();
  }
  next_object(p) = out.head;
  out.head = p;
  out.count++;
  if ((local || is_placed(c)) && !has_two_lists(c) && out.count >= 4) {
    // The half that was freed last is warm and stays, where it can be handed out again.
    const unsigned stay = out.count / 2;
    void* last = out.head;
    unsigned n = 1;
    while (n < stay && next_object(last) != nullptr) {
      last = next_object(last);
      n++;
    }
    void* rest = next_object(last);
    next_object(last) = nullptr;
    keep(access, header.freed, h, c, {out.head, n});
    out = {rest, out.count - n};
  }
  if (out.head == nullptr) return true;
  count_one(&cache.flushes);
  heaps_->flush(h, c, out.head, out.count, cache.local);
  return true;
}

void* CpuCaches::alloc_uncached(HeapId h, SpanClass c, bool strict) {
  HeapId from = h;
  const Batch batch = heaps_->fetch(&from, c, 1, current_cpu(), strict);
  // A batch from the transfer cache is larger than asked for.
  if (batch.head != nullptr && next_object(batch.head) != nullptr) {
    heaps_->flush(from, c, next_object(batch.head), batch.count - 1, from);
  }
  return batch.head;
}

void* CpuCaches::alloc(SpanClass c) {
  if (mode_ == CacheMode::kRseq || mode_ == CacheMode::kOwnRseq) {
    if (rseq_register_thread()) {
      void* object;
      if (rseq_pop(local_lists_, pop_offset(c), &object)) return object;
      RseqAccess access(*this);
      if (access.usable()) return alloc_with(access, access.cache().local, c, config_.strict);
    }
  } else if (mode_ == CacheMode::kFallback) {
    LockedAccess access(*this);
    if (access.usable()) return serve(access, access.cache().local, c, config_.strict);
  }
  return alloc_uncached(local_heap(), c, config_.strict);
}

void* CpuCaches::alloc_from(HeapId h, SpanClass c, bool strict) {
  NH_ASSERT(is_placed(c));
  if (mode_ == CacheMode::kRseq || mode_ == CacheMode::kOwnRseq) {
    if (rseq_register_thread()) {
      RseqAccess access(*this);
      if (access.usable()) return serve(access, h, c, strict);
    }
  } else if (mode_ == CacheMode::kFallback) {
    LockedAccess access(*this);
    if (access.usable()) return serve(access, h, c, strict);
  }
  return alloc_uncached(h, c, strict);
}

void CpuCaches::free(void* p, SpanClass c, HeapId h) {
  if (mode_ == CacheMode::kRseq || mode_ == CacheMode::kOwnRseq) {
    if (rseq_register_thread()) {
      RseqAccess access(*this);
      if (access.usable() && free_with(access, p, c, h)) return;
    }
  } else if (mode_ == CacheMode::kFallback) {
    LockedAccess access(*this);
    if (access.usable() && free_with(access, p, c, h)) return;
  }
  next_object(p) = nullptr;
  heaps_->flush(h, c, p, 1, heap_of_cpu_(current_cpu()));
}

}  // namespace nh
