#include "bench/micro/rseq_list.h"

#include "os/rseq.h"

namespace {

// Before library_init() there are no lists and no calls.
bench::BareList* g_lists;

}  // namespace

namespace bench {

[[gnu::visibility("default")]] bool library_init(BareList* lists) {
  g_lists = lists;
  return nh::rseq_init() == nh::RseqMode::kGlibc;
}

[[gnu::visibility("default")]] void* library_pop() {
  void* object;
  return bare_pop(g_lists, &object) ? object : nullptr;
}

[[gnu::visibility("default")]] void library_push(void* object) { bare_push(g_lists, object); }

}  // namespace bench
