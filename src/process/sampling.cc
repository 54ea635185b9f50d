#include "process/sampling.h"

#include <atomic>
#include <bit>
#include <cerrno>

#include <execinfo.h>
#include <sys/auxv.h>

#include "base/build.h"
#include "base/lock.h"
#include "cache/cpu_caches.h"
#include "os/os.h"
#include "os/random.h"

extern "C" const char __ehdr_start [[gnu::visibility("hidden")]], etext [[gnu::visibility("hidden")]];

namespace nh {

constinit std::uint64_t g_sample_interval = 0;
constinit Sites g_sites;

namespace {

struct Thread {
  std::uint64_t interval;  // that `left` was drawn for; 0: none was
  std::int64_t left;       // bytes until the next sample
  std::uint64_t random;
  bool looking;
};
__thread Thread t_thread __attribute__((tls_model("initial-exec")));

Lock g_lock{LockRank::kInit};

// Marsaglia's xorshift64*, good enough to draw distances.
std::uint64_t next_random(std::uint64_t* state) {
  if (*state == 0) *state = random_word() ^ reinterpret_cast<std::uintptr_t>(state);
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return *state * 0x2545f4914f6cdd1du;
}

std::int64_t draw_distance(Thread& t) {
  const double u = (static_cast<double>(next_random(&t.random) >> 11) + 1) * 0x1p-53;  // (0, 1]
  return static_cast<std::int64_t>(-natural_log(u) * static_cast<double>(t.interval)) + 1;
}

bool in_our_file(const void* p) {
  return p >= static_cast<const void*>(&__ehdr_start) && p < static_cast<const void*>(&etext);
}

// Linked into the program: then its code cannot be told from ours by the address, and readers go by the names.
bool is_the_program() {
  static std::atomic<int> known{-1};
  int answer = known.load(std::memory_order_relaxed);
  if (answer < 0) {
    answer = in_our_file(reinterpret_cast<const void*>(::getauxval(AT_PHDR)));
    known.store(answer, std::memory_order_relaxed);
  }
  return answer != 0;
}

}  // namespace

// libm would be a library more.
double natural_log(double x) {
  constexpr double kLn2 = 0.693147180559945309;
  const auto bits = std::bit_cast<std::uint64_t>(x);
  const int exponent = static_cast<int>(bits >> 52) - 1023;
  const double m = std::bit_cast<double>((bits & ((std::uint64_t{1} << 52) - 1)) | (std::uint64_t{1023} << 52));
  const double s = (m - 1) / (m + 1), q = s * s;  // ln m = 2 artanh s
  const double series = 1 + q * (1.0 / 3 + q * (1.0 / 5 + q * (1.0 / 7 + q * (1.0 / 9 + q / 11))));
  return exponent * kLn2 + 2 * s * series;
}

double one_minus_exp(double x) {
  if (x > 40) return 1;
  if (x < 1e-4) return x * (1 - x / 2);
  const double y = -x / 1024;
  double e = 1 + y * (1 + y / 2 * (1 + y / 3 * (1 + y / 4)));
  for (int i = 0; i < 10; i++) e *= e;
  return 1 - e;
}

bool draws_sample(std::size_t size) {
  Thread& t = t_thread;
  const std::uint64_t interval = __atomic_load_n(&g_sample_interval, __ATOMIC_RELAXED);
  if (t.looking || interval == 0) return false;
  if (t.interval != interval) {
    t.interval = interval;
    t.left = draw_distance(t);
  }
  if (size < static_cast<std::size_t>(t.left)) {
    t.left -= static_cast<std::int64_t>(size);
    return false;
  }
  t.left = draw_distance(t);  // without memory: it may begin anywhere
  return true;
}

Estimate estimate_of(std::size_t size) {
  const double interval = static_cast<double>(__atomic_load_n(&g_sample_interval, __ATOMIC_RELAXED));
  const double bytes = static_cast<double>(size == 0 ? 1 : size);
  const double objects = interval == 0 ? 1 : 1 / one_minus_exp(bytes / interval);
  return {static_cast<std::uint64_t>(objects * kObjectUnit), static_cast<std::uint64_t>(objects * bytes)};
}

Site* calling_site() {
  Thread& t = t_thread;
  if (t.looking) return nullptr;
  t.looking = true;
  constexpr int kOurs = 3;  // this function, sample() and who calls that
  constexpr int kOwn = 8;  // more than malloc is ever deep in here
  void* frames[kMaxFrames + kOwn];
  const int all = ::backtrace(frames, kMaxFrames + kOwn);
  int first = all > kOurs ? kOurs : 0;
  while (!is_the_program() && first + 1 < all && in_our_file(frames[first])) first++;
  const void* none = nullptr;
  Site* site = all > 0 ? g_sites.find(frames + first, static_cast<unsigned>(all - first)) : g_sites.find(&none, 1);
  t.looking = false;
  return site;
}

int start_sampling(std::size_t interval) {
  if (kTrustSizes) return ENOTSUP;
  if (!g_sites.init(linux_os())) return ENOMEM;
  // The unwinder is loaded by its first call, which allocates: not inside malloc.
  void* frame;
  ::backtrace(&frame, 1);
  LockGuard guard(g_lock);
  __atomic_store_n(&g_sample_interval, interval == 0 ? kDefaultSampleInterval : interval, __ATOMIC_RELAXED);
  g_caches.divert_malloc(true);
  return 0;
}

void repair_sampling_after_fork() {
  if (g_lock.held() && !g_lock.held_by_me()) g_lock.reset_after_fork();
}

void stop_sampling() {
  LockGuard guard(g_lock);
  g_caches.divert_malloc(false);
  __atomic_store_n(&g_sample_interval, std::uint64_t{0}, __ATOMIC_RELAXED);
}

}  // namespace nh
