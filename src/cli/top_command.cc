// `numaheap top`: the heaps of running processes, drawn again every second.
#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>

#include "base/format.h"
#include "base/scan.h"
#include "cli/cli.h"
#include "cli/live.h"
#include "cli/palette.h"
#include "cli/terminal.h"

namespace nh::cli {

const char kTopHelp[] =
    R"(usage: numaheap top [PID|--all] [--interval SECONDS] [--count N] [--sort KEY]

Shows what the heaps of a process, or of all processes that run on numaheap (the default), hold, on which pages, and at
which rates. The processes need not have been started for it, are not stopped and do not notice.

  --interval SECONDS   between two looks: 0.1 to 3600, 1 if not given
  --count N            ends after N looks
  --sort KEY           committed, live, cached, idle, objects, remote, name

Keys: q ends it; c l h i o r n sort by committed, live, cached, idle, objects, remote frees, name.
A bar is as long as the heap is large: live objects, free ones in caches, free places among live ones, idle memory. The
letters tell its pages: G of 1 GiB, M of 2 MiB from the pool, T transparent huge pages, b base pages. objects/s are those
that CPUs fetched in batches, and large ones; what goes round in a CPU's cache is not counted. Where standard output is
no terminal, plain blocks are printed.
)";

namespace {

struct SortKey {
  char key;
  const char* name;
};
constexpr SortKey kSortKeys[] = {{'c', "committed"}, {'l', "live"},   {'h', "cached"}, {'i', "idle"},
                                 {'o', "objects"},   {'r', "remote"}, {'n', "name"}};

struct Asked {
  int pid = 0;  // 0: all
  double interval = 1;
  std::uint64_t count = 0;  // 0: no end
  char sort = 'c';
};

// What one look at a process says beyond its figures.
struct Rates {
  double objects = 0, batches = 0, remote = 0, growth = 0, faults = 0, system_calls = 0;
  void add(const Rates& o) {
    objects += o.objects;
    batches += o.batches;
    remote += o.remote;
    growth += o.growth;
    faults += o.faults;
    system_calls += o.system_calls;
  }
};

double rate(std::uint64_t before, std::uint64_t now, double seconds) {
  return now > before && seconds > 0 ? static_cast<double>(now - before) / seconds : 0;
}

Rates rates_of(const LiveHeap& before, const LiveHeap& now, double seconds) {
  Rates r;
  r.objects = rate(before.served_objects, now.served_objects, seconds);
  r.batches = rate(before.refills + before.flushes, now.refills + now.flushes, seconds);
  r.remote = rate(before.remote_frees, now.remote_frees, seconds);
  if (seconds > 0) {
    r.growth = (static_cast<double>(now.committed_bytes) - static_cast<double>(before.committed_bytes)) / seconds;
  }
  return r;
}

struct Row {
  std::string name;
  std::uint64_t order;  // by name
  LiveHeap heap;
  Rates rates;
};

struct Watched {
  ProcessFacts facts;
  std::optional<LiveProcess> process;  // on numaheap
  bool retry = false;                  // it may be soon, although it seems to be the same program
  bool refused = false;
  Snapshot before, now;

