#include "cli/machine_files.h"

#include <algorithm>
#include <filesystem>

#include "base/options.h"
#include "base/scan.h"
#include "os/procfs.h"

namespace nh::cli {
namespace {

constexpr std::size_t kMostText = 64 * KiB;

std::string pool_directory(const std::string& above, std::uint64_t kib) {
  return above + "/hugepages/hugepages-" + std::to_string(kib) + "kB";
}

// The numbers N of the entries prefixN<suffix> of a directory, ascending.
std::vector<std::uint64_t> numbered(const std::string& directory, std::string_view prefix, std::string_view suffix) {
  std::vector<std::uint64_t> numbers;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename();
    std::string_view text = name;
    std::uint64_t number = 0;
    if (take(&text, prefix) && take_decimal(&text, &number) && text == suffix) numbers.push_back(number);
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

}  // namespace

std::optional<std::string> text_of(const std::string& path) {
  std::string text(kMostText, '\0');
  const long n = read_file(path.c_str(), text.data(), text.size());
  if (n < 0) return std::nullopt;
  return std::string(trimmed({text.data(), static_cast<std::size_t>(n)}));
}

std::optional<std::uint64_t> number_in(const std::string& path) {
  std::uint64_t value = 0;
  return read_number(path.c_str(), &value) ? std::optional(value) : std::nullopt;
}

std::string chosen_word(const std::string& path) {
  const std::string text = text_of(path).value_or("");
  return std::string(before(after(text, '['), ']'));
}

std::vector<std::uint64_t> pool_sizes(const std::string& root) {
  return numbered(root + "/sys/kernel/mm/hugepages", "hugepages-", "kB");
}

std::vector<NodePool> node_pools(const std::string& root, std::uint64_t kib) {
  std::vector<NodePool> pools;
  const auto add = [&](int node, const std::string& directory) {
    const auto total = number_in(directory + "/nr_hugepages");
    if (!total) return;
    pools.push_back({node, directory, *total, number_in(directory + "/free_hugepages").value_or(0),
                     number_in(directory + "/surplus_hugepages").value_or(0)});
  };
  const std::string nodes = root + "/sys/devices/system/node";
  for (const std::uint64_t node : numbered(nodes, "node", "")) {
    add(static_cast<int>(node), pool_directory(nodes + "/node" + std::to_string(node), kib));
  }
  if (pools.empty()) add(0, root + "/sys/kernel/mm/hugepages/hugepages-" + std::to_string(kib) + "kB");
  return pools;
}

PoolPromises pool_promises(const std::string& root, std::uint64_t kib) {
  const std::string directory = root + "/sys/kernel/mm/hugepages/hugepages-" + std::to_string(kib) + "kB/";
  // A number below zero is printed as one next to 2^64.
  return {static_cast<std::int64_t>(number_in(directory + "resv_hugepages").value_or(0)),
          number_in(directory + "nr_overcommit_hugepages").value_or(0)};
}

NodeState node_state(const std::string& root, int node) {
  NodeState state;
  std::uint64_t files = 0;
  const std::string number = std::to_string(node);
  const std::string nodes = root + "/sys/devices/system/node";
  const bool per_node = path_exists((nodes + "/node" + number + "/meminfo").c_str());
  LineReader lines(((per_node ? nodes + "/node" + number : root + "/proc") + "/meminfo").c_str());
  // "Node 0 MemFree:          714224 kB", or without the first two words.
  for (std::string_view line; lines.next(&line);) {
    std::string_view name = before(line, ':');
    name = tail(name, name.rfind(' ') + 1);
    std::string_view value = trimmed(after(line, ':'));
    std::uint64_t kib = 0;
    if (!take_decimal(&value, &kib)) continue;
    if (name == "MemTotal") state.total = kib * KiB;
    if (name == "MemFree") state.free = kib * KiB;
    if (name == "Active(file)" || name == "Inactive(file)") files += kib * KiB;
  }
  state.to_be_had = state.free + files / 2;
  // "Node 0, zone   Normal   6061   1794 ...": free blocks of 1, 2, 4, ... pages.
  LineReader blocks((root + "/proc/buddyinfo").c_str());
  for (std::string_view line; blocks.next(&line);) {
    if (!take(&line, "Node ") || before(line, ',') != number) continue;
    line = trimmed(after(line, ','));
    take(&line, "zone");
    line = trimmed(line);
    line = trimmed(after(line, ' '));
    std::uint64_t count = 0;
    for (std::uint64_t bytes = kOsPageSize; take_decimal(&line, &count); bytes *= 2, line = trimmed(line)) {
      if (bytes >= 2 * MiB) state.free_pieces += count * bytes;
    }
  }
  return state;
}

std::string size_name(std::uint64_t bytes) {
  Text<32> text;
  write_size(text, bytes);
  return text.c_str();
}

std::string human(std::uint64_t bytes) {
  Text<32> text;
  text.bytes(bytes);
  return text.c_str();
}

std::string node_list(const NodeSet& nodes) {
  Text<8192> text;
  write_node_list(text, nodes);
  return text.c_str();
}

}  // namespace nh::cli
