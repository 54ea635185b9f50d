#include "api/bad_pointer.h"

#include "process/process.h"
#include "base/check.h"
#include "base/format.h"
#include "cache/tiny.h"

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

void double_free(const void* p, const char* call) {
  Text<300> text;
  text.text(call).text(": double free of ").ptr(p);
  if (const MSpan* span = g_process.space.span_of(p); span != nullptr) name_span(text.text(": "), *span);
  fatal(text.c_str());
}

void bad_pointer(const void* p, const char* call) {
  Text<300> text;
  text.text(call).text(": ");
  if (!started() || !g_process.space.contains(p)) {
    text.ptr(p).text(" is not from this heap");
    fatal(text.c_str());
  }
  AddressSpace& space = g_process.space;
  const MSpan* span = space.span_around(p);
  if (span == nullptr) {
    text.text("double free of ").ptr(p).text(": its pages are free");
    fatal(text.c_str());
  }
  if (is_large(span->span_class)) {
    // The start of one that is in use is no bad pointer.
    if (address(p) == span->object_addr()) double_free(p, call);
  } else {
    const std::size_t offset = address(p) - span->start_addr;
    const bool aligned = offset % span->elem_size == 0 && offset / span->elem_size < span->nelems;
    const bool in_block = (span->span_class == kTinyClass && offset % 16 != 15) || aligned;
    if (in_block) double_free(p, call);
  }
  text.text("interior pointer ").ptr(p).text(": not the start of an object in ");
  name_span(text, *span);
  fatal(text.c_str());
}

void size_mismatch(const void* p, std::size_t claimed, std::size_t actual) {
  Text<300> text;
  text.text("size mismatch: ").ptr(p).text(" is freed as ").dec(claimed).text(" bytes, but its object has ").dec(actual);
  fatal(text.c_str());
}

}  // namespace nh
