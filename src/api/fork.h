// fork(): the heap in the child.
#pragma once

namespace nh {

// From the constructor: installs the atfork handlers.
void init_fork();

}  // namespace nh
