// numaheap/hbwmalloc.h: high-bandwidth memory, which is that of the nodes with fast memory.
#include <numaheap/hbwmalloc.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>

#include "api/heap_calls.h"
#include "api/placed.h"
#include "api/verify.h"
#include "base/bits.h"

#define NH_EXPORT extern "C" [[gnu::visibility("default")]]

namespace nh {
namespace {

std::atomic<int> g_policy{HBW_POLICY_PREFERRED};
std::atomic<bool> g_policy_is_fixed{false};

bool is_fast(HeapId heap) { return g_process.topology.node(heap.value).kind == NodeKind::kFast; }

// The nearest heap of a node with fast memory that this process may use. The machine may tell that another kind has more
// bandwidth: what this interface is for is a matter of the kind.
bool nearest_fast(HeapId* heap) {
  HeapId order[kMaxNodes];
  if (helpers_of(Help::kFast, HeapId(0), g_caches.current_cpu(), order) == 0) return false;
  *heap = order[0];
  return true;
}

bool has_fast() {
  HeapId heap;
  return ensure_started() && nearest_fast(&heap);
}

// Fixes the policy. False: no memory may serve.
bool choose(PlacedRequest* r) {
  if (!ensure_started()) return false;
  g_policy_is_fixed.store(true, std::memory_order_relaxed);
  const int policy = g_policy.load(std::memory_order_relaxed);
  HeapId fast;
  if (!nearest_fast(&fast)) {
    r->from = {policy == HBW_POLICY_INTERLEAVE ? g_process.interleaved : nearest_heap(), neighbours()};
    return policy == HBW_POLICY_PREFERRED || policy == HBW_POLICY_INTERLEAVE;
  }
  switch (policy) {
    case HBW_POLICY_BIND:
      r->from = {fast, Help::kNobody};
      r->proven = true;
      break;
    case HBW_POLICY_BIND_ALL: r->from = {fast, Help::kFast}; break;
    case HBW_POLICY_INTERLEAVE:
      // Its own heap only where there are several nodes to spread over.
      r->from = {g_process.interleaved_fast, Help::kFast};
      if (g_process.interleaved_fast == g_process.interleaved) r->from.heap = fast;
      break;
    default: r->from = {fast, Help::kBandwidth};
  }
  return true;
}

void* fail() {
  errno = ENOMEM;
  return nullptr;
}

void* allocate_fast(std::size_t size, std::size_t alignment, bool zero) {
  PlacedRequest r;
  r.size = size;
  r.alignment = alignment;
  r.zero = zero;
  return choose(&r) ? allocate_placed(r) : fail();
}

bool binds() {
  const int policy = g_policy.load(std::memory_order_relaxed);
  return policy == HBW_POLICY_BIND || policy == HBW_POLICY_BIND_ALL;
}

}  // namespace
}  // namespace nh

using namespace nh;

NH_EXPORT int numaheap_hbw_check_available() { return has_fast() ? 0 : ENODEV; }

NH_EXPORT void* numaheap_hbw_malloc(size_t size) { return size == 0 ? nullptr : allocate_fast(size, 0, false); }

NH_EXPORT void* numaheap_hbw_calloc(size_t count, size_t size) {
  std::size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) return fail();
  return bytes == 0 ? nullptr : allocate_fast(bytes, 0, true);
}

NH_EXPORT void numaheap_hbw_free(void* p) { release(p); }

NH_EXPORT size_t numaheap_hbw_malloc_usable_size(void* p) { return usable_size(p); }

NH_EXPORT void* numaheap_hbw_realloc(void* p, size_t size) {
  if (p == nullptr) return numaheap_hbw_malloc(size);
  if (size == 0) {
    release(p);
    return nullptr;
  }
  const std::size_t usable = usable_size(p);
  if (size <= usable && size > usable / 2) return p;
  // Placed objects keep their place and are helped out by neighbours, which a binding does not allow.
  if (!binds()) return reallocate(p, size);
  void* moved = allocate_fast(size, 0, false);
  if (moved == nullptr) return size <= usable ? p : nullptr;
  std::memcpy(moved, p, size < usable ? size : usable);
  release(p);
  return moved;
}

NH_EXPORT int numaheap_hbw_posix_memalign(void** p, size_t alignment, size_t size) {
  return numaheap_hbw_posix_memalign_psize(p, alignment, size, HBW_PAGESIZE_4KB);
}

NH_EXPORT int numaheap_hbw_posix_memalign_psize(void** p, size_t alignment, size_t size, int pagesize) {
  if (!is_pow2(alignment) || alignment < sizeof(void*)) return EINVAL;
  std::size_t page = 1;
  switch (pagesize) {
    case HBW_PAGESIZE_4KB: break;
    case HBW_PAGESIZE_2MB: page = kHugeSize; break;
    case HBW_PAGESIZE_1GB_STRICT:
      if (size % GiB != 0) return EINVAL;
      [[fallthrough]];
    case HBW_PAGESIZE_1GB: page = GiB; break;
    default: return EINVAL;
  }
  if (page != 1 && g_policy.load(std::memory_order_relaxed) == HBW_POLICY_INTERLEAVE) return EINVAL;
  void* got = nullptr;
  const int saved = errno;
  if (size != 0) got = allocate_fast(size, alignment < page ? page : alignment, false);
  errno = saved;
  if (size != 0 && got == nullptr) return ENOMEM;
  *p = got;
  return 0;
}

NH_EXPORT int numaheap_hbw_get_policy() { return g_policy.load(std::memory_order_relaxed); }

NH_EXPORT int numaheap_hbw_set_policy(int policy) {
  if (policy < HBW_POLICY_BIND || policy > HBW_POLICY_BIND_ALL) return EINVAL;
  if (g_policy_is_fixed.exchange(true, std::memory_order_relaxed)) return EPERM;
  g_policy.store(policy, std::memory_order_relaxed);
  return 0;
}

NH_EXPORT int numaheap_hbw_verify_memory_region(void* p, size_t size, int flags) {
  if (p == nullptr || size == 0 || (flags & ~HBW_TOUCH_PAGES) != 0) return EINVAL;
  if (!ensure_started()) return EFAULT;
  const std::uintptr_t end = address(p) + size;
  if ((flags & HBW_TOUCH_PAGES) != 0) {
    for (std::uintptr_t at = address(p); at < end; at = align_down(at, kOsPageSize) + kOsPageSize) {
      auto* byte = reinterpret_cast<volatile char*>(at);
      *byte = *byte;
    }
  }
  Survey pages;
  if (survey(p, size, &pages) != 0) return EFAULT;
  std::uint64_t fast = 0;
  for (unsigned h = 0; h < g_process.topology.heap_count(); h++) fast += is_fast(HeapId(h)) ? pages.on_heap[h] : 0;
  return pages.untouched == 0 && fast == pages.present() ? 0 : -1;
}
