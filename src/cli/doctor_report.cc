// How the findings are shown: as text of a given width, and as JSON.
#include <algorithm>

#include "cli/doctor.h"

namespace nh::cli {
namespace {

constexpr std::size_t kIndent = 9;

const char* escape(Severity severity) {
  static constexpr const char* kEscapes[] = {"\033[1;36m", "\033[1;33m", "\033[1;31m"};
  return kEscapes[static_cast<unsigned>(severity)];
}

class Page {
 public:
  explicit Page(const Screen& screen) : columns_(std::max(40u, screen.columns)), colours_(screen.colours) {}

  enum class Form { kText, kItem, kCommand };
  // A label in the margin and text beside it, broken between words. An item's later lines are indented. In commands a
  // break is a backslash, so that they can be pasted as they stand.
  void block(const std::string& label, const char* colour, const std::string& text, Form form = Form::kText) {
    margin(label, colour);
    wrap(text, kIndent, kIndent + (form == Form::kText ? 0 : 2), form == Form::kCommand ? " \\" : "");
  }
  void paragraph(const std::string& text) { wrap(text, 0, 2, ""); }
  void line(const std::string& text) { out_ += text + "\n"; }
  std::size_t room() const { return columns_ - kIndent; }
  std::string take() { return std::move(out_); }

 private:
  void margin(const std::string& label, const char* colour) {
    const bool coloured = colours_ && colour != nullptr && !label.empty();
    if (coloured) out_ += colour;
    out_ += label;
    if (coloured) out_ += "\033[0m";
    out_.append(kIndent - std::min(kIndent, label.size()), ' ');
  }

  // column: where the text begins; later lines begin at `indent`.
  void wrap(const std::string& text, std::size_t column, std::size_t indent, const std::string& at_break) {
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = std::min(text.find(' ', at), text.size());
      if (at > 0 && column + 1 + (end - at) + at_break.size() > columns_) {
        out_ += at_break + "\n" + std::string(indent, ' ');
        column = indent;
      } else if (at > 0) {
        out_ += ' ';
        column++;
      }
      // The words that an option accepts are one word here, which may be wider than the screen.
      for (std::size_t bar; column + (end - at) > columns_; at = bar + 1) {
        bar = text.rfind('|', at + (columns_ - column) - 1);
        if (bar == text.npos || bar < at) break;
        out_ += text.substr(at, bar + 1 - at) + "\n" + std::string(indent, ' ');
        column = indent;
      }
      out_.append(text, at, end - at);
      column += end - at;
      at = end + 1;
    }
    out_ += '\n';
  }

