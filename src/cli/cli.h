// The commands of the `numaheap` tool. Each takes the words behind its name and returns the exit status.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

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
int doctor_command(Words words);
int reserve_command(Words words);
int map_command(Words words);
int stat_command(Words words);
int top_command(Words words);

extern const char kRunHelp[];
extern const char kTopoHelp[];
extern const char kOptionsHelp[];
extern const char kProfileHelp[];
extern const char kDoctorHelp[];
extern const char kReserveHelp[];
extern const char kMapHelp[];
extern const char kStatHelp[];
extern const char kTopHelp[];

// Writes "numaheap: <text>\n" to stderr and returns `status`.
int complain(int status, const std::string& text);
// Writes text to stdout; 0, or 1 with a complaint where that fails (a full disk, a closed pipe).
int print(std::string_view text);

// If word is --name=value or --name value, sets *value and moves *at past both. false where word is another option.
// A value that is missing comes back as nullptr: at the end of the words, and where another option or "--" follows (a
// value that begins with a dash is written --name=-value).
bool take_value(Words words, std::size_t* at, std::string_view name, const char** value);

// Refuses a word that a command does not know: names what the user may have meant, and where the words are listed.
// `command` is what the message begins with, such as "topo".
int refuse_option(int status, std::string_view command, std::string_view word, const std::vector<std::string>& known);
// "; did you mean 'run'?", or nothing where no known word is like it.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& known);

// The library to preload: `asked` if not empty (links in it stay), else libnumaheap.so or libnumaheap.so.0 beside the
// tool, in the lib directories next to it, or where it was configured to be installed. Empty where it is missing:
// *searched lists the places.
std::string find_library(const std::string& asked, std::string* searched);

// How this tool is called in a line to be pasted: "numaheap" where PATH leads to it, else its path, quoted if need be.
std::string tool_name();
// A word as a shell reads it.
std::string shell_word(const std::string& word);

// Whether LD_PRELOAD can name a library, and the commands that run a program on one that it cannot name.
bool fits_ld_preload(const std::string& path);
std::string run_through_link(const std::string& tool, const std::string& library);

// Whether an ELF file (a library, or a program that brings its own) exports malloc.
bool defines_malloc(const std::string& path);

// Why LD_PRELOAD does nothing for this program, as a sentence without a full stop; empty where nothing speaks against
// it (or nothing can be said, as for a script).
std::string preload_obstacle(const std::string& command);

}  // namespace nh::cli
