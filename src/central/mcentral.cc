#include "central/mcentral.h"

#include <cstring>

#include "base/check.h"
#include "base/format.h"
#include "central/free_mark.h"

namespace nh {

std::uint64_t g_free_key = 0;

namespace {

// Start bits: 16 for every 16 bytes of the span.
constexpr std::size_t kStartsBytes = kPageSize / 16 * sizeof(std::uint16_t);

bool knows_untouched(SpanClass c) { return size_class(c).bytes >= kMinUntouched; }
static_assert([] {
  for (const SizeClass& c : kSizeClassTable) {
    if (c.bytes >= kMinUntouched && c.objects > MSpan::kMostToKnowUntouched) return false;
  }
  return true;
}());
bool has_starts(SpanClass c) { return c.is_tiny() || c.row() == 1; }

[[noreturn]] void double_free(const void* object, const MSpan& span) {
  Text<256> text;
  text.text("double free of ").ptr(object).text(": object of ").dec(span.elem_size).text(" bytes in span ");
  text.hex(span.start_addr).text(" (class ").dec(span.span_class.list()).text(") is free already");
  fatal(text.c_str());
}

// What was meant to be freed as an object of class c is none.
[[noreturn]] void wrong_class(const void* object, const MSpan* span, SpanClass c) {
  Text<300> text;
  text.text("free list of objects of ").dec(size_class(c).bytes).text(" bytes holds ").ptr(object);
  if (span == nullptr) {
    text.text(", which is no object");
  } else {
    text.text(": object of ").dec(span->elem_size).text(" bytes in span ").hex(span->start_addr);
    text.text(" (class ").dec(span->span_class.list()).text(")");
  }
  text.text("; a write to a freed object, or a wrong size that was trusted");
  fatal(text.c_str());
}

}  // namespace

void MCentral::SpanList::push(MSpan* s) {
  s->prev = nullptr;
  s->next = first;
  if (first != nullptr) first->prev = s;
  first = s;
}

void MCentral::SpanList::remove(MSpan* s) {
  (s->prev != nullptr ? s->prev->next : first) = s->next;
  if (s->next != nullptr) s->next->prev = s->prev;
  s->next = s->prev = nullptr;
}

void MCentral::move_L(MSpan* span, SpanSet to) {
  if (span->set == to) return;
  if (span->set == SpanSet::kPartial) partial_.remove(span);
  if (span->set == SpanSet::kFull) full_.remove(span);
  if (to == SpanSet::kPartial) partial_.push(span);
  if (to == SpanSet::kFull) full_.push(span);
  span->set = to;
}

Batch MCentral::take_from_spans_L(unsigned wanted, bool* untouched) {
  const bool as_it_is = untouched != nullptr && partial_.first != nullptr && partial_.first->next_is_untouched();
  if (as_it_is) {
    *untouched = true;
    wanted = 1;
  }
  const bool knows = knows_untouched(class_);
  Batch batch;
  void** link = &batch.head;
  while (batch.count < wanted && partial_.first != nullptr) {
    MSpan* span = partial_.first;
    if (span->alloc_count == 0) empty_spans_--;
    batch.count += span->take_free(wanted - batch.count, [&](unsigned index) {
      void* object = reinterpret_cast<void*>(span->start_addr + index * span->elem_size);
      if (knows) span->note_taken(index);
      *link = object;
      if (as_it_is) return;
      link = &next_object(object);
      if (has_mark(class_)) mark_word(object) = free_mark(object);
    });
    if (span->full()) move_L(span, SpanSet::kFull);
  }
  if (!as_it_is) *link = nullptr;
  objects_out_ += batch.count;
  return batch;
}

std::uint16_t* MCentral::take_starts() {
  {
    LockGuard guard(lock_);
    if (std::uint16_t* starts = spare_starts_; starts != nullptr) {
      std::memcpy(&spare_starts_, starts, sizeof(void*));
      std::memset(starts, 0, sizeof(void*));
      return starts;
    }
  }
  const std::size_t bytes = kStartsBytes * (class_.is_tiny() ? 1 : size_class(class_).pages);
  return static_cast<std::uint16_t*>(heap_.metadata().alloc(bytes, 64));
}

MSpan* MCentral::new_span(CpuId cpu) {
  const SizeClass& c = size_class(class_);
  MSpan* span = heap_.alloc_span(class_, cpu);
  if (span == nullptr) return nullptr;
  if (has_starts(class_)) {
    span->starts = take_starts();
    if (span->starts == nullptr) {
      heap_.free_span(span);
      return nullptr;
    }
  }
  span->init_objects(c.bytes, c.objects);
  // The tail looks like a freed object, so that freeing its address is noticed; the classes see to it that a tail has
  // room for the mark.
  const std::uintptr_t tail = span->start_addr + std::uintptr_t{c.bytes} * c.objects;
  if (tail != span->end_addr()) mark_word(reinterpret_cast<void*>(tail)) = free_mark(reinterpret_cast<void*>(tail));
  return span;
}

Batch MCentral::fetch(unsigned wanted, CpuId cpu, bool* untouched) {
  if (!knows_untouched(class_)) untouched = nullptr;
  for (;;) {
    {
      LockGuard guard(lock_);
      if (const Batch batch = take_from_spans_L(wanted, untouched); batch.count != 0) {
        fetches_++;
        return batch;
      }
    }
    MSpan* span = new_span(cpu);
    if (span == nullptr) return {};
    LockGuard guard(lock_);
    spans_++;
    empty_spans_++;
    move_L(span, SpanSet::kPartial);
  }
}

// After objects came back to a span; `empty` gets the span if it is to go.
void MCentral::returned_L(MSpan* span, SpanList* empty) {
  if (span->alloc_count != 0) {
    move_L(span, SpanSet::kPartial);
  } else if (empty_spans_ != 0) {
    // One empty span stays, so that a class that hovers around a span's worth does not go to the heap each time.
    move_L(span, SpanSet::kNone);
    spans_--;
    empty->push(span);
  } else {
    empty_spans_++;
    move_L(span, SpanSet::kPartial);
  }
}

// Gives a chain back to its spans, or as much of it as a lock should be held for; returns how many objects that were and
// leaves the rest in *chain. Neighbours on a page share one look at their
// span. The spans of objects that were freed in no order are cache misses, which are best taken side by side: runs of
// neighbours are gathered first (5 million objects of 1.5 KiB: 160 ns for a free, so 110).
unsigned MCentral::give_back_L(void** chain, SpanList* empty) {
  constexpr unsigned kMostRuns = 16;
  constexpr unsigned kMostPerLock = 4096;
  void* object = *chain;
  const SizeClass& size = size_class(class_);
  const AddressSpace& space = heap_.space();
  unsigned total = 0;
  while (object != nullptr && total < kMostPerLock) {
    struct Run {
      void* first;
      MSpan* span;
      unsigned objects;
    };
    Run runs[kMostRuns];
    unsigned n = 0;
    do {
      Run& run = runs[n];
      run.first = object;
      run.objects = 0;
      space.prefetch_span_of(object);
      do {
        run.objects++;
        object = next_object(object);
      } while ((address(object) ^ address(run.first)) < kPageSize);
    } while (++n < kMostRuns && object != nullptr);
    for (unsigned i = 0; i < n; i++) {
      runs[i].span = space.span_of(runs[i].first);
      if (runs[i].span == nullptr) wrong_class(runs[i].first, nullptr, class_);
      __builtin_prefetch(runs[i].span);
      __builtin_prefetch(runs[i].span->alloc_bits);
    }
    for (unsigned i = 0; i < n; i++) {
      MSpan* span = runs[i].span;
      if (span->span_class != class_) wrong_class(runs[i].first, span, class_);
      void* member = runs[i].first;
      for (unsigned k = 0; k < runs[i].objects; k++) {
        void* next = next_object(member);
        if (!span->give_back(object_index(size, address(member) - span->start_addr))) double_free(member, *span);
        member = next;
      }
      objects_out_ -= runs[i].objects;
      total += runs[i].objects;
      returned_L(span, empty);
    }
  }
  *chain = object;
  return total;
}

void MCentral::free_spans(SpanList* spans) {
  while (MSpan* span = spans->first) {
    spans->remove(span);
    if (has_starts(class_)) {
      LockGuard guard(lock_);
      std::memcpy(span->starts, &spare_starts_, sizeof(void*));
      spare_starts_ = span->starts;
      span->starts = nullptr;
    }
    heap_.free_span(span);
  }
}

unsigned MCentral::flush(void* head) {
  unsigned total = 0;
  SpanList empty;
  for (bool first = true; head != nullptr; first = false) {
    LockGuard guard(lock_);
    flushes_ += first;
    total += give_back_L(&head, &empty);
  }
  free_spans(&empty);
  return total;
}

void MCentral::trim() {
  SpanList empty;
  {
    LockGuard guard(lock_);
    for (MSpan* span = partial_.first; span != nullptr && empty_spans_ != 0;) {
      MSpan* next = span->next;
      if (span->alloc_count == 0) {
        move_L(span, SpanSet::kNone);
        spans_--;
        empty_spans_--;
        empty.push(span);
      }
      span = next;
    }
  }
  free_spans(&empty);
}

CentralStats MCentral::stats() {
  LockGuard guard(lock_);
  CentralStats s;
  s.spans = spans_;
  s.objects_out = objects_out_;
  s.fetches = fetches_;
  s.flushes = flushes_;
  return s;
}

void MCentral::repair_after_fork(bool lost) {
  if (lock_.held_by_me() || (!lock_.held() && !lost)) return;
  lock_.reset_after_fork();
  partial_ = full_ = SpanList();
  spare_starts_ = nullptr;
  spans_ = objects_out_ = empty_spans_ = 0;
  heap_.for_each_span([&](MSpan* span) {
    if (lost && heap_.is_lost(span->start_addr)) {
      span->set = SpanSet::kNone;
      return;
    }
    // In no set: on its way in, perhaps half-made, or out. Nothing in it is in use, and nobody will go on with it.
    if (span->span_class != class_ || span->elem_size == 0 || span->set == SpanSet::kNone) return;
    unsigned free_objects = 0;
    for (unsigned i = 0; i < span->nelems; i++) free_objects += span->is_free(i);
    span->alloc_count = static_cast<std::uint16_t>(span->nelems - free_objects);
    span->set = SpanSet::kNone;
    spans_++;
    objects_out_ += span->alloc_count;
    empty_spans_ += span->alloc_count == 0;
    move_L(span, span->full() ? SpanSet::kFull : SpanSet::kPartial);
  });
}

bool MCentral::check() {
  LockGuard guard(lock_);
  std::size_t spans = 0, out = 0, empty = 0;
  for (const SpanList* list : {&partial_, &full_}) {
    for (MSpan* span = list->first; span != nullptr; span = span->next) {
      if (!span->check() || span->span_class != class_) return false;
      if ((list == &full_) != span->full()) return false;
      if (span->set != (list == &full_ ? SpanSet::kFull : SpanSet::kPartial)) return false;
      spans++;
      out += span->alloc_count;
      empty += span->alloc_count == 0;
    }
  }
  return spans == spans_ && out == objects_out_ && empty == empty_spans_;
}

}  // namespace nh
