#include "process/leak_marking.h"

#include <algorithm>

#include "base/bits.h"
#include "cache/tiny.h"
#include "central/free_mark.h"
#include "process/process.h"

namespace nh {
namespace {

constexpr std::size_t kPagesAtOnce = 64;

bool test(const Scratch<std::uint64_t>& bits, std::size_t bit) { return (bits.begin()[bit / 64] >> (bit % 64) & 1) != 0; }
void set(Scratch<std::uint64_t>& bits, std::size_t bit) { bits[bit / 64] |= std::uint64_t{1} << (bit % 64); }

std::size_t objects_of(const MSpan& span) { return is_large(span.span_class) ? 1 : span.alloc_count; }

template <typename Visit>
void for_each_span(Visit&& visit) {
  for (unsigned i = 0; i < g_process.heaps.count(); i++) {
    g_process.heaps[HeapId(i)].heap.for_each_span([&](MSpan* span) {
      if (__atomic_load_n(&span->elem_size, __ATOMIC_ACQUIRE) != 0) visit(*span);
    });
  }
}

}  // namespace

bool LeakMarking::prepare() {
  std::size_t objects = 0, large = 0;
  for (unsigned i = 0; i < g_process.heaps.count(); i++) {
    NodeHeap& heap = g_process.heaps[HeapId(i)];
    large += heap.heap.stats().large_objects;
    for (std::atomic<Central*>& central : heap.central) {
      if (Central* const c = central.load(std::memory_order_acquire); c != nullptr) objects += c->stats().objects_out;
    }
  }
  base_ = g_process.space.base();
  const std::size_t used = g_process.space.used_bytes();
  window_bytes_ = used + align_up(used / 4, kArenaSize) + 4 * kArenaSize;
  return reached_.make(window_bytes_ / 512) && pointed_to_.make(window_bytes_ / 512) &&
         spans_.make(window_bytes_ >> kPageShift) && work_.make((objects + large) * 2 + MiB) && large_.make(large * 2 + MiB);
}

bool LeakMarking::collect() {
  if (g_process.space.used_bytes() > window_bytes_) return false;
  std::size_t objects = 0;
  bool all = true;
  for_each_span([&](const MSpan& span) {
    objects += objects_of(span);
    if (is_large(span.span_class)) all = all && large_.add(address(&span));
    const std::size_t first = (span.start_addr - base_) >> kPageShift;
    for (std::size_t i = 0; i < span.npages; i++) spans_[first + i] = &span;
  });
  std::sort(large_.begin(), large_.end());
  return all && objects <= work_.capacity();
}

// Of an address in the window, or any other.
LeakMarking::Object LeakMarking::object_at(std::uintptr_t p) const {
  if (p - base_ >= window_bytes_) return {};
  const MSpan* const span = spans_.begin()[(p - base_) >> kPageShift];
  if (span == nullptr) return {};
  if (is_large(span->span_class)) {
    const Object object{span->object_addr(), span->elem_size, span};
    return p - object.start < object.bytes ? object : Object{};
  }
  const SizeClass& c = size_class(span->span_class);
  const unsigned index = object_index(c, p - span->start_addr);
  if (index >= c.objects) return {};
  return {span->start_addr + std::size_t{index} * c.bytes, c.bytes, span};
}

LeakMarking::Object LeakMarking::object_described_by(std::uintptr_t p) const {
  if (!std::binary_search(large_.begin(), large_.end(), p)) return {};
  const auto* const span = reinterpret_cast<const MSpan*>(p);
  return {span->object_addr(), span->elem_size, span};
}

bool LeakMarking::in_use(const Object& object) {
  const MSpan& span = *object.span;
  const SpanClass c = span.span_class;
  void* const p = reinterpret_cast<void*>(object.start);
  if (is_large(c)) {
    const SpanUse use = __atomic_load_n(&span.use, __ATOMIC_ACQUIRE);
    if (use != SpanUse::kInUse && use != SpanUse::kSampled) return false;
  } else if (span.is_free(object_index(size_class(c), object.start - span.start_addr))) {
    return false;
  }
  if (c.is_tiny()) return tiny_block_is_used(p, span);
  if (has_mark(c)) return mark_word(p) != free_mark(p);
  return is_large(c) || eight_is_object(p, span);
}

// Only pages that exist are read: others hold nothing, and reading would make some, or meet the end of a file.
template <typename Find, typename Visit>
void LeakMarking::for_each_object(std::uintptr_t start, std::uintptr_t end, bool own_only, Find&& find, Visit&& visit) const {
  const auto look = [&](std::uintptr_t from, std::uintptr_t to) {
    for (std::uintptr_t at = from; at + sizeof(std::uintptr_t) <= to; at += sizeof(std::uintptr_t)) {
      const Object object = find(*reinterpret_cast<const std::uintptr_t*>(at));
      if (object.span != nullptr) visit(object);
    }
  };
  start = align_up(start, sizeof(std::uintptr_t));
  if (end <= start) return;
  if (end - start <= kPageSize && !own_only) return look(start, end);
  for (std::uintptr_t group = align_down(start, kOsPageSize); group < end; group += kPagesAtOnce * kOsPageSize) {
    std::uint64_t pages = pages_.held_of_64(reinterpret_cast<const void*>(group), own_only);
    for (std::uintptr_t page = group; pages != 0 && page < end; page += kOsPageSize, pages >>= 1) {
      if ((pages & 1) == 0) continue;
      look(page < start ? start : page, page + kOsPageSize < end ? page + kOsPageSize : end);
    }
  }
}

template <typename Visit>
void LeakMarking::for_each_pointer(std::uintptr_t start, std::uintptr_t end, Visit&& visit) const {
  for_each_object(start, end, false, [this](std::uintptr_t p) { return object_at(p); }, visit);
}

void LeakMarking::reach(const Object& object) {
  const std::size_t bit = bit_of(object.start);
  if (test(reached_, bit) || !in_use(object)) return;
  set(reached_, bit);
  if (!object.span->noscan()) work_.add(object.start);
}

void LeakMarking::follow() {
  while (work_.size() != 0) {
    const Object object = object_at(work_.take_last());
    for_each_pointer(object.start, object.start + object.bytes, [this](const Object& other) { reach(other); });
  }
}

void LeakMarking::mark_from(std::uintptr_t start, std::uintptr_t end) {
  const auto find = [this](std::uintptr_t p) {
    const Object object = object_at(p);
    return object.span != nullptr ? object : object_described_by(p);
  };
  for_each_object(start, end, true, find, [this](const Object& object) { reach(object); });
  follow();
}

template <typename Visit>
void LeakMarking::for_each_unreached(Visit&& visit) const {
  for_each_span([&](const MSpan& span) {
    const std::size_t step = is_large(span.span_class) ? span.pages().bytes() : size_class(span.span_class).bytes;
    const unsigned count = is_large(span.span_class) ? 1 : span.nelems;
    const std::uintptr_t first = is_large(span.span_class) ? span.object_addr() : span.start_addr;
    for (unsigned i = 0; i < count; i++) {
      const Object object = object_at(first + i * step);
      if (object.span == &span && !test(reached_, bit_of(object.start)) && in_use(object)) visit(object);
    }
  });
}

void LeakMarking::for_each_lost(void (*lost)(void*, const Object&, bool), void* argument) {
  for_each_unreached([&](const Object& object) {
    if (object.span->noscan()) return;
    for_each_pointer(object.start, object.start + object.bytes, [&](const Object& other) {
      if (other.start != object.start) set(pointed_to_, bit_of(other.start));
    });
  });
  // What is reached from a lost object is counted when it is looked at, so that the work list takes all of it once.
  const auto tell_of_all = [&](const Object& first) {
    lost(argument, first, true);
    set(reached_, bit_of(first.start));
    if (first.span->noscan()) return;
    work_.add(first.start);
    while (work_.size() != 0) {
      const Object object = object_at(work_.take_last());
      for_each_pointer(object.start, object.start + object.bytes, [&](const Object& other) {
        if (test(reached_, bit_of(other.start)) || !in_use(other)) return;
        lost(argument, other, false);
        reach(other);
      });
    }
  };
  for_each_unreached([&](const Object& object) {
    if (!test(pointed_to_, bit_of(object.start))) tell_of_all(object);
  });
  // What is left are rings and what hangs on them.
  for_each_unreached(tell_of_all);
}

}  // namespace nh
