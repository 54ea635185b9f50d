#include "api/bad_pointer.h"

#include <atomic>

#include "base/check.h"
#include "base/format.h"
#include "process/process.h"

namespace nh {
namespace {

void name_span(TextWriter& text, const MSpan& span) {
  text.text("span ").hex(span.start_addr).text(", ");
  if (is_large(span.span_class)) {
    text.text("large object of ").dec(span.elem_size).text(" bytes");
  } else {
    text.text("objects of ").dec(span.elem_size).text(" bytes, class ").dec(without_place(span.span_class));
  }
}

}  // namespace

void double_free(const void* p, const char* call, const Found& found) {
  Text<300> text;
  text.text(call).text(": double free of ").ptr(p);
  name_span(text.text(": "), *found.span);
  fatal(text.c_str());
}

void bad_pointer(const void* p, const char* call, const Found& found) {
  Text<300> text;
  text.text(call).text(": ");
  switch (found.kind) {
    case PointerKind::kFree:
    case PointerKind::kObject: double_free(p, call, found);
    case PointerKind::kNull:
    case PointerKind::kForeign: text.ptr(p).text(" is not from this heap"); break;
    case PointerKind::kFreePages: text.text("double free of ").ptr(p).text(": its pages are free"); break;
    case PointerKind::kInterior:
      name_span(text.text("interior pointer ").ptr(p).text(": not the start of an object in "), *found.span);
      break;
    case PointerKind::kTail:
      name_span(text.text("interior pointer ").ptr(p).text(": behind the last object of "), *found.span);
      break;
  }
  fatal(text.c_str());
}

void size_mismatch(const void* p, std::size_t claimed, std::size_t actual) {
  const bool strict = g_process.options.check == CheckOption::kStrict;
  static std::atomic<bool> said{false};
  if (!strict && (g_process.options.quiet || said.exchange(true, std::memory_order_relaxed))) return;
  Text<400> text;
  text.text("size mismatch: ").ptr(p).text(" is freed as ").dec(claimed).text(" bytes, but its object has ").dec(actual);
  if (strict) fatal(text.c_str());
  text.text("; it is freed all the same, and so are others, about which nothing is said (NUMAHEAP_CHECK=strict aborts)");
  warn_line(text.c_str());
}

}  // namespace nh
