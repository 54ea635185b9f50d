// Looks at the rseq offset in a constructor of the highest priority, from inside the module that holds it.
#include "os/rseq.h"

namespace {

std::ptrdiff_t early_offset;
int early_cpu;

__attribute__((constructor(101))) void look_early() {
  early_offset = nh::g_rseq_offset;
  early_cpu = nh::rseq_current_cpu();
}

}  // namespace

// 0 when all is as rseq.h promises, otherwise the number of the promise that is broken.
extern "C" __attribute__((visibility("default"))) int probe_rseq() {
  if (early_offset == 0) return 1;
  if (early_cpu != nh::kRseqUninitialized) return 2;
  // Offsets of the initial TLS block lie below the thread pointer on x86-64; a code address would not.
  if (early_offset > 0 || early_offset < -(1 << 20)) return 3;
  const nh::RseqMode mode = nh::rseq_init();
  if (mode == nh::RseqMode::kOff) return nh::rseq_current_cpu() < 0 && nh::g_rseq_offset == early_offset ? 0 : 4;
  if (mode == nh::RseqMode::kOwn && nh::g_rseq_offset != early_offset) return 5;
  return nh::rseq_current_cpu() >= 0 ? 0 : 6;
}
