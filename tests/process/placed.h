// The placement functions of numaheap.h, for programs that are not linked to the library.
#pragma once

#include <dlfcn.h>
#include <numaheap/numaheap.h>
#include <stdlib.h>
#include <unistd.h>

#include "harness/case.h"

struct PlacementApi {
#define NH_ENTRY(member, function) decltype(&function) member = NH_LIBRARY_FUNCTION(decltype(&function), function)
  NH_ENTRY(alloc, numaheap_alloc);
  NH_ENTRY(on_node, numaheap_malloc_on_node);
  NH_ENTRY(on_node_strict, numaheap_malloc_on_node_strict);
  NH_ENTRY(interleaved, numaheap_malloc_interleaved);
  NH_ENTRY(first_touch, numaheap_malloc_first_touch);
  NH_ENTRY(local, numaheap_malloc_local);
  NH_ENTRY(node_count, numaheap_node_count);
  NH_ENTRY(node_id, numaheap_node_id);
  NH_ENTRY(local_node, numaheap_local_node);
  NH_ENTRY(node_of, numaheap_node_of);
  NH_ENTRY(heap_stats, numaheap_get_heap_stats);
#undef NH_ENTRY
};

inline const PlacementApi& api() {
  static const PlacementApi entries;
  REQUIRE(entries.alloc != nullptr, "not on numaheap");
  return entries;
}