  const std::size_t columns_;
  const bool colours_;
  std::string out_;
};

std::string right(const std::string& text, std::size_t width) {
  return std::string(width - std::min(width, text.size()), ' ') + text;
}

std::string count(std::uint64_t n, const char* one) { return std::to_string(n) + " " + one + (n == 1 ? "" : "s"); }

void write_head(const Patient& patient, Page& page) {
  const Topology& topology = *patient.topology;
  std::string head = "numaheap doctor: " + count(topology.node_count(), "node");
  if (const unsigned cpus = topology.known_cpus().count(); cpus > 0) head += ", " + count(cpus, "CPU");
  const char* const user = !patient.around.is_root  ? "not root"
                           : patient.user_namespace ? "root of a user namespace"
                                                    : "root";
  for (const std::string& part :
       {human(patient.memory()), patient.around.kernel, patient.around.libc, std::string(user),
        patient.container.empty() ? std::string("no container") : "container: " + patient.container}) {
    if (!part.empty()) head += ", " + part;
  }
  if (patient.seccomp) head += ", a seccomp filter";
  page.paragraph(head);
}

// A row per node: memory, how much of it huge pages could be made of, and the pools.
void write_nodes(const Patient& patient, Page& page) {
  std::vector<std::size_t> shown;  // pools of 2 MiB always, others where they have pages
  for (std::size_t i = 0; i < patient.sizes.size(); i++) {
    const auto& pools = patient.pools[i];
    if (patient.sizes[i] == 2048 ||
        std::any_of(pools.begin(), pools.end(), [](const NodePool& p) { return p.total > 0; }))
      shown.push_back(i);
  }
  std::string head = "  node      memory        free  in 2M pieces";
  for (const std::size_t i : shown) head += right(size_name(patient.sizes[i] * KiB) + " pool", 9) + right("free", 7);
  page.line("");
  page.line(head);
  bool any_forbidden = false;
  for (unsigned i = 0; i < patient.topology->node_count(); i++) {
    const NodeState& node = patient.nodes[i];
    const int id = patient.topology->node(i).id;
    const bool forbidden = i < patient.topology->heap_count() && !patient.allowed.has(patient.topology->node(i).node());
    any_forbidden |= forbidden;
    std::string row = right(std::to_string(id), 6) + (forbidden ? "*" : " ") + right(human(node.total), 11) +
                      right(human(node.free), 12) +
                      right(node.free > 0 ? std::to_string(node.free_pieces * 100 / node.free) + " %" : "-", 14);
    for (const std::size_t s : shown) {
      for (const NodePool& pool : patient.pools[s]) {
        if (pool.node == id) row += right(std::to_string(pool.total), 9) + right(std::to_string(pool.free), 7);
      }
    }
    page.line(row);
  }
  if (any_forbidden) page.line("  * its memory may not be used (cpuset)");
  for (const std::size_t i : shown) {
    const PoolPromises promises = pool_promises(patient.root, patient.sizes[i]);
    std::uint64_t surplus = 0;
    for (const NodePool& pool : patient.pools[i]) surplus += pool.surplus;
    if (promises.reserved == 0 && surplus == 0 && promises.overcommit == 0) continue;
    page.line("  of the pages of " + size_name(patient.sizes[i] * KiB) + ": " + std::to_string(promises.reserved) +
              " promised, " + std::to_string(surplus) + " beyond the pool, " + std::to_string(promises.overcommit) +
              " more on demand");
  }
}

void write_finding(const Patient& patient, const Finding& finding, Page& page) {
  std::string label = severity_name(finding.severity);
  for (char& c : label) c = static_cast<char>(c - ('a' - 'A'));
  page.line("");
  page.block(label, escape(finding.severity), finding.title);
  page.block("  here", nullptr, finding.here);
  page.block("  costs", nullptr, finding.costs);
  const char* name = "  mend";
  for (const Remedy& remedy : finding.remedies) {
    const std::string who = who_text(remedy.who, patient) + (remedy.lasting ? ", for good: " : ": ");
    const bool fits = who.size() + remedy.text.size() <= page.room();
    if (remedy.is_command && !fits) {
      page.block(name, nullptr, who.substr(0, who.size() - 1));
      page.block("", nullptr, remedy.text, Page::Form::kCommand);
    } else {
      page.block(name, nullptr, who + remedy.text);
    }
    name = "";
  }
}

std::string verdict(const Patient& patient) {
  std::uint64_t by[3] = {};
  for (const Finding& finding : patient.findings) by[static_cast<unsigned>(finding.severity)]++;
  const std::uint64_t cost = by[1] + by[2];
  std::string text = cost == 0 ? "Nothing costs anything here"
                               : count(cost, "thing") + (cost == 1 ? " costs" : " cost") + " something here";
  if (by[2] > 0) text += cost == 1 ? ", and is serious" : ", " + std::to_string(by[2]) + " of them serious";
  if (by[0] > 0) text += "; " + count(by[0], "note");
  if (!patient.unknown.empty()) text += "; " + count(patient.unknown.size(), "look") + " failed";
  return text + ".";
}

// JSON, written piece by piece; commas come by themselves.
class Json {
 public:
  Json& open(char bracket) { return piece(std::string(1, bracket)), first_ = true, *this; }
  Json& close(char bracket) { return out_ += bracket, first_ = false, *this; }
  Json& key(const char* name) { return text(name), out_ += ':', first_ = true, *this; }
  Json& text(const std::string& value) {
    std::string quoted = "\"";
    for (const char c : value) {
      static constexpr char kDigits[] = "0123456789abcdef";
      if (c == '"' || c == '\\') quoted += '\\';
      if (static_cast<unsigned char>(c) >= ' ') {
        quoted += c;
      } else {
        quoted += std::string("\\u00") + kDigits[c >> 4] + kDigits[c & 15];
      }
    }
    return piece(quoted + '"');
  }
  Json& number(std::int64_t value) { return piece(std::to_string(value)); }
  Json& boolean(bool value) { return piece(value ? "true" : "false"); }
  std::string take() { return std::move(out_) + "\n"; }

