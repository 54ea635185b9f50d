// Reading JSON: a whole text into a tree of values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nh::cli {

struct Json {
  enum class Type { kNull, kBool, kNumber, kString, kArray, kObject };
  Type type = Type::kNull;
  double number = 0;  // of a bool: 0 or 1
  std::string text;
  std::vector<Json> items;
  std::vector<std::pair<std::string, Json>> members;

  // What is missing, or of another type, is a null, 0, "" or no items.
  const Json& operator[](std::string_view name) const;
  std::uint64_t count() const;  // a number that is at least 0 and whole; 0 for all others
  // false: not JSON, or more than 64 levels deep.
  static bool parse(std::string_view text, Json* out);
};

}  // namespace nh::cli
