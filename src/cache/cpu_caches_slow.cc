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

// At the CPU's limit every so many misses take capacity from another list.
constexpr unsigned kMissesPerSteal = 16;

// No list is longer, drift of the room included. A longer one is a ring: an object that was freed, written to (its mark
// with it) and freed again.
constexpr unsigned kLongestList = 1 << 20;

// The most objects that one list may hold: half of what the CPU may keep, so that a program that frees whole trees finds
// their nodes here again (with 256 KiB symbolic/expressions took 5.2 ms instead of 4.3, graphs/trees 4.1 instead of 3.4).
// Objects that only wait for their way home have less.
unsigned max_capacity(SpanClass c, std::size_t bytes_per_cpu, bool handed_out_here) {
  constexpr std::size_t kMaxWaiting = 256 * KiB;
  std::size_t bytes = bytes_per_cpu / 2;
  if (!handed_out_here && bytes > kMaxWaiting) bytes = kMaxWaiting;
  const std::size_t n = bytes / size_class(c).bytes;
  return static_cast<unsigned>(n < 4 ? 4 : n > kLongestList / 2 ? kLongestList / 2 : n);
}

// While a node is full and another serves, the clock is looked at so often.
constexpr unsigned kObjectsPerLook = 64;

// A full list sends home so many objects at least, and no fewer than a batch, but half of itself at most.
constexpr unsigned kMinSent = 128;

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

void mark_lost(const void* p) {
  Text<200> text;
  text.text("malloc: the free object ").ptr(p).text(" was written to after it was freed, or is the victim of a double free");
  fatal(text.c_str());
}

// Makes sure that `bytes` more of capacity stay within the CPU's limit, if need be by taking unused capacity from other
// lists, a few per call. The capacity counts as used from here on.
template <typename Access>
bool CpuCaches::reserve_capacity(Access& access, std::size_t bytes) {
  constexpr unsigned kListsPerCall = 8;
  CpuCache& cache = access.cache();
  std::uint64_t used = __atomic_add_fetch(&cache.capacity_bytes, bytes, __ATOMIC_RELAXED);
  // Lists of heaps of which this CPU never had anything are not even looked at, since their memory was never touched,
  // nor those of placed objects where there were none. Asked once: another thread of this CPU may change the answer.
  const bool placed = __atomic_load_n(&cache.has_placed, __ATOMIC_RELAXED);
  const bool all_heaps = placed || __atomic_load_n(&cache.has_other_heaps, __ATOMIC_RELAXED);
  const unsigned step = placed ? 1 : kListSetsPerHeap;
  const unsigned sets = (all_heaps ? list_sets() : kListSetsPerHeap) / step;
  const unsigned first = list_set(all_heaps ? HeapId(0) : cache.local, false);
  for (unsigned i = 0; used > config_.bytes_per_cpu && i < kListsPerCall; i++) {
    const unsigned at = __atomic_fetch_add(&cache.clock_hand, 1, __ATOMIC_RELAXED) % (sets * kCachedClasses);
    const SpanClass c(at % kCachedClasses);
    FreeList& list = cache.lists[first + at / kCachedClasses * step].of[c.list()];
    // Half of the unused part: a list that is merely low at the moment keeps room. The room is a hint and may say more
    // than the list ever had.
    const unsigned room = __atomic_load_n(&list.room, __ATOMIC_RELAXED);
    const unsigned cap = __atomic_load_n(&list.cap, __ATOMIC_RELAXED);
    const unsigned spare = (room < cap ? room : cap) / 2;
    if (spare == 0 || !access.resize(list, -static_cast<std::int32_t>(spare))) continue;
    used = __atomic_sub_fetch(&cache.capacity_bytes, std::uint64_t{spare} * size_class(c).bytes, __ATOMIC_RELAXED);
  }
  if (used <= config_.bytes_per_cpu) return true;
  __atomic_fetch_sub(&cache.capacity_bytes, bytes, __ATOMIC_RELAXED);
  return false;
}