  double seconds() const { return before.heaps.size() == now.heaps.size() ? now.time - before.time : 0; }
};

struct Look {
  std::vector<Row> heaps;      // of a process, or of all together
  std::vector<Row> processes;  // only if all were asked for
  LiveHeap total = {};
  Rates rates;
  std::size_t refused = 0;
  std::string title;
};

void add_process(Watched& w, bool row, std::map<std::pair<int, int>, Row>* heaps, Look* look) {
  const double seconds = w.seconds();
  Rates sum;
  for (std::size_t i = 0; i < w.now.heaps.size(); i++) {
    const LiveHeap& h = w.now.heaps[i];
    const Rates r = seconds > 0 ? rates_of(w.before.heaps[i], h, seconds) : Rates();
    sum.add(r);
    if (!h.used()) continue;
    const auto [at, is_new] = heaps->try_emplace({h.kind, h.node});
    Row& mine = at->second;
    if (is_new) mine = {heap_name(h.kind, h.node), 0, {}, {}};
    mine.heap.add(h);
    mine.rates.add(r);
  }
  sum.faults = rate(w.before.facts.faults, w.now.facts.faults, seconds);
  sum.system_calls = rate(w.before.memory_syscalls, w.now.memory_syscalls, seconds);
  const LiveHeap total = w.now.total();
  look->total.add(total);
  look->rates.add(sum);
  const int pid = w.process->memory.pid();
  if (row) look->processes.push_back({std::to_string(pid) + " " + w.facts.command, static_cast<std::uint64_t>(pid), total, sum});
}

void sort_rows(std::vector<Row>* rows, char key) {
  const auto value = [key](const Row& r) -> double {
    switch (key) {
      case 'l': return static_cast<double>(r.heap.live_bytes);
      case 'h': return static_cast<double>(r.heap.cached_bytes);
      case 'i': return static_cast<double>(r.heap.free_bytes);
      case 'o': return r.rates.objects;
      case 'r': return r.rates.remote;
      case 'n': return -static_cast<double>(r.order);
      default: return static_cast<double>(r.heap.committed_bytes);
    }
  };
  std::stable_sort(rows->begin(), rows->end(), [&](const Row& a, const Row& b) { return value(a) > value(b); });
}

class Watcher {
 public:
  explicit Watcher(const Asked& asked) : asked_(asked) {}

  // Before the first look at a single process. false with *why.
  bool start(std::string* why) {
    if (asked_.pid == 0) return true;
    Watched& w = watched_[asked_.pid];
    w.process.emplace();
    return attach(asked_.pid, &*w.process, why);
  }

  // false with *why: the process that was asked for is gone.
  bool look(Look* look, std::string* why) {
    *look = Look();
    if (asked_.pid == 0) find_processes();
    std::map<std::pair<int, int>, Row> heaps;
    for (auto& [pid, w] : watched_) {
      look->refused += w.refused;
      std::string lost;
      if (!w.process || !refresh(w, &lost)) {
        if (asked_.pid == 0) continue;
        *why = lost;
        return false;
      }
      add_process(w, asked_.pid == 0, &heaps, look);
      if (asked_.pid != 0) look->title = title_of(w);
    }
    for (auto& [key, row] : heaps) {
      row.order = look->heaps.size();
      look->heaps.push_back(row);
    }
    if (asked_.pid == 0) {
      look->title = std::to_string(look->processes.size()) + (look->processes.size() == 1 ? " process" : " processes") + " on numaheap";
    }
    return true;
  }

 private:
  static std::string title_of(const Watched& w) {
    return w.facts.command + ", process " + std::to_string(w.process->memory.pid()) + ", caches " + w.process->cache_mode +
           ", " + std::to_string(w.now.facts.threads) + (w.now.facts.threads == 1 ? " thread" : " threads");
  }

  bool refresh(Watched& w, std::string* why) {
    w.before = std::move(w.now);
    bool read = take_snapshot(*w.process, &w.now, why);
    if (!read) {
      // It may have called exec and run on numaheap again.
      LiveProcess again;
      std::string ignored;
      if (attach(w.process->memory.pid(), &again, &ignored)) {
        *w.process = again;
        w.before = Snapshot();
        read = take_snapshot(*w.process, &w.now, why);
      }
    }
    if (read) {
      w.facts = w.now.facts;
    } else {
      w.process.reset();
    }
    return read;
  }

