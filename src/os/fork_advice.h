// What a mapping is to be to children, to core dumps and to libraries that watch mappings. 0 or an errno value.
#pragma once

#include <cstddef>

namespace nh {

// A child of fork gets a hole in its place (MADV_DONTFORK). hugetlb memory: whole huge pages.
int keep_from_children(void* p, std::size_t bytes);
int keep_from_dumps(void* p, std::size_t bytes);
// In a child: closes a hole, so that no mapping of the program lands there. EEXIST: part of it is mapped.
int close_hole(void* p, std::size_t bytes);
// Memory that is zero in every child of fork, however it was made, but not in one that shares all memory (MADV_WIPEONFORK,
// Linux 4.14). One page; nullptr where refused.
void* map_wiped_page();
// Tells libraries that intercept mremap (RDMA) that other pages lie here now; changes nothing.
void tell_of_new_pages(void* p, std::size_t bytes);

}  // namespace nh
