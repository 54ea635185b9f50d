#include "numa/hwloc_calls.h"

#include <dlfcn.h>

#include "os/loader.h"

namespace nh {
namespace {

#ifdef NUMAHEAP_HWLOC_LINK

bool find_functions(HwlocCalls* calls, TextWriter*) {
#define NH_TAKE(name) calls->name = &hwloc_##name;
  NH_HWLOC_FUNCTIONS(NH_TAKE)
  NH_HWLOC_NEWER_FUNCTIONS(NH_TAKE)
#undef NH_TAKE
  return true;
}

#else

// The soname of hwloc 2.x. RTLD_NOW: a missing symbol is found here, not in the middle of a load. RTLD_LOCAL: the
// program may use another hwloc, whose symbols ours must not stand in for.
constexpr char kLibrary[] = "libhwloc.so.15";

bool find_functions(HwlocCalls* calls, TextWriter* why) {
  if (!has_loader()) {
    why->text("no dynamic loader in this program");
    return false;
  }
  calls->library = open_library(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (calls->library == nullptr) {
    why->text(kLibrary).text(" cannot be loaded");
    return false;
  }
#define NH_FIND(name) \
  calls->name = reinterpret_cast<decltype(&hwloc_##name)>(find_symbol(calls->library, "hwloc_" #name));
#define NH_TAKE(name)                                                                                   \
  NH_FIND(name)                                                                                         \
  if (calls->name == nullptr) {                                                                         \
    why->text(kLibrary).text(" has no hwloc_" #name);                                                   \
    return false;                                                                                       \
  }
  NH_HWLOC_FUNCTIONS(NH_TAKE)
  NH_HWLOC_NEWER_FUNCTIONS(NH_FIND)
#undef NH_TAKE
#undef NH_FIND
  return true;
}

#endif

}  // namespace

bool open_hwloc(HwlocCalls* calls, TextWriter* why) {
  bool usable = find_functions(calls, why);
  // Structures may change between major versions, functions are only added within one.
  if (usable && calls->get_api_version() >> 16 != HWLOC_API_VERSION >> 16) {
    why->text("hwloc of another major version");
    usable = false;
  }
  if (!usable) close_hwloc(calls);
  return usable;
}

void close_hwloc(HwlocCalls* calls) {
  if (calls->library != nullptr) close_library(calls->library);
  *calls = HwlocCalls();
}

}  // namespace nh
