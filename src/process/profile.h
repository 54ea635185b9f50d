// The heap profile: what sampled objects tell of who holds the memory, as a file.
//
// The form is gperftools' text form ("heap profile: ... @ heapprofile"), which google-pprof and Go's pprof read: per stack
// the objects and bytes that live and that were allocated in all, then the mappings of the process. The numbers are
// estimates of the whole, not of the sample, so that readers need not scale them.
#pragma once

namespace nh {

// From the constructor: does what NUMAHEAP_PROFILE asks for.
void init_profile();
// Writes the file that NUMAHEAP_PROFILE names.
void profile_at_exit();

// Writes what was sampled so far. name: with marks (base/file_name.h). 0 or an errno value. Async-signal-safe.
int write_profile(const char* name, bool live_only);

}  // namespace nh
