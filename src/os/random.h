// Random numbers before libc is ready.
#pragma once

#include <cstdint>

namespace nh {

// From the kernel's generator. Where that is not to be had (early in the boot, a sandbox) from the bytes that the kernel
// gives a program at its start: those are secret, but libc uses them, too, and they are the same for the life of the
// process, so that every call returns the same word. Never waits; errno is kept.
std::uint64_t random_word();

}  // namespace nh
