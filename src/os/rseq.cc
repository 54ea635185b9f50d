// Why an area in thread-local storage may be left registered when its thread ends: the kernel writes to the area only on
// the way back to user mode, and an exiting thread never goes there again. The TLS block (part of the thread's stack)
// is reused or unmapped only after the kernel has cleared the thread's tid, which it does behind that point. glibc
// sets up the TLS block of a reused stack anew, so that the next thread finds cpu_id = -1 and not a stale number.
//
// Why our area is initial-exec TLS: the fast path must reach it by one offset from the thread pointer, and the dynamic
// model would call malloc at a thread's first access.
#include "os/rseq.h"

#include <cerrno>

#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/check.h"
#include "os/linux_calls.h"

// glibc 2.35: offset from the thread pointer, and size, which is 0 where glibc has not registered. Weak, so that the
// library loads on older ones.
extern "C" {
extern const std::ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));
}

namespace nh {

// struct rseq as every kernel since 4.18 takes it: 32 bytes, aligned to 32. Later fields are optional.
struct alignas(32) RseqArea {
  std::uint32_t cpu_id_start;
  std::int32_t cpu_id;
  std::uint64_t critical_section;
  std::uint32_t flags;
  std::uint32_t padding[3];
};
static_assert(sizeof(RseqArea) == 32);
static_assert(offsetof(RseqArea, cpu_id_start) == kRseqCpuIdStart && offsetof(RseqArea, cpu_id) == kRseqCpuId &&
              offsetof(RseqArea, critical_section) == kRseqCriticalSection);

// Named for rseq_offset.cc.
extern __thread RseqArea t_own_area __asm__("nh_rseq_own_area")
    __attribute__((visibility("hidden"), tls_model("initial-exec")));
__thread RseqArea t_own_area = {0, kRseqUninitialized, 0, 0, {}};

namespace {

#ifndef SYS_rseq
#define SYS_rseq 334
#endif

// Numbers of <linux/membarrier.h>, which headers before 5.10 lack.
constexpr int kPrivateExpeditedRseq = 1 << 7;
constexpr int kRegisterPrivateExpeditedRseq = 1 << 8;
constexpr unsigned kFlagCpu = 1;

RseqMode g_mode = RseqMode::kOff;

// The kernel changes the area behind the compiler's back.
volatile RseqArea* area_at(std::ptrdiff_t offset) {
  return reinterpret_cast<volatile RseqArea*>(static_cast<char*>(__builtin_thread_pointer()) + offset);
}

std::ptrdiff_t own_offset() {
  return reinterpret_cast<char*>(&t_own_area) - static_cast<char*>(__builtin_thread_pointer());
}

// Registers our own area for the calling thread. A refusal is remembered in cpu_id, as glibc does.
bool register_own() {
  const linux_os_detail::ErrnoKeeper keep;
  if (::syscall(SYS_rseq, &t_own_area, sizeof(RseqArea), 0, kRseqSignature) == 0) return true;
  // ENOSYS or EPERM: no rseq. EINVAL, EBUSY, EPERM: another library has registered an area of its own for this thread,
  // and there can be only one.
  area_at(own_offset())->cpu_id = kRseqRegistrationFailed;
  return false;
}

}  // namespace

bool rseq_registered_by_libc() {
  return &__rseq_size != nullptr && &__rseq_offset != nullptr && __rseq_size != 0 && area_at(__rseq_offset)->cpu_id >= 0;
}

RseqMode rseq_init(bool own_only) {
  NH_ASSERT(g_rseq_offset == own_offset());
  if (!own_only && rseq_registered_by_libc()) {
    // One aligned store: a thread that reads the old offset finds an unregistered area and takes the slow path.
    __atomic_store_n(&g_rseq_offset, __rseq_offset, __ATOMIC_RELAXED);
    g_mode = RseqMode::kGlibc;
  } else {
    g_mode = register_own() ? RseqMode::kOwn : RseqMode::kOff;
  }
  return g_mode;
}

RseqMode rseq_mode() { return g_mode; }

bool rseq_register_thread() {
  const int cpu = rseq_current_cpu();
  if (cpu >= 0) return true;
  return g_mode == RseqMode::kOwn && cpu == kRseqUninitialized && register_own();
}

int rseq_current_cpu() { return area_at(__atomic_load_n(&g_rseq_offset, __ATOMIC_RELAXED))->cpu_id; }

int current_cpu_slow() {
  const linux_os_detail::ErrnoKeeper keep;
  return ::sched_getcpu();
}

unsigned cpu_number_limit() {
  const linux_os_detail::ErrnoKeeper keep;
  // The system call, unlike libc's function, says how many bytes the kernel's own CPU mask has.
  unsigned long mask[kMaxCpus / 64];
  const long bytes = ::syscall(SYS_sched_getaffinity, 0, sizeof mask, mask);
  return bytes > 0 ? static_cast<unsigned>(bytes) * 8 : kMaxCpus;
}

int membarrier_rseq_register() {
  const linux_os_detail::ErrnoKeeper keep;
  return ::syscall(SYS_membarrier, kRegisterPrivateExpeditedRseq, 0, 0) == 0 ? 0 : errno;
}

int membarrier_rseq(CpuId cpu) {
  const linux_os_detail::ErrnoKeeper keep;
  const unsigned flags = cpu.valid() ? kFlagCpu : 0;
  return ::syscall(SYS_membarrier, kPrivateExpeditedRseq, flags, cpu.valid() ? cpu.value : 0) == 0 ? 0 : errno;
}

}  // namespace nh
