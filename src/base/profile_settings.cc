#include "base/profile_settings.h"

#include <csignal>
#include <cstdint>
#include <cstring>

#include "base/options.h"
#include "base/scan.h"

namespace nh {
namespace {

constexpr std::size_t kLeastInterval = 1;
constexpr std::size_t kMostInterval = std::size_t{1} << 40;

int signal_of(std::string_view name) {
  take(&name, "SIG");
  if (name == "USR1") return SIGUSR1;
  if (name == "USR2") return SIGUSR2;
  std::uint64_t number = 0;
  if (!take_decimal(&name, &number) || !name.empty() || number == 0 || number >= NSIG) return 0;
  return static_cast<int>(number);
}

bool take_part(std::string_view part, ProfileSettings* settings, TextWriter* problem) {
  std::string_view value = part;
  if (part == "live" || part == "all") {
    settings->live_only = part == "live";
    return true;
  }
  if (take(&value, "interval=")) {
    std::uint64_t bytes = 0;
    if (parse_size(value, &bytes) && bytes >= kLeastInterval && bytes <= kMostInterval) {
      settings->interval = bytes;
      return true;
    }
    problem->text("interval takes a size from 1 to 1T, not \"").text(value).ch('"');
    return false;
  }
  if (take(&value, "signal=")) {
    settings->signal = signal_of(value);
    if (settings->signal != 0) return true;
    problem->text("signal takes USR1, USR2 or a number, not \"").text(value).ch('"');
    return false;
  }
  problem->text("\"").text(part).text("\" is none of interval=SIZE, live, all, signal=NAME");
  return false;
}

}  // namespace

bool parse_profile(std::string_view text, ProfileSettings* settings, TextWriter* problem) {
  const std::string_view file = before(text, ',');
  if (file.empty() || file.size() >= sizeof settings->file) {
    problem->text("a file is missing before the first comma");
    return false;
  }
  std::memcpy(settings->file, file.data(), file.size());
  settings->file[file.size()] = '\0';
  for (std::string_view rest = after(text, ','); !rest.empty(); rest = after(rest, ',')) {
    if (!take_part(before(rest, ','), settings, problem)) return false;
  }
  return true;
}

}  // namespace nh
