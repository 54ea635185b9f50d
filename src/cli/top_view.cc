#include "cli/top_view.h"

#include <algorithm>
#include <cstdlib>
#include <ctime>

#include "base/format.h"
#include "cli/palette.h"

namespace nh::cli {
namespace {

void sort_rows(std::vector<Row>* rows, char key) {
  const auto value = [key](const Row& r) -> double {
    switch (key) {
      case 'l':
        return static_cast<double>(r.heap.live_bytes);
      case 'h':
        return static_cast<double>(r.heap.cached_bytes);
      case 'i':
        return static_cast<double>(r.heap.free_bytes);
      case 'o':
        return r.rates.objects;
      case 'r':
        return r.rates.remote;
      case 'n':
        return -static_cast<double>(r.order);
      default:
        return static_cast<double>(r.heap.committed_bytes);
    }
  };
  std::stable_sort(rows->begin(), rows->end(), [&](const Row& a, const Row& b) { return value(a) > value(b); });
}

std::string short_bytes(double bytes) {
  Text<40> text;
  if (bytes < 0) text.ch('-');
  text.bytes(static_cast<std::uint64_t>(std::abs(bytes)));
  return std::string(text.view());
}

std::string short_number(double n) {
  Text<40> text;
  static constexpr const char* kUnits[] = {"", "k", "M", "G"};
  unsigned unit = 0;
  for (; n >= 999.5 && unit < 3; unit++) n /= 1000;
  text.fixed(n, unit == 0 || n >= 99.95 ? 0 : 1).text(kUnits[unit]);
  return std::string(text.view());
}

struct Layout {
  std::size_t name = 20, bar;
  bool rates;
  explicit Layout(std::size_t width) {
    constexpr std::size_t kFigures = 3 * 11, kPages = 10, kRates = 2 * 9;
    rates = width >= name + 1 + 10 + kFigures + kPages + kRates;
    const std::size_t taken = name + 1 + kFigures + kPages + (rates ? kRates : 0);
    bar = width > taken + 6 ? std::min<std::size_t>(width - taken, 60) : 6;
  }
};

void draw_bar(ColorText& out, const LiveHeap& h, std::uint64_t longest, std::size_t cells, bool utf8) {
  const std::uint64_t known = h.live_bytes + h.cached_bytes + h.free_bytes;
  const std::uint64_t in_spans = h.committed_bytes > known ? h.committed_bytes - known : 0;
  const std::vector<unsigned> shares =
      share_out({h.live_bytes, h.cached_bytes, in_spans, h.free_bytes}, longest, static_cast<unsigned>(cells));
  for (std::size_t use = 0; use < shares.size(); use++) {
    if (shares[use] == 0) continue;
    out.fg(kUses[use].color);
    for (unsigned i = 0; i < shares[use]; i++)
      out.text(utf8 ? kUses[use].glyph : std::string_view(&kUses[use].letter, 1));
    out.plain();
  }
}

void draw_pages(ColorText& out, const LiveHeap& h, unsigned cells) {
  const std::uint64_t pages[] = {h.huge_1g_bytes, h.hugetlb_bytes - std::min(h.huge_1g_bytes, h.hugetlb_bytes),
                                 h.thp_bytes, h.base_bytes};
  const std::vector<unsigned> shares = share_out({std::begin(pages), std::end(pages)}, h.committed_bytes, cells);
  for (std::size_t i = 0; i < shares.size(); i++) {
    if (shares[i] == 0) continue;
    const Backing& backing = kBackings[kBackings.size() - 1 - i];
    out.fg(backing.color).text(std::string(shares[i], backing.letter)).plain();
  }
}

void draw_rows(ColorText& out, const std::vector<Row>& rows, const char* what, const Layout& layout, bool utf8) {
  std::uint64_t longest = 0;
  for (const Row& r : rows) longest = std::max(longest, r.heap.committed_bytes);
  out.bold().text(what).pad_to(layout.name + 1 + layout.bar);
  for (const char* column : {"live", "cached", "idle"}) out.right(column, 11);
  out.text("  pages").pad_to(layout.name + 1 + layout.bar + 33 + 10);
  if (layout.rates) out.right("objects/s", 9).right("remote/s", 9);
  out.line();
  for (const Row& r : rows) {
    std::string name = r.name;
    while (columns_of(name) > layout.name) name.pop_back();
    out.text(name).pad_to(layout.name + 1);
    draw_bar(out, r.heap, longest, layout.bar, utf8);
    out.pad_to(layout.name + 1 + layout.bar);
    for (const std::uint64_t bytes : {r.heap.live_bytes, r.heap.cached_bytes, r.heap.free_bytes}) {
      out.right(short_bytes(static_cast<double>(bytes)), 11);
    }
    out.text("  ");
    draw_pages(out, r.heap, 8);
    out.pad_to(layout.name + 1 + layout.bar + 33 + 10);
    if (layout.rates) out.right(short_number(r.rates.objects), 9).right(short_number(r.rates.remote), 9);
    out.line();
  }
}

}  // namespace

std::string draw_look(Look* look, const LookView& view) {
  const bool utf8 = has_utf8();
  const Layout layout(view.width);
  ColorText out(view.colors);
  char clock[16];
  const std::time_t now = std::time(nullptr);
  std::tm local;
  std::strftime(clock, sizeof clock, "%H:%M:%S", ::localtime_r(&now, &local));
  out.bold().text(look->title).plain();
  const std::size_t end = std::min<std::size_t>(view.width, 100);
  out.pad_to(end > 8 ? end - 8 : 0).text(clock).line();
  const LiveHeap& t = look->total;
  out.text("committed ").text(short_bytes(static_cast<double>(t.committed_bytes)));
  out.text(", live ").text(short_bytes(static_cast<double>(t.live_bytes)));
  out.text(", cached ").text(short_bytes(static_cast<double>(t.cached_bytes)));
  out.text(", idle ").text(short_bytes(static_cast<double>(t.free_bytes)));
  out.text(", own structures ").text(short_bytes(static_cast<double>(t.metadata_bytes))).line();
  const Rates& r = look->rates;
  out.text("per second: ")
      .text(short_number(r.objects))
      .text(" objects in ")
      .text(short_number(r.batches))
      .text(" batches, ");
  out.text(short_number(r.remote)).text(" remote frees, ");
  out.text(short_bytes(r.growth)).text(" growth, ").text(short_number(r.faults)).text(" faults, ");
  out.text(short_number(r.system_calls)).text(" syscalls").line().line();

  sort_rows(&look->heaps, view.sort);
  sort_rows(&look->processes, view.sort);
  draw_rows(out, look->heaps, view.all ? "heaps of all" : "heap", layout, utf8);
  out.text("\n");
  for (const Use& use : kUses) {
    out.fg(use.color)
        .text(utf8 ? use.glyph : std::string_view(&use.letter, 1))
        .plain()
        .text(" ")
        .text(use.name)
        .text("   ");
  }
  out.text("pages:");
  for (auto b = kBackings.rbegin(); b != kBackings.rend(); ++b) {
    out.text(" ").fg(b->color).text(std::string(1, b->letter)).plain().text(" ").text(b->short_name);
  }
  out.line();
  if (view.keys) out.text("keys: q quit, sort by c committed l live h cached i idle o objects r remote n name").line();
  if (view.all) {
    out.text("\n");
    draw_rows(out, look->processes, "process", layout, utf8);
  }
  if (look->refused != 0) {
    out.text("may not look into ").text(std::to_string(look->refused));
    out.text(look->refused == 1 ? " process" : " processes").text("; `numaheap stat PID` says why").line();
  }
  return out.view();
}

}  // namespace nh::cli
