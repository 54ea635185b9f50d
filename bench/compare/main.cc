// One program with all rows; README.md lists them.
#include "compare/rows.h"

int main(int argc, char** argv) {
  bench::Table table;
  bench::add_pairs(table);
  bench::add_aligned(table);
  bench::add_batches(table);
  bench::add_churn(table);
  bench::add_exchange(table);
  bench::add_threads(table);
  bench::add_growth(table);
  bench::add_large(table);
  bench::add_reallocs(table);
  bench::add_containers(table);
  bench::add_symbolic(table);
  bench::add_graphs(table);
  return bench::run_program(argc, argv, table);
}
