// The threads that give memory back, on a machine with several nodes (which is described to the process): each stays on its
// node, as far as the thread that started it was allowed there.
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/case.h"
#include "pin.h"
#include "scavenger_thread.h"

namespace {

void* wait_for_ever(void*) {
  for (;;) pause();
}

// Memory of the node of CPU `from`, freed by a thread that may run on CPU `to` only. Whether the scavenger may run on each.
void start_from(int from, int to, bool* on_from, bool* on_to) {
  pthread_t company;
  REQUIRE(pthread_create(&company, nullptr, wait_for_ever, nullptr) == 0);
  REQUIRE(run_on(from));
  static void* blocks[128];
  for (void*& p : blocks) p = memset(malloc(1 << 20), 1, 1 << 20);
  REQUIRE(run_on(to));
  for (void* p : blocks) free(p);
  for (int i = 0; i < 1000 && scavenger() == 0; i++) usleep(2000);
  REQUIRE(scavenger() != 0);
  usleep(100000);  // it has a name before it has chosen its CPUs
  cpu_set_t now;
  REQUIRE(sched_getaffinity(scavenger(), sizeof now, &now) == 0);
  *on_from = CPU_ISSET(from, &now);
  *on_to = CPU_ISSET(to, &now);
}

bool has_both_cpus() {
  cpu_set_t allowed;
  REQUIRE(sched_getaffinity(0, sizeof allowed, &allowed) == 0);
  if (CPU_ISSET(0, &allowed) && CPU_ISSET(1, &allowed)) return true;
  fprintf(stderr, "skipped: CPUs 0 and 1 are not both there\n");
  return false;
}

}  // namespace

CASE(a_thread_does_not_go_where_its_maker_may_not_run) {
  if (!has_both_cpus()) return;
  bool on_from, on_to;
  start_from(1, 0, &on_from, &on_to);
  EXPECT(!on_from && on_to);
}

CASE(a_thread_stays_on_its_node) {
  if (!has_both_cpus()) return;
  bool on_from, on_to;
  start_from(1, 1, &on_from, &on_to);
  EXPECT(on_from);
  cpu_set_t now;
  REQUIRE(sched_getaffinity(scavenger(), sizeof now, &now) == 0);
  EXPECT(CPU_COUNT(&now) == 1, "%d CPUs", CPU_COUNT(&now));
}