// Doubles the list of a class. False: at its largest, or the CPU's limit is reached.
template <typename Access>
bool CpuCaches::grow_list(Access& access, FreeList& list, HeapId h, SpanClass c) {
  if (h != access.cache().local) __atomic_store_n(&access.cache().has_other_heaps, true, __ATOMIC_RELAXED);
  if (c.is_placed()) __atomic_store_n(&access.cache().has_placed, true, __ATOMIC_RELAXED);
  const unsigned cap = __atomic_load_n(&list.cap, __ATOMIC_RELAXED);
  const unsigned max = max_capacity(c, config_.bytes_per_cpu, hands_out(access.cache(), h) || c.is_placed());
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
  if (!reserve_capacity(access, bytes)) return false;
  if (access.resize(list, static_cast<std::int32_t>(step))) return true;
  __atomic_fetch_sub(&cache.capacity_bytes, bytes, __ATOMIC_RELAXED);
  return false;
}

// Puts a null-terminated chain of heap h's objects on a list of this CPU that was empty a moment ago, or back to the
// mcentral.
template <typename Access>
void CpuCaches::keep(Access& access, FreeList& list, HeapId h, SpanClass c, Batch batch) {
  constexpr int kAttempts = 3;
  for (int i = 0; batch.head != nullptr && !access.install(list, batch); i++) {
    // Another thread of this CPU was faster. What it brought goes in front: it is short, the chain may be long.
    Batch others;
    if (i == kAttempts || !access.take(list, &others) || others.head == nullptr) {
      heaps_->flush(h, c, batch.head, batch.count, h);  // not the program's doing: no remote free
      return;
    }
    next_object(last_of(others.head, &others.count)) = batch.head;
    batch = {others.head, others.count + batch.count};
  }
}

template <typename Access>
void* CpuCaches::serve(Access& access, HeapId h, SpanClass c, Help help, bool* untouched) {
  void* object;
  if (access.pop(list_of(access.cache(), h, c), &object)) return object;
  return alloc_with(access, h, c, help, untouched);
}

// While h's node is full the objects of the heap that serves instead are handed out here, from this CPU's list for them,
// which is filled with batches as that of placed objects is.
template <typename Access>
void* CpuCaches::alloc_from_substitute(Access& access, HeapId h, SpanClass c, bool* untouched) {
  const HeapId other = heaps_->substitute_of(h);
  if (other == h) return nullptr;
  void* object = nullptr;
  const bool popped = access.pop(list_of(access.cache(), other, c), &object);
  const bool looks = !popped || __atomic_add_fetch(&access.cache().substituted, 1, __ATOMIC_RELAXED) % kObjectsPerLook == 0;
  if (looks && heaps_->ends_substitute(h)) return object;
  if (popped) return object;
  object = alloc_with(access, other, c, Help::kNobody, untouched);
  object != nullptr ? heaps_->note_helped(other) : heaps_->drop_substitute(h);
  return object;
}

template <typename Access>
void* CpuCaches::alloc_with(Access& access, HeapId h, SpanClass c, Help help, bool* untouched) {
  if (help == Help::kNeighbours) {
    if (void* object = alloc_from_substitute(access, h, c, untouched); object != nullptr) return object;
  }
  CpuCache& cache = access.cache();
  FreeList& list = list_of(cache, h, c);
  // A miss: too few objects go around on this CPU.
  grow_list(access, list, h, c);
  const unsigned cap = __atomic_load_n(&list.cap, __ATOMIC_RELAXED);
  const unsigned batch = batch_objects(c);
  const unsigned wanted = cap == 0 ? 1 : cap < batch ? cap : batch;
  HeapId from = h;
  const Batch got = heaps_->fetch(&from, c, wanted, CpuId(static_cast<int>(cache.cpu)), help, untouched);
  count_one(&cache.refills);
  // The link of an untouched object, which comes alone, is not even read.
  if (got.head == nullptr || got.count == 1) return got.head;
  // More than one: of this heap, since others give single objects only. Theirs must not get into this list.
  keep(access, list, h, c, {next_object(got.head), got.count - 1});
  return got.head;
}

