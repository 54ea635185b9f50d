// Lists of numbers as the kernel writes them into /sys and /proc: "0-3,8\n", "" for none.
#pragma once

#include <string_view>

#include "base/format.h"
#include "base/node_set.h"
#include "numa/cpu_set.h"

namespace nh {

// Fills *set with the members of the list; white space at both ends does not matter. Members past the capacity of the
// set are left out: a machine larger than we can describe still runs, on the part we can. Text that
// is no list (garbage, "3-1", "0,", a number of more than 64 bits) returns false and an empty set.
bool parse_cpu_list(std::string_view text, CpuSet* set);
// The same, and whether members were left out.
bool parse_cpu_list(std::string_view text, CpuSet* set, bool* left_out);
bool parse_node_id_list(std::string_view text, NodeSet* set);

// The reverse, without newline; writes nothing for an empty set.
void write_cpu_list(TextWriter& out, const CpuSet& set);

}  // namespace nh
