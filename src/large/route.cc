#include "large/route.h"

namespace nh {

constinit LargeRoute g_large_route;

}  // namespace nh
