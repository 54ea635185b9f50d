// The option table as text for people: terminal, Markdown, man page.
#include "base/options.h"
#include "base/scan.h"

namespace nh {
namespace {

constexpr std::size_t kTerminalWidth = 100;

std::string_view text_of(const Options& options, const OptionInfo& info) {
  const char* const at = reinterpret_cast<const char*>(&options) + info.offset;
  switch (info.form.kind) {
    case OptionKind::kText: return at;
    case OptionKind::kBorrowed: {
      const char* const text = reinterpret_cast<const BorrowedText*>(at)->text;
      return text != nullptr ? std::string_view(text) : std::string_view();
    }
    default: return {};
  }
}

std::string_view nth_word(std::string_view words, std::size_t n) {
  for (; n > 0; n--) words = after(words, '|');
  return before(words, '|');
}

void write_default(TextWriter& out, OptionId id) {
  const Options defaults;
  Text<128> value;
  write_option_value(value, defaults, id);
  out.text(value.size() == 0 ? "none" : value.view());
}

// Words of s from the current column on, lines broken before `width` and indented.
void write_wrapped(TextWriter& out, std::string_view s, std::size_t indent, std::size_t width) {
  std::size_t column = 0;
  while (!s.empty()) {
    const std::string_view word = before(s, ' ');
    s = after(s, ' ');
    if (column != 0 && column + 1 + word.size() > width) {
      out.ch('\n');
      column = 0;
    }
    if (column == 0) {
      out.pad_to(indent);
      column = indent;
    } else {
      out.ch(' ');
      column++;
    }
    out.text(word);
    column += word.size();
  }
  out.ch('\n');
}

// Inside a table cell a bar would end the cell.
void write_cell(TextWriter& out, std::string_view s) {
  for (const char c : s) {
    if (c == '|') out.ch('\\');
    out.ch(c);
  }
}

// Inside roff a backslash, and a dot or quote at the start of a line, have meanings of their own.
void write_roff(TextWriter& out, std::string_view s) {
  for (const char c : s) {
    if (c == '\\') {
      out.text("\\e");
    } else if (c == '-') {
      out.text("\\-");
    } else {
      out.ch(c);
    }
  }
}

}  // namespace

void write_option_value(TextWriter& out, const Options& options, OptionId id) {
  const OptionInfo& info = option_info(id);
  const char* const at = reinterpret_cast<const char*>(&options) + info.offset;
  switch (info.form.kind) {
    case OptionKind::kBool: out.ch(*reinterpret_cast<const bool*>(at) ? '1' : '0'); break;
    case OptionKind::kSize: write_size(out, *reinterpret_cast<const std::uint64_t*>(at)); break;
    case OptionKind::kDuration: write_duration(out, *reinterpret_cast<const std::uint64_t*>(at)); break;
    case OptionKind::kWords: out.text(nth_word(info.form.words, *reinterpret_cast<const std::uint8_t*>(at))); break;
    case OptionKind::kText:
    case OptionKind::kBorrowed: out.text(text_of(options, info)); break;
    case OptionKind::kPolicy: write_policy(out, *reinterpret_cast<const PolicyOption*>(at)); break;
    case OptionKind::kLarge: write_large(out, *reinterpret_cast<const LargeOption*>(at)); break;
    case OptionKind::kNodes: write_nodes(out, *reinterpret_cast<const NodesOption*>(at)); break;
  }
}

void write_option_accepts(TextWriter& out, OptionId id) {
  const OptionForm& form = option_info(id).form;
  switch (form.kind) {
    case OptionKind::kBool: out.text("0|1"); break;
    case OptionKind::kSize:
      out.text("size ");
      write_size(out, form.min);
      out.text("..");
      write_size(out, form.max);
      break;
    case OptionKind::kDuration:
      out.text("time ");
      write_duration(out, form.min);
      out.text("..");
      write_duration(out, form.max);
      break;
    case OptionKind::kWords:
    case OptionKind::kBorrowed: out.text(form.words); break;
    case OptionKind::kText: out.text(form.words).text(" (").dec(form.max - 1).text(" characters at most)"); break;
    case OptionKind::kNodes: out.text("NODES|!NODES|all"); break;
    // The list may follow any of the four words before it, sizes any of the three.
    case OptionKind::kPolicy: out.text("local|interleave|weighted|bind|preferred[:NODES]|bandwidth|latency|capacity"); break;
    case OptionKind::kLarge: out.text("firsttouch|local|interleave|weighted|bandwidth|latency|capacity[:SIZES]"); break;
  }
}

void write_options_text(TextWriter& out, const Options& current) {
  const Options defaults;
  for (unsigned i = 0; i < kOptionCount; i++) {
    const auto id = static_cast<OptionId>(i);
    out.text(option_info(id).name).ch('=');
    write_option_accepts(out, id);
    out.text("  [");
    write_default(out, id);
    out.ch(']');
    Text<1400> now, usual;
    write_option_value(now, current, id);
    write_option_value(usual, defaults, id);
    if (now.view() != usual.view()) out.text("  now: ").text(now.view());
    out.ch('\n');
    write_wrapped(out, option_info(id).help, 4, kTerminalWidth);
  }
}

void write_options_markdown(TextWriter& out) {
  out.text("| variable | accepts | default | meaning |\n| --- | --- | --- | --- |\n");
  for (unsigned i = 0; i < kOptionCount; i++) {
    const auto id = static_cast<OptionId>(i);
    Text<256> accepts;
    write_option_accepts(accepts, id);
    out.text("| `").text(option_info(id).name).text("` | ");
    write_cell(out, accepts.view());
    out.text(" | ");
    write_default(out, id);
    out.text(" | ");
    write_cell(out, option_info(id).help);
    out.text(" |\n");
  }
}

void write_options_man(TextWriter& out) {
  for (unsigned i = 0; i < kOptionCount; i++) {
    const auto id = static_cast<OptionId>(i);
    Text<256> accepts;
    write_option_accepts(accepts, id);
    out.text(".TP\n.BR ").text(option_info(id).name).text(" \" = ");
    write_roff(out, accepts.view());
    out.text("\"\n");
    write_roff(out, option_info(id).help);
    out.text("\nDefault: ");
    Text<128> value;
    write_default(value, id);
    write_roff(out, value.view());
    out.text(".\n");
  }
}

}  // namespace nh
