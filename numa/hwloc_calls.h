// The functions of libhwloc that we use, as pointers: libnumaheap.so must not name libhwloc among its needed libraries,
// since it is preloaded into programs that may carry another version of their own.
//
// hwloc's header serves for types only. With NUMAHEAP_HWLOC_LINK defined (a build option) the pointers are those of the
// library that was linked normally; otherwise libhwloc.so.15 is opened with RTLD_LOCAL.
#pragma once

#include <hwloc.h>

#include "base/format.h"

namespace nh {

#define NH_HWLOC_FUNCTIONS(F)   \
  F(get_api_version)            \
  F(topology_init)              \
  F(topology_destroy)           \
  F(topology_load)              \
  F(topology_set_flags)         \
  F(topology_set_components)    \
  F(topology_set_all_types_filter) \
  F(topology_set_type_filter)   \
  F(topology_set_xml)           \
  F(topology_set_synthetic)     \
  F(get_type_depth)             \
  F(get_nbobjs_by_depth)        \
  F(get_obj_by_depth)           \
  F(distances_get_by_depth)     \
  F(distances_release)          \
  F(bitmap_next)                \
  F(bitmap_weight)              \
  F(bitmap_isincluded)

// What 2.x before 2.3 lacks: null where the library does.
#if HWLOC_API_VERSION >= 0x00020300
#define NH_HWLOC_NEWER_FUNCTIONS(F) F(memattr_get_best_initiator)
#else
#define NH_HWLOC_NEWER_FUNCTIONS(F)
#endif

struct HwlocCalls {
#define NH_DECLARE(name) decltype(&hwloc_##name) name = nullptr;
  NH_HWLOC_FUNCTIONS(NH_DECLARE)
  NH_HWLOC_NEWER_FUNCTIONS(NH_DECLARE)
#undef NH_DECLARE
  void* library = nullptr;  // from dlopen; nullptr where linked
};

// false where there is no libhwloc of the interface we were built for: *why says what is missing.
bool open_hwloc(HwlocCalls* calls, TextWriter* why);
void close_hwloc(HwlocCalls* calls);

}  // namespace nh
