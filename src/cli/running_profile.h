// The heap profile of a process that runs: asks it to write its file.
#pragma once

#include <string>

#include <sys/types.h>

namespace nh::cli {

// Sends process `pid` the signal that it was told to write its profile for, and waits until it has. *path: the file, as this
// process reaches it. False: *why says what is missing and what to do.
bool ask_for_profile(pid_t pid, std::string* path, std::string* why);

}  // namespace nh::cli
