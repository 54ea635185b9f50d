#include "process/sites.h"

#include "base/units.h"

namespace nh {
namespace {

constexpr unsigned kMostProbes = 64;

std::uint64_t hash_of(const void* const* frames, unsigned depth) {
  std::uint64_t h = 0x9e3779b97f4a7c15u;
  for (unsigned i = 0; i < depth; i++) {
    h = (h ^ reinterpret_cast<std::uintptr_t>(frames[i])) * 0xff51afd7ed558ccdu;
    h ^= h >> 32;
  }
  return h == 0 ? 1 : h;
}

bool same(const Site& site, const void* const* frames, unsigned depth) {
  if (site.depth.load(std::memory_order_acquire) != depth) return false;
  for (unsigned i = 0; i < depth; i++) {
    if (site.frame[i] != frames[i]) return false;
  }
  return true;
}

}  // namespace

void Site::allocated(const Estimate& e) {
  samples.fetch_add(1, std::memory_order_relaxed);
  objects.fetch_add(e.objects, std::memory_order_relaxed);
  bytes.fetch_add(e.bytes, std::memory_order_relaxed);
}

void Site::freed(const Estimate& e) {
  freed_objects.fetch_add(e.objects, std::memory_order_relaxed);
  freed_bytes.fetch_add(e.bytes, std::memory_order_relaxed);
}

Estimate Site::all() const {
  return {objects.load(std::memory_order_relaxed), bytes.load(std::memory_order_relaxed)};
}

// Freed first: an object that comes and goes in between then counts as living, and no difference is below zero.
Estimate Site::live() const {
  const std::uint64_t gone_objects = freed_objects.load(std::memory_order_acquire);
  const std::uint64_t gone_bytes = freed_bytes.load(std::memory_order_acquire);
  const Estimate e = all();
  return {e.objects > gone_objects ? e.objects - gone_objects : 0, e.bytes > gone_bytes ? e.bytes - gone_bytes : 0};
}

bool Sites::init(const OsOps& os) {
  if (ready()) return true;
  const std::size_t bytes = sizeof(Site) * kMost;
  void* memory = os.reserve(bytes, kOsPageSize);
  if (memory == nullptr) return false;
  if (os.make_writable(memory, bytes) != 0) {
    os.unmap(memory, bytes);
    return false;
  }
  os.advise_thp(memory, bytes, false);
  auto* sites = static_cast<Site*>(memory);
  sites[0].hash.store(1, std::memory_order_relaxed);
  sites[0].depth.store(1, std::memory_order_relaxed);  // of all that find no place
  Site* expected = nullptr;
  if (!sites_.compare_exchange_strong(expected, sites, std::memory_order_acq_rel)) os.unmap(memory, bytes);
  return true;
}

Site* Sites::find(const void* const* frames, unsigned depth) {
  Site* const sites = sites_.load(std::memory_order_acquire);
  if (depth > kMaxFrames) depth = kMaxFrames;
  const std::uint64_t hash = hash_of(frames, depth);
  for (unsigned probe = 0; probe < kMostProbes; probe++) {
    Site& site = sites[1 + (hash + probe) % (kMost - 1)];
    std::uint64_t there = site.hash.load(std::memory_order_acquire);
    if (there == 0 && site.hash.compare_exchange_strong(there, hash, std::memory_order_acq_rel)) {
      // Ours now: whoever meets it before the depth is set looks further.
      for (unsigned i = 0; i < depth; i++) site.frame[i] = frames[i];
      site.depth.store(depth, std::memory_order_release);
      return &site;
    }
    if (there == hash && same(site, frames, depth)) return &site;
  }
  return &sites[0];
}

}  // namespace nh
