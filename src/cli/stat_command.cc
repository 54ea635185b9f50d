// `numaheap stat`: the figures of a running process, once.
#include <memory>

#include "cli/cli.h"
#include "cli/live.h"
#include "cli/terminal.h"

namespace nh::cli {

const char kStatHelp[] =
    R"(usage: numaheap stat PID [--json|--prometheus]

Shows what the heaps of a running process hold, on which pages, and how often
its CPUs had to ask for more. The process need not have been started for it: it
is not stopped and does not notice. The figures are those of NUMAHEAP_STATS.

  --json         for programs; the keys of NUMAHEAP_STATS=FILE.json
  --prometheus   in Prometheus' text format

It takes the right to look into another process's memory, as a debugger does:
one's own processes, or root.
Exit status: 1 where the process cannot be looked into.
)";

namespace {

using Out = Text<1024 * 1024>;

void write_text(TextWriter& out, LiveProcess& process, const Snapshot& s) {
  out.text(process.command).text(", process ").sdec(process.memory.pid()).text(": numaheap ");
  out.text(process.version).text(", caches ").text(process.cache_mode).text(", ");
  out.dec(s.facts.threads).text(s.facts.threads == 1 ? " thread, " : " threads, ");
  out.dec(s.memory_syscalls).text(" memory system calls\n\n");
  std::vector<LiveHeap> columns;
  for (const LiveHeap& h : s.heaps) {
    if (h.used()) columns.push_back(h);
  }
  // As many heaps side by side as a line holds; the sum stands at the end.
  if (columns.size() > 1) columns.push_back(s.total());
  constexpr std::size_t kAcross = 6;
  for (std::size_t first = 0; first < columns.size(); first += kAcross) {
    const std::size_t end = std::min(columns.size(), first + kAcross);
    out.text(first == 0 ? "" : "\n").pad_to(16);
    for (std::size_t i = first; i < end; i++) {
      const bool sum = columns.size() > 1 && i + 1 == columns.size();
      out.right(sum ? "all" : heap_name(columns[i].kind, columns[i].node), 14);
    }
    out.ch('\n');
    const auto row = [&](const char* label, std::uint64_t numaheap_heap_stats::*member, bool bytes) {
      out.text(label).pad_to(16);
      for (std::size_t i = first; i < end; i++) {
        Text<40> value;
        bytes ? value.bytes(columns[i].*member) : value.dec(columns[i].*member);
        out.right(value.view(), 14);
      }
      out.ch('\n');
    };
    constexpr bool kBytes = true, kCount = false;
#define NH_HEAP_STAT(member, label, unit, grows) row(label, &numaheap_heap_stats::member, unit);
#include "base/heap_stats.def"
#undef NH_HEAP_STAT
  }
  for (const LiveFallback& f : s.fallbacks) {
    const std::string times = std::to_string(f.count) + (f.count == 1 ? " time" : " times");
    out.text(wrapped("had to do without, " + times + ": " + f.text, 100, 2)).ch('\n');
  }
}

void write_json(TextWriter& out, LiveProcess& process, const Snapshot& s) {
  out.text("{\n  \"version\": ").json_string(process.version);
  out.text(",\n  \"pid\": ").sdec(process.memory.pid());
  out.text(",\n  \"command\": ").json_string(process.command);
  out.text(",\n  \"threads\": ").dec(s.facts.threads);
  out.text(",\n  \"cache_mode\": ").json_string(process.cache_mode);
  out.text(",\n  \"memory_syscalls\": ").dec(s.memory_syscalls);
  out.text(",\n  \"page_faults\": ").dec(s.facts.faults);
  out.text(",\n  \"fallbacks\": {");
  const char* separator = "";
  for (const LiveFallback& f : s.fallbacks) {
    out.text(separator).json_string(f.name).text(": ").dec(f.count);
    separator = ", ";
  }
  out.text("},\n  \"nodes\": [");
  separator = "\n";
  for (const LiveHeap& h : s.heaps) {
    out.text(separator).text("    {\"id\": ").sdec(h.node).text(", \"kind\": ").json_string(heap_kind(h.kind));
#define NH_HEAP_STAT(member, label, unit, grows) out.text(", \"" #member "\": ").dec(h.member);
#include "base/heap_stats.def"
#undef NH_HEAP_STAT
    out.ch('}');
    separator = ",\n";
  }
  out.text("\n  ]\n}\n");
}

// A label's value: backslash, quote and newline are escaped. Commands have no other control characters.
void write_label(TextWriter& out, std::string_view text) {
  out.ch('"');
  for (const char c : text) {
    if (c == '"' || c == '\\') out.ch('\\');
    out.ch(c);
  }
  out.ch('"');
}

void write_prometheus(TextWriter& out, LiveProcess& process, const Snapshot& s) {
  const auto labels = [&] {
    out.text("{pid=\"").sdec(process.memory.pid()).text("\",command=");
    write_label(out, process.command);
  };
  const auto head = [&](std::string_view name, std::string_view help, const char* type) {
    out.text("# HELP ").text(name).ch(' ').text(help).text("\n# TYPE ").text(name).ch(' ').text(type).ch('\n');
  };
  const auto heaps = [&](std::string_view name, std::string_view label, std::uint64_t numaheap_heap_stats::*member,
                         bool bytes, bool grows) {
    Text<80> full, help;
    full.text("numaheap_").text(name).text(grows ? "_total" : "");
    head(full.view(), help.text(label).text(bytes ? ", in bytes" : ", a number").view(), grows ? "counter" : "gauge");
    for (const LiveHeap& h : s.heaps) {
      out.text(full.view());
      labels();
      out.text(",heap=\"").text(heap_kind(h.kind)).ch('"');
      if (h.node >= 0) out.text(",node=\"").sdec(h.node).ch('"');
      out.text("} ").dec(h.*member).ch('\n');
    }
  };
  constexpr bool kBytes = true, kCount = false, kEver = true, kNow = false;
#define NH_HEAP_STAT(member, label, unit, grows) heaps(#member, label, &numaheap_heap_stats::member, unit, grows);
#include "base/heap_stats.def"
#undef NH_HEAP_STAT
  head("numaheap_memory_syscalls_total", "system calls that change memory", "counter");
  out.text("numaheap_memory_syscalls_total");
  labels();
  out.text("} ").dec(s.memory_syscalls).ch('\n');
  head("numaheap_fallbacks_total", "how often something less than asked for had to do", "counter");
  for (const LiveFallback& f : s.fallbacks) {
    out.text("numaheap_fallbacks_total");
    labels();
    out.text(",kind=");
    write_label(out, f.name);
    out.text("} ").dec(f.count).ch('\n');
  }
}

}  // namespace

int stat_command(Words words) {
  int pid = 0;
  void (*write)(TextWriter&, LiveProcess&, const Snapshot&) = nullptr;
  for (const std::string_view word : words) {
    const auto form = word == "--json" ? write_json : word == "--prometheus" ? write_prometheus : nullptr;
    if (form != nullptr) {
      if (write != nullptr && write != form) return complain(kUsage, "stat: one of --json and --prometheus at most");
      write = form;
    } else if (word.starts_with("-")) {
      return refuse_option(kUsage, "stat", word, {"--json", "--prometheus"});
    } else if (pid != 0 || (pid = parse_pid(word)) == 0) {
      return complain(kUsage, "stat: '" + std::string(word) + "' is not one process id; see `numaheap stat --help`");
    }
  }
  if (pid == 0) return complain(kUsage, "stat: of which process? `numaheap stat PID`");
  LiveProcess process;
  Snapshot snapshot;
  std::string why;
  if (!attach(pid, &process, &why) || !take_snapshot(process, &snapshot, &why)) return complain(1, "stat: " + why);
  const auto out = std::make_unique<Out>();
  (write != nullptr ? write : write_text)(*out, process, snapshot);
  return print(out->view());
}

}  // namespace nh::cli
