#include "base/check.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/format.h"
#include "base/stderr.h"

namespace nh {
namespace {

LineSink g_sink = nullptr;

}  // namespace

void set_line_sink(LineSink sink) { g_sink = sink; }

void emit_line(const char* line, std::size_t length) {
  const int saved = errno;
  (g_sink != nullptr ? g_sink : write_to_stderr)(line, length);
  errno = saved;
}

void warn_line(const char* text) {
  Text<1100> line;
  line.text("numaheap: ").text({text, strnlen(text, 1024)}).ch('\n');
  emit_line(line.view().data(), line.size());
}

void fatal(const char* text) {
  Text<1100> line;
  line.text("numaheap: fatal: ").text({text, strnlen(text, 1024)}).ch('\n');
  emit_line(line.view().data(), line.size());
  std::abort();
}

void check_failed(const char* file, int line, const char* condition, const char* what) {
  const char* slash = std::strrchr(file, '/');
  Text<512> text;
  text.text(what).text(" (").text(condition).text(" is false at ").text(slash != nullptr ? slash + 1 : file);
  text.ch(':').dec(static_cast<std::uint64_t>(line)).ch(')');
  fatal(text.c_str());
}

}  // namespace nh