 private:
  Json& piece(const std::string& text) {
    if (!first_) out_ += ',';
    first_ = false;
    out_ += text;
    return *this;
  }
  bool first_ = true;
  std::string out_;
};

void write_machine(const Patient& patient, Json& json) {
  json.key("kernel")
      .text(patient.around.kernel)
      .key("libc")
      .text(patient.around.libc)
      .key("root")
      .boolean(patient.around.is_root);
  json.key("container").text(patient.container).key("seccomp").boolean(patient.seccomp);
  json.key("nodes").open('[');
  for (unsigned i = 0; i < patient.topology->node_count(); i++) {
    const NodeState& state = patient.nodes[i];
    const NodeInfo& node = patient.topology->node(i);
    json.open('{').key("id").number(node.id).key("cpus").number(node.cpus).key("allowed").boolean(
        patient.allowed.has(node.node()));
    json.key("memory_bytes")
        .number(static_cast<std::int64_t>(state.total))
        .key("free_bytes")
        .number(static_cast<std::int64_t>(state.free));
    json.key("free_in_2m_pieces_bytes").number(static_cast<std::int64_t>(state.free_pieces)).key("pools").open('[');
    for (std::size_t s = 0; s < patient.sizes.size(); s++) {
      for (const NodePool& pool : patient.pools[s]) {
        if (pool.node != node.id) continue;
        json.open('{').key("page_bytes").number(static_cast<std::int64_t>(patient.sizes[s] * KiB));
        json.key("pages")
            .number(static_cast<std::int64_t>(pool.total))
            .key("free")
            .number(static_cast<std::int64_t>(pool.free));
        json.key("surplus").number(static_cast<std::int64_t>(pool.surplus)).close('}');
      }
    }
    json.close(']').close('}');
  }
  json.close(']').key("pools").open('[');
  for (const std::uint64_t kib : patient.sizes) {
    const PoolPromises promises = pool_promises(patient.root, kib);
    json.open('{')
        .key("page_bytes")
        .number(static_cast<std::int64_t>(kib * KiB))
        .key("promised")
        .number(promises.reserved);
    json.key("on_demand").number(static_cast<std::int64_t>(promises.overcommit)).close('}');
  }
  json.close(']').key("transparent_huge_pages").open('{');
  const std::string thp = patient.root + "/sys/kernel/mm/transparent_hugepage";
  json.key("enabled").text(chosen_word(thp + "/enabled")).key("defrag").text(chosen_word(thp + "/defrag"));
  for (const std::uint64_t kib : {16u, 32u, 64u, 128u, 256u, 512u, 1024u, 2048u}) {
    const std::string mode = chosen_word(thp + "/hugepages-" + std::to_string(kib) + "kB/enabled");
    if (!mode.empty()) json.key(size_name(kib * KiB).c_str()).text(mode);
  }
  json.close('}');
}

// What was tried, by name.
void write_trials(const Patient& patient, Json& json) {
  static constexpr const char* kNames[] = {"rseq",      "membarrier",   "mbind",          "get_mempolicy", "move_pages",
                                           "populate",  "collapse",     "preferred_many", "userfaultfd",   "pool_map",
                                           "pool_move", "pool_discard", "pool_page"};
  static_assert(sizeof kNames / sizeof kNames[0] == kAbilities);
  json.key("tried").open('{');
  for (unsigned i = 0; i < kAbilities; i++) {
    const int error = patient.error_of(static_cast<Ability>(i));
    json.key(kNames[i]).text(error == 0 ? "works" : error_text(error));
  }
  json.close('}').key("huge_page_trials").open('[');
  for (NodeId node = patient.usable.first(), next; node.valid(); node = next) {
    next = patient.usable.next(NodeId(node.value + 1));
    const HugePageTrial* const trial = patient.huge_page_trial(node);
    if (trial == nullptr) continue;
    json.open('{').key("node").number(node.value).key("came_from").number(trial->node);
    json.key("bytes").number(static_cast<std::int64_t>(trial->bytes)).close('}');
  }
  json.close(']');
}

}  // namespace

std::string doctor_text(const Patient& patient, const Screen& screen) {
  Page page(screen);
  write_head(patient, page);
  write_nodes(patient, page);
  for (const Finding& finding : patient.findings) write_finding(patient, finding, page);
  if (!patient.unknown.empty()) page.line("");
  for (const std::string& text : patient.unknown) page.block("UNSEEN", escape(Severity::kCosts), text);
  if (!patient.fine.empty()) page.line("");
  const char* label = "FINE";
  for (const std::string& text : patient.fine) {
    page.block(label, "\033[1;32m", text, Page::Form::kItem);
    label = "";
  }
  page.line("");
  page.paragraph(verdict(patient));
  return page.take();
}

std::string doctor_json(const Patient& patient) {
  Json json;
  json.open('{').key("version").number(1).key("status").number(doctor_status(patient));
  write_machine(patient, json);
  write_trials(patient, json);
  json.key("findings").open('[');
  for (const Finding& finding : patient.findings) {
    json.open('{')
        .key("id")
        .text(finding.id)
        .key("severity")
        .text(severity_name(finding.severity))
        .key("title")
        .text(finding.title);
    json.key("here").text(finding.here).key("costs").text(finding.costs).key("mend").open('[');
    for (const Remedy& remedy : finding.remedies) {
      json.open('{')
          .key("who")
          .text(who_text(remedy.who, patient))
          .key(remedy.is_command ? "command" : "advice")
          .text(remedy.text);
      json.key("lasting").boolean(remedy.lasting).close('}');
    }
    json.close(']').close('}');
  }
  json.close(']').key("fine").open('[');
  for (const std::string& text : patient.fine) json.text(text);
  json.close(']').key("unseen").open('[');
  for (const std::string& text : patient.unknown) json.text(text);
  return json.close(']').close('}').take();
}

}  // namespace nh::cli
