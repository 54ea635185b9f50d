// A five-point stencil with OpenMP. Each thread writes first to the rows that it works on, so they lie on its node; the
// report at the end says where they lie and how many of them are where they should be.
//
//   OMP_PROC_BIND=spread OMP_PLACES=cores ./stencil [ROWS] [STEPS]
#include <numaheap/numaheap.h>
#include <stdio.h>
#include <stdlib.h>

enum { kMaxNodes = 1024 };

// One step on the inner rows. The schedule is static here and where the rows are first written to: who works on a row is
// who has it.
static double step(const double* from, double* to, long rows, long columns) {
  double change = 0;
#pragma omp parallel for schedule(static) reduction(+ : change)
  for (long i = 1; i < rows - 1; i++) {
    const double* row = from + i * columns;
    for (long j = 1; j < columns - 1; j++) {
      const double next = 0.25 * (row[j - columns] + row[j + columns] + row[j - 1] + row[j + 1]);
      change += next > row[j] ? next - row[j] : row[j] - next;
      to[i * columns + j] = next;
    }
  }
  return change;
}

static void first_write(double* field, long rows, long columns) {
#pragma omp parallel for schedule(static)
  for (long i = 1; i < rows - 1; i++) {
    for (long j = 0; j < columns; j++) field[i * columns + j] = 0;
  }
  for (long j = 0; j < columns; j++) {
    field[j] = 1;  // the hot edge
    field[(rows - 1) * columns + j] = 0;
  }
}

// Rows on each node, and how many lie on the node of the thread that works on them.
static void report(const double* field, long rows, long columns) {
  static long on_node[kMaxNodes];
  long local = 0, known = 0;
#pragma omp parallel for schedule(static) reduction(+ : local, known)
  for (long i = 1; i < rows - 1; i++) {
    const int node = numaheap_node_of(field + i * columns);
    if (node < 0 || node >= kMaxNodes) continue;  // the kernel does not tell, as in most containers
    known++;
    local += node == numaheap_local_node();
#pragma omp atomic
    on_node[node]++;
  }
  for (int node = 0; node < kMaxNodes; node++) {
    if (on_node[node] > 0) printf("node %d: %ld rows\n", node, on_node[node]);
  }
  if (known > 0) printf("%.1f %% of them local\n", 100.0 * (double)local / (double)known);

  // The whole heap: sizes, kinds of pages, what had to be done without.
  char text[8192];
  if (numaheap_stats_text(text, sizeof text) > 0) fputs(text, stdout);
}

int main(int argc, char** argv) {
  const long rows = argc > 1 ? atol(argv[1]) : 1000;
  const long steps = argc > 2 ? atol(argv[2]) : 50;
  const long columns = rows;
  if (rows < 3 || steps < 1) {
    fprintf(stderr, "usage: %s [ROWS] [STEPS]\n", argv[0]);
    return 2;
  }
  const size_t bytes = (size_t)rows * (size_t)columns * sizeof(double);
  double* now = numaheap_malloc_first_touch(bytes);
  double* next = numaheap_malloc_first_touch(bytes);
  if (now == NULL || next == NULL) {
    perror("numaheap_malloc_first_touch");
    return 1;
  }
  first_write(now, rows, columns);
  first_write(next, rows, columns);

  double change = 0;
  for (long s = 0; s < steps; s++) {
    change = step(now, next, rows, columns);
    double* const swap = now;
    now = next;
    next = swap;
  }
  printf("change of the last step %.6f\n", change);
  report(now, rows, columns);
  numaheap_free(now);
  numaheap_free(next);
  return 0;
}
