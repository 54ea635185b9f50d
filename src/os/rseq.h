// Restartable sequences: who has registered the per-thread area with the kernel, and where it lies. The critical
// sections themselves belong to src/cache/.
//
// The kernel knows one area (struct rseq) per thread and writes the CPU's number into it whenever the thread returns to
// user mode on another CPU. glibc 2.35 and later register an area for every thread; where it does not (older glibc,
// another libc, GLIBC_TUNABLES=glibc.pthread.rseq=0) we register one of our own, thread by thread.
//
// Nothing here allocates; errno is kept.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/units.h"

namespace nh {

enum class RseqMode : std::uint8_t {
  kGlibc,  // libc's registration; it covers every thread from its first instruction of ours on
  kOwn,    // ours; each thread registers in rseq_register_thread()
  kOff,    // no rseq here (old kernel, valgrind, gVisor, seccomp): cpu_id reads as -1 for ever
};

// The word that must stand before every abort handler, as given to the kernel at registration. glibc uses the same.
inline constexpr std::uint32_t kRseqSignature = 0x53053053;

// Offsets within the area, as the kernel defines them, for the assembly of the fast path.
inline constexpr std::size_t kRseqCpuIdStart = 0;
inline constexpr std::size_t kRseqCpuId = 4;
inline constexpr std::size_t kRseqCriticalSection = 8;

// cpu_id of a thread without registration.
inline constexpr int kRseqUninitialized = -1;
inline constexpr int kRseqRegistrationFailed = -2;

// Where the calling thread's area lies, counted from the thread pointer (%fs:0). Right at any time after the library is
// relocated, before every constructor: it starts as the offset of our own area, whose cpu_id is -1 until that area is
// registered, and rseq_init() replaces it by glibc's. The readable name is for assembly.
extern std::ptrdiff_t g_rseq_offset __asm__("nh_rseq_offset") __attribute__((visibility("hidden")));

// Finds out the mode and registers the calling thread. To be called once, while the process has one thread; a fork
// child inherits mode and registration. own_only: a registration of libc's is not used. Then the mode is kOff where
// there is one, since the kernel takes no second area and libc's cannot be taken away from it.
RseqMode rseq_init(bool own_only = false);
// Whether libc has registered the calling thread. GLIBC_TUNABLES=glibc.pthread.rseq=0 keeps glibc from it, if the
// process is started with that.
bool rseq_registered_by_libc();
// What rseq_init() found; kOff before.
RseqMode rseq_mode();

// Makes sure that the calling thread is registered. false where that is impossible; then its cpu_id stays negative.
// Cheap when there is nothing to do: two loads and no system call, also after a refusal.
bool rseq_register_thread();

// cpu_id of the calling thread's area: its CPU, or -1 or -2 where it is not registered.
int rseq_current_cpu();

// The running CPU asked of the kernel (vdso, some 20 ns): for modes in which rseq_current_cpu() does not know.
// -1 where even that fails.
int current_cpu_slow();

// One past the highest CPU number that the kernel may ever write into an area: what tables indexed by cpu_id must
// cover, whatever /sys says (it may be missing in a container, or describe another machine). A multiple of 64.
unsigned cpu_number_limit();

// Interrupting the critical sections of other CPUs. Both return 0 or an errno value: ENOSYS, EINVAL or EPERM where the
// kernel (before 5.10) or a sandbox does not offer it, EPERM from membarrier_rseq() where this process is not
// registered. Registering is cheap while the process is single-threaded and takes milliseconds later on; fork
// children inherit it.
int membarrier_rseq_register();
// After it has returned, every rseq critical section that ran on that CPU before has been aborted or has ended, and
// sees what the caller wrote before. Invalid CPU: the same for all CPUs.
int membarrier_rseq(CpuId cpu);

}  // namespace nh
