// An array on a node of one's choice, and the kernel's word that it is there.
//
//   ./on_node [NODE]    without NODE: the last one that this process may use
#include <numaheap/numaheap.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char** argv) {
  const unsigned nodes = numaheap_node_count();
  if (nodes == 0) {
    fputs("no memory for a heap\n", stderr);
    return 1;
  }
  const int node = argc > 1 ? atoi(argv[1]) : numaheap_node_id(nodes - 1);

  // Strict: this node or none. Without the flag the nearest node with free memory would help out.
  const numaheap_placement there = {NUMAHEAP_ON_NODE, node, NUMAHEAP_ALLOC_STRICT | NUMAHEAP_ALLOC_ZERO};
  const size_t count = 4 * 1000 * 1000;
  double* field = numaheap_alloc(count * sizeof *field, 64, &there);
  if (field == NULL) {
    perror("numaheap_alloc");  // EINVAL: no such node; EPERM: not for this process; ENOMEM: the node is full
    return 1;
  }
  for (size_t i = 0; i < count; i++) field[i] += (double)i;

  switch (numaheap_verify(field, count * sizeof *field, &there)) {
    case 1:
      printf("%zu numbers, all on node %d\n", count, node);
      break;
    case 0:  // the kernel's automatic NUMA balancing moves pages to who uses them, where it is on
      printf("%zu numbers, but not all on node %d\n", count, node);
      break;
    default:
      perror("numaheap_verify");  // the kernel does not tell, as in most containers
  }
  numaheap_free(field);  // free() would do as well
  return 0;
}
