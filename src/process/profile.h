// The heap profile: what sampled objects tell of who holds the memory, as a file.
//
// The form is gperftools' text form ("heap profile: ... @ heapprofile"), which google-pprof and Go's pprof read: per stack
// the objects and bytes that live and that were allocated in all, then the mappings of the process. The numbers are
// estimates of the whole, not of the sample, so that readers need not scale them.
#pragma once

#include <cstddef>
#include <string_view>

#include "base/format.h"

namespace nh {

struct ProfileSettings {
  char file[1024] = "";
  std::size_t interval = 0;
  bool live_only = false;  // only stacks of which something lives
  int signal = 0;          // that asks for the file; 0: none
};

// FILE[,interval=SIZE][,live|all][,signal=USR1|USR2|NUMBER]. False: *problem says what is wrong.
bool parse_profile(std::string_view text, ProfileSettings* settings, TextWriter* problem);

// From the constructor: does what NUMAHEAP_PROFILE asks for.
void init_profile();
// Writes the file that NUMAHEAP_PROFILE names.
void profile_at_exit();

// Writes what was sampled so far. name: with marks (process/file_name.h). 0 or an errno value. Async-signal-safe.
int write_profile(const char* name, bool live_only);

}  // namespace nh
