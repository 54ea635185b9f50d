// The themes of bench/compare: each function adds its rows, and what they do is told there.
#pragma once

#include "common/workload.h"

namespace bench {

void add_pairs(Table& table);
void add_aligned(Table& table);
void add_batches(Table& table);
void add_churn(Table& table);
void add_exchange(Table& table);
void add_threads(Table& table);
void add_growth(Table& table);
void add_large(Table& table);
void add_reallocs(Table& table);
void add_containers(Table& table);
void add_symbolic(Table& table);
void add_graphs(Table& table);

}  // namespace bench