template <typename Access>
bool CpuCaches::free_with(Access& access, void* p, SpanClass c, HeapId h) {
  CpuCache& cache = access.cache();
  FreeList& list = list_of(cache, h, c);
  const bool local = hands_out(cache, h);
  if (access.put(list, p, p, 1)) return true;
  if (grow_list(access, list, h, c) && access.put(list, p, p, 1)) return true;

  Batch out;
  if (!access.take(list, &out)) return false;
  next_object(p) = out.head;
  out.head = p;
  out.count++;
  // Where they can be handed out again, not all go home.
  if ((local || c.is_placed()) && out.count >= 4) {
    const unsigned batch = batch_objects(c) < kMinSent ? kMinSent : batch_objects(c);
    const unsigned sent = out.count / 2 < batch ? out.count / 2 : batch;
    // Those freed last, which are warm: the walk to the place where the chain is cut touches them, and so does the
    // mcentral (keeping them and sending the others: 35 ns instead of 21 for an object freed on another CPU).
    void* last = out.head;
    unsigned n = 1;
    for (; n < sent && next_object(last) != nullptr; n++) last = next_object(last);
    void* rest = next_object(last);
    next_object(last) = nullptr;
    keep(access, list, h, c, {rest, out.count - n});
    out.count = n;
  }
  if (out.head == nullptr) return true;
  count_one(&cache.flushes);
  heaps_->flush(h, c, out.head, out.count, local ? h : cache.local);
  return true;
}

void* CpuCaches::alloc_uncached(HeapId h, SpanClass c, Help help, bool* untouched) {
  return heaps_->fetch(&h, c, 1, current_cpu(), help, untouched).head;
}

void* CpuCaches::alloc(SpanClass c, bool* untouched) {
  if (has_sequences()) {
    void* object;
    const bool diverted = diverted_.load(std::memory_order_relaxed);
    if (!diverted && rseq_pop(local_slots(), offset_in_set(c), &object)) return object;
    RseqAccess access(*this);
    if (access.usable()) {
      const HeapId local = access.cache().local;
      return diverted ? serve(access, local, c, config_.help, untouched) : alloc_with(access, local, c, config_.help, untouched);
    }
  } else if (mode_ == CacheMode::kFallback) {
    LockedAccess access(*this);
    if (access.usable()) return serve(access, access.cache().local, c, config_.help, untouched);
  }
  return alloc_uncached(local_heap(), c, config_.help, untouched);
}

// A thread that moves to a CPU of another node in between takes its object from there: as if it had moved a moment later.
void* CpuCaches::alloc_paged(SpanClass c) { return alloc_from(twin_of(local_heap()), c, config_.help); }

void* CpuCaches::alloc_from(HeapId h, SpanClass c, Help help) {
  if (has_sequences()) {
    RseqAccess access(*this);
    if (access.usable()) return serve(access, h, c, help, nullptr);
  } else if (mode_ == CacheMode::kFallback) {
    LockedAccess access(*this);
    if (access.usable()) return serve(access, h, c, help, nullptr);
  }
  return alloc_uncached(h, c, help, nullptr);
}

void CpuCaches::free(void* p, SpanClass c, HeapId h) {
  if (has_sequences()) {
    RseqAccess access(*this);
    if (access.usable() && free_with(access, p, c, h)) return;
  } else if (mode_ == CacheMode::kFallback) {
    LockedAccess access(*this);
    if (access.usable() && free_with(access, p, c, h)) return;
  }
  next_object(p) = nullptr;
  heaps_->flush(h, c, p, 1, heap_of_cpu_(current_cpu()));
}

}  // namespace nh
