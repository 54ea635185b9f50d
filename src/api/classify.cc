#include "api/classify.h"

#include "base/bits.h"
#include "cache/tiny.h"
#include "central/free_mark.h"
#include "process/process.h"

namespace nh {
namespace {

PointerKind kind_in_large(const void* p, const MSpan& span) {
  if (address(p) != span.object_addr()) return PointerKind::kInterior;
  const SpanUse use = __atomic_load_n(&span.use, __ATOMIC_RELAXED);
  return use == SpanUse::kInUse || use == SpanUse::kSampled ? PointerKind::kObject : PointerKind::kFree;
}

PointerKind kind_in_small(const void* p, const MSpan& span, SpanClass c) {
  const std::size_t offset = address(p) - span.start_addr;
  // Tiny objects begin anywhere in their block, so that one which was freed cannot be told from the middle of another.
  if (c == kTinyClass) {
    if (tiny_is_object(p, span)) return PointerKind::kObject;
    return offset % kTinySize == kTinySize - 1 ? PointerKind::kInterior : PointerKind::kFree;
  }
  const SizeClass& size = size_class(c);
  if (!is_object_start(size, static_cast<std::uint32_t>(offset))) return PointerKind::kInterior;
  if (offset >= std::size_t{size.bytes} * size.objects) return PointerKind::kTail;
  // The mark depends on the address and a random key, and malloc() clears it: no program writes it by accident. The bits of
  // the span cannot be asked, since they say nothing about an object in a cache, and a cache cannot always be emptied (no
  // membarrier) or fills again meanwhile.
  const bool is_free = has_mark(c) ? mark_word(const_cast<void*>(p)) == free_mark(p) : !eight_is_object(p, span);
  return is_free ? PointerKind::kFree : PointerKind::kObject;
}

// Of an address whose page the map does not know.
Found without_entry(const void* p) {
  AddressSpace& space = g_process.space;
  if (MSpan* span = space.span_around(p); span != nullptr) return {PointerKind::kInterior, 0, span};
  return {space.owner(p).has_heap() ? PointerKind::kFreePages : PointerKind::kForeign};
}

}  // namespace

Found classify(const void* p) {
  if (p == nullptr) return {PointerKind::kNull};
  if (!started() || !g_process.space.contains(p)) return {PointerKind::kForeign};
  const PageEntry entry = g_process.space.entry(p);
  MSpan* span = g_process.space.span_of(p);
  if (entry == 0 || span == nullptr) return without_entry(p);
  const SpanClass c = entry_class(entry);
  return {c == kLargeClass ? kind_in_large(p, *span) : kind_in_small(p, *span, c), entry, span};
}

std::size_t usable_bytes(const void* p, const Found& object) {
  const SpanClass c = object.span_class();
  if (c == kLargeClass) return object.span->elem_size;
  return c == kTinyClass ? tiny_usable(g_caches, p, *object.span) : size_class(c).bytes;
}

}  // namespace nh
