// C++ programs as they are written: strings, maps, vectors of vectors.
#include <algorithm>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>

#include "compare/blocks.h"
#include "compare/rows.h"

namespace bench {
namespace {

// A word of 3 to 34 letters; one in two does not fit into a std::string without memory of its own.
std::string word(std::size_t number) {
  std::string out;
  Random random(number);
  const std::size_t length = 3 + random.below(32);
  for (std::size_t i = 0; i < length; i++) out += static_cast<char>('a' + random.below(26));
  return out;
}

// An index of a text: it is made, split into words, counted in one map, turned round into another, and thrown away.
std::uint64_t index_text(std::size_t words) {
  Random random(13);
  std::string text;
  for (std::size_t i = 0; i < words; i++) {
    // Squared: few words are frequent, many are rare.
    const std::size_t r = random.below(1 << 14);
    text += word((r * r) >> 14);
    text += ' ';
  }
  std::unordered_map<std::string, std::vector<std::uint32_t>> places;
  for (std::size_t at = 0, end; (end = text.find(' ', at)) != std::string::npos; at = end + 1) {
    places[text.substr(at, end - at)].push_back(static_cast<std::uint32_t>(at));
  }
  std::map<std::size_t, std::vector<std::string>> by_frequency;
  for (const auto& [name, found] : places) by_frequency[found.size()].push_back(name);
  Checksum sum;
  for (auto& [frequency, names] : by_frequency) {
    std::sort(names.begin(), names.end());
    sum.add(frequency);
    for (const std::string& name : names) sum.add(name.size() * 256 + static_cast<unsigned char>(name.back()));
  }
  return static_cast<std::uint64_t>(std::strtoull(sum.text().c_str(), nullptr, 16));
}

// A session store: records with fields of their own are inserted, looked up, changed and dropped when they are old.
std::uint64_t session_store(std::size_t requests) {
  struct Session {
    std::string user;
    std::map<std::string, std::string> fields;
    std::list<std::uint32_t> history;
  };
  constexpr std::size_t kLive = 4000;
  std::map<std::string, std::unique_ptr<Session>> sessions;
  std::list<std::string> by_age;
  Random random(17);
  Checksum sum;
  for (std::size_t i = 0; i < requests; i++) {
    const std::size_t user = random.below(2 * kLive);
    const std::string key = "session-of-user-" + std::to_string(user);
    auto& session = sessions[key];
    if (session == nullptr) {
      session = std::make_unique<Session>(Session{word(user), {}, {}});
      by_age.push_back(key);
    }
    session->fields["field-number-" + std::to_string(i % 7)] = word(i % 1000);
    session->history.push_back(static_cast<std::uint32_t>(i));
    if (session->history.size() > 10) session->history.pop_front();
    sum.add(session->fields.size() * 100 + session->history.size());
    if (sessions.size() > kLive) {
      sessions.erase(by_age.front());
      by_age.pop_front();
    }
  }
  sample_memory();
  return static_cast<std::uint64_t>(std::strtoull(sum.text().c_str(), nullptr, 16));
}

Result timed(std::uint64_t (*workload)(std::size_t), std::size_t amount) {
  Checksum sum;
  const double ns = median_ns(3, [&] { sum.add(workload(amount)); });
  return {ns / 1e6, sum.text()};
}

}  // namespace

void add_containers(Table& table) {
  table.push_back({"containers/index", "ms", "a text split into words and counted in maps of strings and vectors",
                   [](const Run& run) { return timed(index_text, run.scaled(400'000)); }});
  table.push_back({"containers/sessions", "ms", "a map of records with maps and lists of their own, the oldest dropped",
                   [](const Run& run) { return timed(session_store, run.scaled(200'000)); }});
}

}  // namespace bench
