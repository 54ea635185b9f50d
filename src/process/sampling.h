// Which objects are sampled, and what a sample stands for.
//
// While sampling is on, malloc's fast path finds empty lists on every CPU (CpuCaches::divert_malloc()), so that each request
// comes to a slow path, which counts its bytes. The distances between samples are drawn from an exponential distribution,
// thread by thread, which makes every byte that is allocated as likely as any other to be where a sample is taken. An object
// of s bytes is then sampled with probability 1 - exp(-s / interval), and stands for the inverse of that many.
//
// A sampled object is a large one, with a span of its own whatever its size, that no CPU keeps: its state in the
// descriptor, SpanUse::kSampled, leads free() to large/sampled.h, and its descriptor says what it stands for. While sampling
// is off the fast paths are what they are without all this.
//
// Source: the sampling of gperftools' and Go's heap profiles.
#pragma once

#include <cstddef>
#include <cstdint>

#include "process/sites.h"

namespace nh {

inline constexpr std::size_t kDefaultSampleInterval = 512 * 1024;

extern std::uint64_t g_sample_interval [[gnu::visibility("hidden")]];  // bytes; 0: off
inline bool sampling() { return __atomic_load_n(&g_sample_interval, __ATOMIC_RELAXED) != 0; }

// Starts sampling, or changes the interval. 0, or ENOMEM; ENOTSUP: this library was built to trust sizes, and could not
// tell a sampled object by operator delete's size.
int start_sampling(std::size_t interval);
// Objects that were sampled stay what they are.
void stop_sampling();
// In a fork child: another thread may have been doing either.
void repair_sampling_after_fork();

// Whether an object of this size, which the calling thread is about to allocate, is to be sampled.
bool draws_sample(std::size_t size);
// What it then stands for.
Estimate estimate_of(std::size_t size);

// The place of the calling code, without this library's own frames. nullptr: the calling thread is looking already (the
// unwinder allocates). Loads nothing and takes no lock of ours.
Site* calling_site();

extern Sites g_sites;

// For tests: the natural logarithm of x in (0, 1], and 1 - exp(-x).
double natural_log(double x);
double one_minus_exp(double x);

}  // namespace nh
