// Placement in a process that is bound to node 2 of the machine that placement_described.cc knows.
#include <errno.h>

#include "placed.h"

CASE(only_the_nodes_of_the_binding_may_be_asked_for) {
  REQUIRE(api().node_count() == 1, "%u", api().node_count());
  EXPECT(api().node_id(0) == 2 && api().local_node() == 2);
  errno = 0;
  EXPECT(api().on_node(64, 0) == nullptr && errno == EPERM, "errno %d", errno);
  errno = 0;
  EXPECT(api().on_node_strict(size_t{8} << 20, 5) == nullptr && errno == EPERM, "errno %d", errno);
  void* p = api().on_node(64, 2);
  EXPECT(p != nullptr);
  free(p);
  p = api().interleaved(100000);
  EXPECT(p != nullptr);
  free(p);
}
