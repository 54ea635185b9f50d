// What the build was told: CMake options that change what code does.
#pragma once

namespace nh {

// operator delete(p, size) goes by the size alone and does not look at the page map.
#ifdef NUMAHEAP_TRUST_SIZES
inline constexpr bool kTrustSizes = true;
#else
inline constexpr bool kTrustSizes = false;
#endif

}  // namespace nh
