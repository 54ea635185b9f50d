#include "cli/json.h"

#include <cmath>
#include <cstdlib>

namespace nh::cli {
namespace {

class Parser {
 public:
  explicit Parser(std::string_view text) : rest_(text) {}
  bool whole(Json* out) {
    const bool read = value(out, 0);
    skip();
    return read && rest_.empty();
  }

 private:
  static constexpr int kMostLevels = 64;

  void skip() {
    const std::size_t n = rest_.find_first_not_of(" \t\r\n");
    rest_.remove_prefix(n == rest_.npos ? rest_.size() : n);
  }
  bool take(std::string_view word) {
    skip();
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }
  bool value(Json* out, int level) {
    if (level > kMostLevels) return false;
    skip();
    if (rest_.empty()) return false;
    switch (rest_[0]) {
      case '{': return list(out, Json::Type::kObject, "}", level);
      case '[': return list(out, Json::Type::kArray, "]", level);
      case '"': out->type = Json::Type::kString; return string(&out->text);
      default: break;
    }
    out->number = rest_[0] == 't';
    out->type = Json::Type::kBool;
    if (take("true") || take("false")) return true;
    out->type = Json::Type::kNull;
    return take("null") || number(out);
  }
  bool list(Json* out, Json::Type type, std::string_view end, int level) {
    out->type = type;
    rest_.remove_prefix(1);
    if (take(end)) return true;
    do {
      Json item;
      std::string name;
      if (type == Json::Type::kObject && (!string(&name) || !take(":"))) return false;
      if (!value(&item, level + 1)) return false;
      if (type == Json::Type::kObject) out->members.emplace_back(std::move(name), std::move(item));
      else out->items.push_back(std::move(item));
    } while (take(","));
    return take(end);
  }
  bool number(Json* out) {
    const std::string text(rest_.substr(0, rest_.find_first_not_of("+-.0123456789eE")));
    char* end = nullptr;
    out->type = Json::Type::kNumber;
    out->number = std::strtod(text.c_str(), &end);
    if (text.empty() || *end != '\0' || !std::isfinite(out->number)) return false;
    rest_.remove_prefix(text.size());
    return true;
  }
  bool string(std::string* out) {
    if (!take("\"")) return false;
    while (!rest_.empty()) {
      char c = rest_[0];
      rest_.remove_prefix(1);
      if (c == '"') return true;
      if (c == '\\' && !escaped(&c)) return false;
      *out += c;
    }
    return false;
  }
  // Behind a backslash. Characters beyond ASCII are written as they are and need no \u; others are not kept.
  bool escaped(char* c) {
    if (rest_.empty()) return false;
    const char kind = rest_[0];
    rest_.remove_prefix(1);
    static constexpr std::string_view kNames = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
    if (const std::size_t at = kNames.find(kind); at != kNames.npos) {
      *c = kMeanings[at];
      return true;
    }
    if (kind != 'u' || rest_.size() < 4) return false;
    const unsigned long code = std::strtoul(std::string(rest_.substr(0, 4)).c_str(), nullptr, 16);
    rest_.remove_prefix(4);
    *c = code < 0x80 ? static_cast<char>(code) : '?';
    return true;
  }

  std::string_view rest_;
};

}  // namespace

const Json& Json::operator[](std::string_view name) const {
  static const Json kNothing;
  for (const auto& [key, value] : members) {
    if (key == name) return value;
  }
  return kNothing;
}

std::uint64_t Json::count() const {
  return type == Type::kNumber && number >= 0 && number < 9e18 && number == std::floor(number)
             ? static_cast<std::uint64_t>(number) : 0;
}

bool Json::parse(std::string_view text, Json* out) { return Parser(text).whole(out); }

}  // namespace nh::cli
