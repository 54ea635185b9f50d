// Options and their values among the words of a command line.
#include "base/spelling.h"
#include "cli/cli.h"

namespace nh::cli {

bool take_value(Words words, std::size_t* at, std::string_view name, const char** value) {
  const std::string_view word = words[*at];
  if (word == name) {
    *at += 1;
    // "-" alone stands for a stream, as everywhere.
    const bool there = *at < words.size() && (words[*at][0] != '-' || words[*at][1] == '\0');
    *value = there ? words[(*at)++] : nullptr;
    return true;
  }
  if (word.size() > name.size() && word.starts_with(name) && word[name.size()] == '=') {
    *value = words[*at] + name.size() + 1;
    *at += 1;
    return true;
  }
  return false;
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& known) {
  const std::string* nearest = nullptr;
  std::size_t least = kNotAlike;
  for (const std::string& candidate : known) {
    const std::size_t distance = misspelling(word, candidate);
    if (distance >= least) continue;
    least = distance;
    nearest = &candidate;
  }
  return nearest != nullptr ? "; did you mean '" + *nearest + "'?" : ";";
}

int refuse_option(int status, std::string_view command, std::string_view word, const std::vector<std::string>& known) {
  const std::string name(word.substr(0, word.find('=')));
  return complain(status, std::string(command) + ": no such option '" + name + "'" + did_you_mean(name, known) +
                              " `numaheap " + std::string(command) + " --help` lists them");
}

}  // namespace nh::cli
