#include "support/fake_address_space.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <sstream>

namespace nh::test {

void contract_violation(const char* what, const char* why, Address begin, std::size_t bytes) {
  std::fprintf(stderr, "fake OS: contract violation in %s(0x%zx, 0x%zx): %s\n", what, static_cast<std::size_t>(begin),
               bytes, why);
  std::abort();
}

bool FakeMapping::merges_with(const FakeMapping& o) const {
  return !hugetlb() && !o.hugetlb() && state == o.state && no_huge == o.no_huge && want_huge == o.want_huge &&
         policy == o.policy;
}

FakeAddressSpace::FakeAddressSpace(std::vector<FakeNode> nodes) : nodes_(std::move(nodes)), used_(nodes_.size()) {
  for (const FakeNode& n : nodes_) {
    pool_2m_.total.push_back(n.pages_2m);
    pool_1g_.total.push_back(n.pages_1g);
  }
  pool_2m_.free = pool_2m_.total;
  pool_1g_.free = pool_1g_.total;
}

FakeAddressSpace::Pool& FakeAddressSpace::pool_of(std::size_t page_bytes) {
  return page_bytes == GiB ? pool_1g_ : pool_2m_;
}
const FakeAddressSpace::Pool& FakeAddressSpace::pool_of(std::size_t page_bytes) const {
  return page_bytes == GiB ? pool_1g_ : pool_2m_;
}

// ---- mappings --------------------------------------------------------------------------------------------------

const FakeMapping* FakeAddressSpace::mapping_at(Address a) const {
  auto it = mappings_.upper_bound(a);
  if (it == mappings_.begin()) return nullptr;
  --it;
  return a < it->second.end ? &it->second : nullptr;
}

void FakeAddressSpace::require_mapped(const char* what, Address begin, std::size_t bytes) const {
  for (Address a = begin; a < begin + bytes;) {
    const FakeMapping* m = mapping_at(a);
    if (m == nullptr) contract_violation(what, "part of the range is not mapped", begin, bytes);
    a = m->end;
  }
}

void FakeAddressSpace::split_at(const char* what, Address a) {
  auto it = mappings_.upper_bound(a);
  if (it == mappings_.begin()) return;
  --it;
  if (it->first == a || a >= it->second.end) return;
  if (a % it->second.page_bytes != 0) contract_violation(what, "cuts a huge page in two", a, 0);
  FakeMapping upper = it->second;
  it->second.end = a;
  mappings_.emplace(a, upper);
  break_up(a);
}

void FakeAddressSpace::merge_around(Address begin, Address end) {
  auto it = mappings_.lower_bound(begin);
  if (it != mappings_.begin()) --it;
  while (it != mappings_.end() && it->first <= end) {
    const auto next = std::next(it);
    if (next == mappings_.end()) return;
    if (it->second.end == next->first && it->second.merges_with(next->second)) {
      it->second.end = next->second.end;
      mappings_.erase(next);
    } else {
      it = next;
    }
  }
}

void FakeAddressSpace::unmap(const char* what, Address begin, std::size_t bytes) {
  const Address end = begin + bytes;
  split_at(what, begin);
  split_at(what, end);
  drop_pages(begin, end);
  drop_promises(begin, end);
  mappings_.erase(mappings_.lower_bound(begin), mappings_.lower_bound(end));
}

void FakeAddressSpace::map(Address begin, std::size_t bytes, const FakeMapping& kind) {
  unmap("map", begin, bytes);
  FakeMapping m = kind;
  m.end = begin + bytes;
  mappings_.emplace(begin, m);
  merge_around(begin, m.end);
}

void FakeAddressSpace::protect(const char* what, Address begin, std::size_t bytes, PageState state) {
  require_mapped(what, begin, bytes);
  const Address end = begin + bytes;
  split_at(what, begin);
  split_at(what, end);
  for (auto it = mappings_.lower_bound(begin); it != mappings_.end() && it->first < end; ++it) {
    if (it->second.hugetlb()) contract_violation(what, "the range holds hugetlb memory", begin, bytes);
    it->second.state = state;
  }
  merge_around(begin, end);
}

void FakeAddressSpace::advise_thp(Address begin, std::size_t bytes, bool on) {
  require_mapped("advise_thp", begin, bytes);
  const Address end = begin + bytes;
  split_at("advise_thp", begin);
  split_at("advise_thp", end);
  for (auto it = mappings_.lower_bound(begin); it != mappings_.end() && it->first < end; ++it) {
    it->second.want_huge = on;
    it->second.no_huge = !on;
  }
  merge_around(begin, end);
}

int FakeAddressSpace::bind(Address begin, std::size_t bytes, const FakePolicy& policy) {
  require_mapped("bind", begin, bytes);
  const Address end = begin + bytes;
  for (const Address edge : {begin, end}) {
    auto it = mappings_.upper_bound(edge);
    if (it == mappings_.begin()) continue;
    --it;
    if (it->second.hugetlb() && it->first < edge && edge < it->second.end) {
      contract_violation("bind", "part of a hugetlb mapping: the pieces would never merge again", begin, bytes);
    }
  }
  if (policy.mode != BindMode::kDefault && policy.nodes.empty()) return EINVAL;
  bool any = policy.nodes.empty();
  for (NodeId n = policy.nodes.first(); n.valid(); n = policy.nodes.next(NodeId(n.value + 1))) {
    any |= n.value < static_cast<int>(nodes_.size()) && nodes_[static_cast<std::size_t>(n.value)].online;
  }
  if (!any) return EINVAL;
  split_at("bind", begin);
  split_at("bind", end);
  for (auto it = mappings_.lower_bound(begin); it != mappings_.end() && it->first < end; ++it) {
    it->second.policy = policy;
  }
  merge_around(begin, end);
  return 0;
}

void FakeAddressSpace::move(Address from, Address to, std::size_t bytes) {
  const FakeMapping* const source = mapping_at(from);
  if (source == nullptr || source->end < from + bytes) {
    contract_violation("move_mapping", "the source is not one mapping", from, bytes);
  }
  if (from < to + bytes && to < from + bytes) contract_violation("move_mapping", "the ranges overlap", from, bytes);
  require_mapped("move_mapping", to, bytes);
  if (to % source->page_bytes != 0) {
    contract_violation("move_mapping", "the target is not aligned to the huge page", to, bytes);
  }
  split_at("move_mapping", from);
  split_at("move_mapping", from + bytes);
  unmap("move_mapping", to, bytes);

  FakeMapping moved = *mapping_at(from);
  moved.end = to + bytes;
  mappings_.erase(from);
  mappings_.emplace(to, moved);
  const auto first_page = pages_.lower_bound(from);
  const auto last_page = pages_.lower_bound(from + bytes);
  std::map<Address, FakePage> pages(first_page, last_page);
  pages_.erase(first_page, last_page);
  for (const auto& [a, page] : pages) {
    // A THP that is moved to an address of another alignment can be mapped only by base pages.
    const Address target = a - from + to;
    if (target % page.bytes == 0) {
      pages_.emplace(target, page);
    } else {
      for (std::size_t i = 0; i < page.bytes; i += kOsPageSize) {
        pages_.emplace(target + i, FakePage{.bytes = kOsPageSize, .node = page.node});
      }
    }
  }
  const auto first_promise = promises_.lower_bound(from);
  const auto last_promise = promises_.lower_bound(from + bytes);
  const std::map<Address, std::size_t> promises(first_promise, last_promise);
  promises_.erase(first_promise, last_promise);
  for (const auto& [a, size] : promises) promises_.emplace(a - from + to, size);
  merge_around(to, to + bytes);
}

// ---- pages -----------------------------------------------------------------------------------------------------

const FakePage* FakeAddressSpace::page_at(Address a) const {
  auto it = pages_.upper_bound(a);
  if (it == pages_.begin()) return nullptr;
  --it;
  return a < it->first + it->second.bytes ? &it->second : nullptr;
}

void FakeAddressSpace::break_up(Address a) {
  auto it = pages_.upper_bound(a);
  if (it == pages_.begin()) return;
  --it;
  const auto [begin, page] = *it;
  if (begin == a || a >= begin + page.bytes || page.hugetlb) return;
  pages_.erase(it);
  for (std::size_t i = 0; i < page.bytes; i += kOsPageSize) {
    pages_.emplace(begin + i, FakePage{.bytes = kOsPageSize, .node = page.node});
  }
}

void FakeAddressSpace::drop_pages(Address begin, Address end) {
  break_up(begin);
  break_up(end);
  const auto last = pages_.lower_bound(end);
  for (auto it = pages_.lower_bound(begin); it != last; it = pages_.erase(it)) {
    const auto n = static_cast<std::size_t>(it->second.node);
    if (it->second.hugetlb) {
      pool_of(it->second.bytes).free[n]++;
    } else {
      used_[n] -= it->second.bytes;
    }
  }
}

void FakeAddressSpace::drop_promises(Address begin, Address end) {
  const auto last = promises_.lower_bound(end);
  for (auto it = promises_.lower_bound(begin); it != last; it = promises_.erase(it)) pool_of(it->second).promised--;
}

int FakeAddressSpace::promise(Address begin, std::size_t bytes, std::size_t page_bytes) {
  Pool& p = pool_of(page_bytes);
  const std::size_t wanted = bytes / page_bytes;
  if (pool(page_bytes, NodeId()).free < p.promised + wanted) return ENOMEM;
  for (Address a = begin; a < begin + bytes; a += page_bytes) promises_.emplace(a, page_bytes);
  p.promised += wanted;
  return 0;
}

void FakeAddressSpace::discard(const char* what, Address begin, std::size_t bytes) {
  require_mapped(what, begin, bytes);
  for (const Address edge : {begin, begin + bytes}) {
    const FakeMapping* m = mapping_at(edge);
    if (m != nullptr && edge % m->page_bytes != 0) contract_violation(what, "part of a huge page", begin, bytes);
  }
  // A promise that was used is not renewed (the kernel does so since 6.10 only).
  drop_pages(begin, begin + bytes);
}

int FakeAddressSpace::collapse(const char* what, Address begin, std::size_t bytes) {
  if (begin % kHugeSize != 0 || bytes != kHugeSize) contract_violation(what, "not a huge page", begin, bytes);
  const FakeMapping* m = mapping_at(begin);
  if (m == nullptr || m->hugetlb() || m->no_huge || m->end < begin + bytes) return EINVAL;
  std::vector<std::size_t> on(nodes_.size());
  for (Address a = begin; a < begin + bytes; a += kOsPageSize) {
    const FakePage* page = page_at(a);
    if (page == nullptr) contract_violation(what, "not all of it exists", a, bytes);
    on[static_cast<std::size_t>(page->node)]++;
  }
  const int node = static_cast<int>(std::max_element(on.begin(), on.end()) - on.begin());
  if (room_on(node, bytes, false) < bytes) return ENOMEM;
  drop_pages(begin, begin + bytes);
  used_[static_cast<std::size_t>(node)] += bytes;
  pages_.emplace(begin, FakePage{.bytes = bytes, .node = node});
  return 0;
}

std::size_t FakeAddressSpace::room_on(int node, std::size_t bytes, bool hugetlb) const {
  const auto n = static_cast<std::size_t>(node);
  if (!hugetlb) return nodes_[n].memory_bytes > used_[n] ? nodes_[n].memory_bytes - used_[n] : 0;
  return pool_of(bytes).free[n] * bytes;
}

int FakeAddressSpace::choose_node(const FakePolicy& policy, Address a, std::size_t bytes, NodeId local,
                                  bool hugetlb) const {
  const int count = static_cast<int>(nodes_.size());
  int first = local.valid() ? local.value : 0;
  if (policy.mode == BindMode::kPreferred) first = policy.nodes.first().value;
  if (policy.mode == BindMode::kInterleave) {
    auto turn = (a / bytes) % policy.nodes.count();
    NodeId n = policy.nodes.first();
    for (; turn > 0; turn--) n = policy.nodes.next(NodeId(n.value + 1));
    first = n.value;
  }
  if (policy.mode == BindMode::kWeighted) {
    std::size_t sum = 0;
    for (int n = 0; n < count; n++) sum += policy.nodes.has(NodeId(n)) ? nodes_[static_cast<std::size_t>(n)].weight : 0;
    std::size_t turn = (a / bytes) % sum;
    for (first = 0;; first++) {
      if (!policy.nodes.has(NodeId(first))) continue;
      const std::size_t weight = nodes_[static_cast<std::size_t>(first)].weight;
      if (turn < weight) break;
      turn -= weight;
    }
  }
  const auto online = [&](int n) { return nodes_[static_cast<std::size_t>(n)].online; };
  bool bound = false;
  for (int n = 0; n < count; n++) bound |= policy.mode == BindMode::kBind && policy.nodes.has(NodeId(n)) && online(n);
  for (int i = 0; i < count; i++) {
    const int n = (first + i) % count;
    if (!online(n) || (bound && !policy.nodes.has(NodeId(n)))) continue;
    if (room_on(n, bytes, hugetlb) >= bytes) return n;
  }
  return -1;
}

int FakeAddressSpace::create_page(Address a, const FakeMapping& mapping, Address limit, NodeId local,
                                  std::size_t* bytes) {
  if (mapping.hugetlb()) {
    *bytes = mapping.page_bytes;
    const Address page = a / *bytes * *bytes;
    Pool& p = pool_of(*bytes);
    const bool promised = promises_.contains(page);
    // Without a promise only pages that nobody was promised are to be had. A promise does not know of nodes, so a
    // bound mapping can fail in spite of it: in the kernel that is the SIGBUS that populate() turns into EFAULT.
    if (!promised && pool(*bytes, NodeId()).free <= p.promised) return EFAULT;
    const int node = choose_node(mapping.policy, page, *bytes, local, true);
    if (node < 0) return EFAULT;
    if (promised) {
      promises_.erase(page);
      p.promised--;
    }
    p.free[static_cast<std::size_t>(node)]--;
    pages_.emplace(page, FakePage{.bytes = *bytes, .node = node, .hugetlb = true});
    return 0;
  }
  const bool thp = thp_mode_ == 2 ? !mapping.no_huge : thp_mode_ == 1 && mapping.want_huge;
  if (thp && a % kHugeSize == 0 && a + kHugeSize <= limit) {
    const auto next = pages_.lower_bound(a);
    const int node = choose_node(mapping.policy, a, kHugeSize, local, false);
    if (node >= 0 && (next == pages_.end() || next->first >= a + kHugeSize)) {
      *bytes = kHugeSize;
      used_[static_cast<std::size_t>(node)] += kHugeSize;
      pages_.emplace(a, FakePage{.bytes = kHugeSize, .node = node});
      return 0;
    }
  }
  *bytes = kOsPageSize;
  const int node = choose_node(mapping.policy, a, kOsPageSize, local, false);
  if (node < 0) return ENOMEM;
  used_[static_cast<std::size_t>(node)] += kOsPageSize;
  pages_.emplace(a, FakePage{.bytes = kOsPageSize, .node = node});
  return 0;
}

// ---- totals ----------------------------------------------------------------------------------------------------

HugePool FakeAddressSpace::pool(std::size_t page_bytes, NodeId node) const {
  const Pool& p = pool_of(page_bytes);
  HugePool out;
  if (node.valid()) {
    out.total = p.total[static_cast<std::size_t>(node.value)];
    out.free = p.free[static_cast<std::size_t>(node.value)];
    return out;
  }
  for (std::size_t i = 0; i < nodes_.size(); i++) {
    out.total += p.total[i];
    out.free += p.free[i];
  }
  out.reserved = p.promised;
  return out;
}

void FakeAddressSpace::set_pool_pages(NodeId node, std::size_t page_bytes, std::size_t pages) {
  Pool& p = pool_of(page_bytes);
  const auto n = static_cast<std::size_t>(node.value);
  const std::size_t used = p.total[n] - p.free[n];
  // As the kernel does: pages in use or promised stay.
  std::size_t floor = used;
  const std::size_t others_free = pool(page_bytes, NodeId()).free - p.free[n];
  if (p.promised > others_free) floor += p.promised - others_free;
  p.total[n] = pages < floor ? floor : pages;
  p.free[n] = p.total[n] - used;
}

std::size_t FakeAddressSpace::bytes_on(NodeId node, bool hugetlb) const {
  std::size_t sum = 0;
  for (const auto& [a, page] : pages_) {
    if (page.node == node.value && page.hugetlb == hugetlb) sum += page.bytes;
  }
  return sum;
}

std::size_t FakeAddressSpace::bytes_in_state(PageState state) const {
  std::size_t sum = 0;
  for (const auto& [begin, m] : mappings_) {
    if (m.state == state) sum += m.end - begin;
  }
  return sum;
}

std::string FakeAddressSpace::check() const {
  std::ostringstream wrong;
  Address last_end = 0;
  for (const auto& [begin, m] : mappings_) {
    if (begin < last_end || m.end <= begin) wrong << "mapping at " << std::hex << begin << " overlaps or is empty\n";
    if (begin % m.page_bytes != 0 || m.end % m.page_bytes != 0) wrong << "mapping at " << begin << " is misaligned\n";
    last_end = m.end;
  }
  std::vector<std::size_t> used(nodes_.size());
  std::vector<std::size_t> used_2m(nodes_.size());
  std::vector<std::size_t> used_1g(nodes_.size());
  last_end = 0;
  for (const auto& [begin, page] : pages_) {
    const FakeMapping* const m = mapping_at(begin);
    if (begin < last_end || begin % page.bytes != 0) wrong << "page at " << std::hex << begin << " counted twice\n";
    last_end = begin + page.bytes;
    if (m == nullptr || m->end < last_end) {
      wrong << "page at " << std::hex << begin << " outside of its mapping\n";
    } else if (page.hugetlb != m->hugetlb() || (page.hugetlb && page.bytes != m->page_bytes)) {
      wrong << "page at " << std::hex << begin << " of the wrong kind\n";
    }
    const auto n = static_cast<std::size_t>(page.node);
    if (!page.hugetlb) {
      used[n] += page.bytes;
    } else {
      (page.bytes == GiB ? used_1g : used_2m)[n]++;
    }
  }
  std::size_t promised_2m = 0;
  std::size_t promised_1g = 0;
  for (const auto& [begin, bytes] : promises_) {
    (bytes == GiB ? promised_1g : promised_2m)++;
    if (pages_.contains(begin)) wrong << "promise at " << std::hex << begin << " was kept and is still counted\n";
    if (mapping_at(begin) == nullptr) wrong << "promise at " << std::hex << begin << " outside of every mapping\n";
  }
  for (std::size_t n = 0; n < nodes_.size(); n++) {
    if (used[n] != used_[n]) wrong << "memory of node " << n << " does not add up\n";
    if (pool_2m_.free[n] + used_2m[n] != pool_2m_.total[n]) wrong << "2 MiB pool of node " << n << " does not add up\n";
    if (pool_1g_.free[n] + used_1g[n] != pool_1g_.total[n]) wrong << "1 GiB pool of node " << n << " does not add up\n";
  }
  if (promised_2m != pool_2m_.promised || promised_1g != pool_1g_.promised) wrong << "promises do not add up\n";
  if (pool_2m_.promised > pool(kHugeSize, NodeId()).free) wrong << "more 2 MiB pages promised than free\n";
  if (pool_1g_.promised > pool(GiB, NodeId()).free) wrong << "more 1 GiB pages promised than free\n";
  return wrong.str();
}

}  // namespace nh::test
