// The commands of the `numaheap` tool. Each takes the words behind its name and returns the exit status.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/format.h"

namespace nh::cli {

using Words = std::span<const char* const>;

// Exit statuses. Those of `run` are env(1)'s, since it stands in a command line where env could.
inline constexpr int kUsage = 2;            // a mistake in the words of the other commands
inline constexpr int kRunFailed = 125;      // run itself failed
inline constexpr int kCannotInvoke = 126;   // CMD exists and cannot be executed
inline constexpr int kNotFound = 127;       // CMD does not exist

int run_command(Words words);
int topo_command(Words words);
int options_command(Words words);
int profile_command(Words words);

extern const char kRunHelp[];
extern const char kTopoHelp[];
extern const char kOptionsHelp[];
extern const char kProfileHelp[];

// Writes "numaheap: <text>\n" to stderr and returns `status`.
int complain(int status, const std::string& text);
// Writes text to stdout; 0, or 1 with a complaint where that fails (a full disk, a closed pipe).
int print(std::string_view text);

// If word is --name=value or --name value, sets *value and moves *at past both. false where word is another option.
// A value that is missing comes back as nullptr.
bool take_value(Words words, std::size_t* at, std::string_view name, const char** value);

// The library to preload: `asked` if not empty, else libnumaheap.so beside the tool, in the lib directories next to it,
// or where it was configured to be installed. Empty where it is missing: *searched lists the places.
std::string find_library(const std::string& asked, std::string* searched);

// Why LD_PRELOAD does nothing for this program, as a sentence without a full stop; empty where nothing speaks against
// it (or nothing can be said, as for a script).
std::string preload_obstacle(const std::string& command);

}  // namespace nh::cli