  // Of each process it is asked once whether it runs on numaheap, and again when it runs another program.
  void find_processes() {
    std::map<int, Watched> now;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
      const int pid = parse_pid(entry.path().filename().native());
      ProcessFacts facts;
      if (pid == 0 || !read_process_facts(pid, &facts)) continue;
      const auto known = watched_.find(pid);
      const bool same = known != watched_.end() && known->second.facts.started == facts.started &&
                        known->second.facts.command == facts.command && !known->second.retry;
      if (same) {
        now.emplace(pid, std::move(known->second));
        continue;
      }
      Watched& w = now[pid];
      w.facts = facts;
      std::string why;
      bool none = false;
      w.process.emplace();
      if (!attach(pid, &*w.process, &why, &none)) {
        const int failed = w.process->memory.error();
        w.refused = !none && (failed == EPERM || why.find("may not look") != why.npos);
        w.retry = !none && !w.refused;
        w.process.reset();
      }
    }
    watched_ = std::move(now);
  }

  const Asked& asked_;
  std::map<int, Watched> watched_;
};

// ---- drawing ---------------------------------------------------------------------------------------------------------

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
    for (unsigned i = 0; i < shares[use]; i++) out.text(utf8 ? kUses[use].glyph : std::string_view(&kUses[use].letter, 1));
    out.plain();
  }
}

void draw_pages(ColorText& out, const LiveHeap& h, unsigned cells) {
  const std::uint64_t pages[] = {h.huge_1g_bytes, h.hugetlb_bytes - std::min(h.huge_1g_bytes, h.hugetlb_bytes), h.thp_bytes,
                                 h.base_bytes};
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

std::string draw(Look& look, const Asked& asked, ColorMode colors, std::size_t width, bool keys) {
  const bool utf8 = has_utf8();
  const Layout layout(width);
  ColorText out(colors);
  char clock[16];
  const std::time_t now = std::time(nullptr);
  std::tm local;
  std::strftime(clock, sizeof clock, "%H:%M:%S", ::localtime_r(&now, &local));
  out.bold().text(look.title).plain();
  const std::size_t end = std::min<std::size_t>(width, 100);
  out.pad_to(end > 8 ? end - 8 : 0).text(clock).line();
  const LiveHeap& t = look.total;
  out.text("committed ").text(short_bytes(static_cast<double>(t.committed_bytes)));
  out.text(", live ").text(short_bytes(static_cast<double>(t.live_bytes)));
  out.text(", cached ").text(short_bytes(static_cast<double>(t.cached_bytes)));
  out.text(", idle ").text(short_bytes(static_cast<double>(t.free_bytes)));
  out.text(", own structures ").text(short_bytes(static_cast<double>(t.metadata_bytes))).line();
  const Rates& r = look.rates;
  out.text("per second: ").text(short_number(r.objects)).text(" objects in ").text(short_number(r.batches)).text(" batches, ");
  out.text(short_number(r.remote)).text(" remote frees, ");
  out.text(short_bytes(r.growth)).text(" growth, ").text(short_number(r.faults)).text(" faults, ");
  out.text(short_number(r.system_calls)).text(" syscalls").line().line();

  sort_rows(&look.heaps, asked.sort);
  sort_rows(&look.processes, asked.sort);
  draw_rows(out, look.heaps, asked.pid != 0 ? "heap" : "heaps of all", layout, utf8);
  out.text("\n");
  for (const Use& use : kUses) {
    out.fg(use.color).text(utf8 ? use.glyph : std::string_view(&use.letter, 1)).plain().text(" ").text(use.name).text("   ");
  }
  out.text("pages:");
  for (auto b = kBackings.rbegin(); b != kBackings.rend(); ++b) {
    out.text(" ").fg(b->color).text(std::string(1, b->letter)).plain().text(" ").text(b->short_name);
  }
  out.line();
  if (keys) out.text("keys: q quit, sort by c committed l live h cached i idle o objects r remote n name").line();
  if (asked.pid == 0) {
    out.text("\n");
    draw_rows(out, look.processes, "process", layout, utf8);
  }
  if (look.refused != 0) {
    out.text("may not look into ").text(std::to_string(look.refused));
    out.text(look.refused == 1 ? " process" : " processes").text("; `numaheap stat PID` says why").line();
  }
  return out.view();
}

bool parse_seconds(std::string_view word, double* seconds) {
  char* end = nullptr;
  const std::string text(word);
  *seconds = std::strtod(text.c_str(), &end);
  return end != text.c_str() && *end == '\0' && *seconds >= 0.1 && *seconds <= 3600;
}

int parse(Words words, Asked* asked) {
  bool all = false;
  for (std::size_t at = 0; at < words.size();) {
    const std::string word = words[at];
    const char* value = "";
    bool good = true;
    if (word == "--all") {
      all = true;
      at++;
    } else if (take_value(words, &at, "--interval", &value)) {
      good = value == nullptr || parse_seconds(value, &asked->interval);
    } else if (take_value(words, &at, "--count", &value)) {
      std::string_view text = value == nullptr ? "" : value;
      good = value == nullptr || (take_decimal(&text, &asked->count) && text.empty() && asked->count != 0);
    } else if (take_value(words, &at, "--sort", &value)) {
      const std::string_view text = value == nullptr ? "" : value;
      const auto key = std::find_if(std::begin(kSortKeys), std::end(kSortKeys), [&](SortKey k) { return text == k.name; });
      good = value == nullptr || key != std::end(kSortKeys);
      if (key != std::end(kSortKeys)) asked->sort = key->key;
    } else if (word.starts_with("-")) {
      return complain(kUsage, "top: no such option '" + word + "'; see `numaheap top --help`");
    } else if (asked->pid != 0 || (asked->pid = parse_pid(word)) == 0) {
      return complain(kUsage, "top: '" + word + "' is not one process id; see `numaheap top --help`");
    } else {
      at++;
    }
    if (value == nullptr) return complain(kUsage, "top: " + word + " needs a value");
    if (!good) return complain(kUsage, "top: " + word.substr(0, word.find('=')) + " does not take '" + value + "'; see `numaheap top --help`");
  }
  return all && asked->pid != 0 ? complain(kUsage, "top: one of PID and --all at most") : 0;
}

}  // namespace

