// What NUMAHEAP_PROFILE asks for: FILE[,interval=SIZE][,live|all][,signal=USR1|USR2|NUMBER].
#pragma once

#include <cstddef>
#include <string_view>

#include "base/format.h"

namespace nh {

struct ProfileSettings {
  char file[1024] = "";    // with marks (base/file_name.h)
  std::size_t interval = 0;  // bytes; 0: the usual one
  bool live_only = false;  // only stacks of which something lives
  int signal = 0;          // that asks for the file; 0: none
};

// False: *problem says what is wrong.
bool parse_profile(std::string_view text, ProfileSettings* settings, TextWriter* problem);

}  // namespace nh
