// A CPU that the topology knows nothing of, as one that was offline when the process started: /sys says its node when it is
// first used. The description (see CMakeLists.txt) leaves out all CPUs but CPU 0 of node 2 and CPU 7 of node 5; node 0,
// which is the real one, has no memory in it, and node 5 is nearer to it than node 2.
#include <stdio.h>

#include "pin.h"
#include "placed.h"

CASE(it_belongs_where_sys_says) {
  if (access("/sys/devices/system/cpu/cpu1/node0", F_OK) != 0 || !run_on(1)) {
    printf("skipped: no second CPU on node 0 here\n");
    return;
  }
  EXPECT(api().local_node() == 5, "%d", api().local_node());
  void* p = api().local(100);
  EXPECT(api().node_id(1) == 5 && p != nullptr);
  numaheap_heap_stats stats;
  REQUIRE(api().heap_stats(1, &stats, sizeof stats) == 0);
  EXPECT(stats.node == 5 && stats.live_bytes >= 100, "node %d: %lu bytes", stats.node, stats.live_bytes);
  free(p);
  REQUIRE(run_on(0));
  EXPECT(api().local_node() == 2, "%d", api().local_node());
}
