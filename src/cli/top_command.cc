// `numaheap top`: the heaps of running processes, drawn again every second.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <thread>

#include "base/scan.h"
#include "cli/cli.h"
#include "cli/live.h"
#include "cli/terminal.h"
#include "cli/top_view.h"

namespace nh::cli {

const char kTopHelp[] =
    R"(usage: numaheap top [PID|--all] [--interval SECONDS] [--count N] [--sort KEY]

Shows what the heaps of a process, or of all processes that run on numaheap (the
default), hold, on which pages, and at which rates. The processes need not have
been started for it, are not stopped and do not notice.

  --interval SECONDS   between two looks: 0.1 to 3600, 1 if not given
  --count N            ends after N looks
  --sort KEY           committed, live, cached, idle, objects, remote, name

Keys: q ends it; c l h i o r n sort by committed, live, cached, idle, objects,
remote frees, name. A bar is as long as the heap is large: live objects, free
ones in caches, free places among live ones, idle memory. The letters tell its
pages: G of 1 GiB, M of 2 MiB from the pool, T transparent huge pages, b base
pages. objects/s are those that CPUs fetched in batches, and large ones; what
goes round in a CPU's cache is not counted. Where standard output is no
terminal, plain blocks are printed.
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

struct Watched {
  ProcessFacts facts;
  std::optional<LiveProcess> process;  // on numaheap
  bool retry = false;                  // it may be soon, although it seems to be the same program
  bool refused = false;
  Snapshot before, now;

  double seconds() const { return before.heaps.size() == now.heaps.size() ? now.time - before.time : 0; }
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
  if (row)
    look->processes.push_back(
        {std::to_string(pid) + " " + w.facts.command, static_cast<std::uint64_t>(pid), total, sum});
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
      look->title = std::to_string(look->processes.size()) + (look->processes.size() == 1 ? " process" : " processes") +
                    " on numaheap";
    }
    return true;
  }

 private:
  static std::string title_of(const Watched& w) {
    return w.facts.command + ", process " + std::to_string(w.process->memory.pid()) + ", caches " +
           w.process->cache_mode + ", " + std::to_string(w.now.facts.threads) +
           (w.now.facts.threads == 1 ? " thread" : " threads");
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
      const auto key =
          std::find_if(std::begin(kSortKeys), std::end(kSortKeys), [&](SortKey k) { return text == k.name; });
      good = value == nullptr || key != std::end(kSortKeys);
      if (key != std::end(kSortKeys)) asked->sort = key->key;
    } else if (word.starts_with("-")) {
      return refuse_option(kUsage, "top", word, {"--all", "--interval", "--count", "--sort"});
    } else if (asked->pid != 0 || (asked->pid = parse_pid(word)) == 0) {
      return complain(kUsage, "top: '" + word + "' is not one process id; see `numaheap top --help`");
    } else {
      at++;
    }
    if (value == nullptr) return complain(kUsage, "top: " + word + " needs a value");
    if (!good)
      return complain(kUsage, "top: " + word.substr(0, word.find('=')) + " does not take '" + value +
                                  "'; see `numaheap top --help`");
  }
  return all && asked->pid != 0 ? complain(kUsage, "top: one of PID and --all at most") : 0;
}

// Draws until the interval is over, again for each key that sorts. False: a key or a signal asks for the end.
template <typename View>
bool show(const Screen& screen, Asked* asked, View&& view) {
  for (;;) {
    if (!screen.draw(view())) return false;
    const int key = screen.wait(asked->interval);
    const auto sort = std::find_if(std::begin(kSortKeys), std::end(kSortKeys), [&](SortKey k) { return k.key == key; });
    if (sort == std::end(kSortKeys)) return key != Screen::kEnd && key != 'q' && key != 'Q';
    asked->sort = sort->key;
  }
}

}  // namespace

int top_command(Words words) {
  Asked asked;
  if (const int status = parse(words, &asked); status != 0) return status;
  Watcher watcher(asked);
  std::string why;
  if (!watcher.start(&why)) return complain(1, "top: " + why);
  std::optional<Screen> screen;
  if (Screen::possible()) screen.emplace();
  const ColorMode colors = terminal_colors();
  Look look;
  const auto view = [&] {
    const std::size_t width = screen ? screen->size().columns : 100;
    return draw_look(&look, {asked.pid == 0, asked.sort, screen.has_value(), width, colors});
  };
  bool quit = false;
  for (std::uint64_t n = 0; !quit && watcher.look(&look, &why); n++) {
    if (screen) {
      quit = !show(*screen, &asked, view) || n + 1 == asked.count;
      continue;
    }
    if (const int status = print((n == 0 ? "" : "\n") + view()); status != 0) return status;
    quit = n + 1 == asked.count;
    if (!quit) std::this_thread::sleep_for(std::chrono::duration<double>(asked.interval));
  }
  screen.reset();
  Screen::finish();
  // What was watched has ended, as programs do: that is no failure.
  if (!why.empty()) complain(0, "top: " + why);
  return 0;
}

}  // namespace nh::cli