int top_command(Words words) {
  Asked asked;
  if (const int status = parse(words, &asked); status != 0) return status;
  Watcher watcher(asked);
  std::string why;
  if (!watcher.start(&why)) return complain(1, "top: " + why);
  Look look;
  const ColorMode colors = terminal_colors();
  std::optional<Screen> screen;
  if (Screen::possible()) screen.emplace();
  for (std::uint64_t n = 0; asked.count == 0 || n < asked.count; n++) {
    const bool there = watcher.look(&look, &why);
    if (!there) break;
    if (!screen) {
      if (const int status = print((n == 0 ? "" : "\n") + draw(look, asked, colors, 100, false)); status != 0) return status;
      if (n + 1 == asked.count) break;
      const timespec pause = {static_cast<time_t>(asked.interval),
                              static_cast<long>((asked.interval - static_cast<double>(static_cast<time_t>(asked.interval))) * 1e9)};
      ::nanosleep(&pause, nullptr);
      continue;
    }
    int key = 0;
    bool again = true;
    while (again) {
      if (!screen->draw(draw(look, asked, colors, screen->size().columns, true))) key = Screen::kEnd;
      if (key != Screen::kEnd) key = screen->wait(asked.interval);
      again = false;
      for (const SortKey& k : kSortKeys) {
        if (key != k.key) continue;
        asked.sort = k.key;
        again = true;
      }
    }
    if (key == Screen::kEnd || key == 'q' || key == 'Q') {
      screen.reset();
      Screen::finish();
      return 0;
    }
  }
  screen.reset();
  // What was watched has ended, as programs do: that is no failure.
  if (!why.empty()) complain(0, "top: " + why);
  return 0;
}

}  // namespace nh::cli
