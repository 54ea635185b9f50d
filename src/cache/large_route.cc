#include "cache/large_route.h"

namespace nh {

constinit LargeRoute g_large_route;

}  // namespace nh
