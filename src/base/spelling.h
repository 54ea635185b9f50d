// Which word a misspelt one was meant to be.
#pragma once

#include <cstddef>
#include <string_view>

namespace nh {

inline constexpr std::size_t kNotAlike = ~std::size_t{0};

// How many letters have to be inserted, deleted, replaced or swapped with their neighbour to make the one of the other,
// case ignored (optimal string alignment). kNotAlike where that is more than a third of the longer one, which nobody
// would take for a slip, or where one has more than 31 letters.
std::size_t misspelling(std::string_view written, std::string_view meant);

}  // namespace nh
