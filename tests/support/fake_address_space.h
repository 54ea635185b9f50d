// A model of an address space with NUMA nodes and hugetlb pools: what is mapped where, which pages exist, on which node
// each lies, and what is left. It allocates no memory for what it models and makes no system call; FakeOs puts real
// memory underneath.
//
// Mappings behave as the kernel's do: neighbours with the same attributes merge, hugetlb ones never. Breaking the
// contract of os.h aborts with a message, since the real kernel would answer with silence or damage.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/node_set.h"
#include "base/units.h"
#include "os/os.h"

namespace nh::test {

using Address = std::uintptr_t;

enum class PageState : std::uint8_t { kUnmapped, kReserved, kReadable, kWritable };

struct FakeNode {
  std::size_t memory_bytes = 4 * GiB;  // for base pages and THP; pools are beside it
  std::size_t pages_2m = 0;            // of the hugetlb pools
  std::size_t pages_1g = 0;
  bool online = true;  // false: mbind to it fails with EINVAL
  unsigned weight = 1;  // for BindMode::kWeighted
};

struct FakePolicy {
  BindMode mode = BindMode::kDefault;
  NodeSet nodes;
  bool operator==(const FakePolicy&) const = default;
};

struct FakeMapping {
  Address end = 0;
  PageState state = PageState::kReserved;
  std::size_t page_bytes = kOsPageSize;  // more than kOsPageSize: hugetlb
  bool no_huge = false;                  // MADV_NOHUGEPAGE
  bool want_huge = false;                // MADV_HUGEPAGE
  HugeSource source = HugeSource::kAnonymous;
  Reservation reservation = Reservation::kNone;
  FakePolicy policy;

  bool hugetlb() const { return page_bytes != kOsPageSize; }
  bool merges_with(const FakeMapping& o) const;
};

// A page that exists. Its address is the key it is kept under.
struct FakePage {
  std::size_t bytes = kOsPageSize;
  int node = 0;
  bool hugetlb = false;
};

class FakeAddressSpace {
 public:
  explicit FakeAddressSpace(std::vector<FakeNode> nodes);

  // All ranges are [begin, begin + bytes); functions that return int follow os.h. `what` names the caller in messages.
  void map(Address begin, std::size_t bytes, const FakeMapping& kind);
  void unmap(const char* what, Address begin, std::size_t bytes);
  void protect(const char* what, Address begin, std::size_t bytes, PageState state);
  void advise_thp(Address begin, std::size_t bytes, bool on);
  int bind(Address begin, std::size_t bytes, const FakePolicy& policy);
  // Sets pages of a pool aside for a mapping with Reservation::kFull; ENOMEM where there are not enough.
  int promise(Address begin, std::size_t bytes, std::size_t page_bytes);
  // local: the node of the thread that faults. on_page is told of every page that has come into being.
  template <typename OnPage>
  int populate(const char* what, Address begin, std::size_t bytes, NodeId local, OnPage on_page);
  void discard(const char* what, Address begin, std::size_t bytes);
  // One huge page of base pages, on the node of most of them. EINVAL: the mapping takes no huge pages; ENOMEM: no room there.
  int collapse(const char* what, Address begin, std::size_t bytes);
  void move(Address from, Address to, std::size_t bytes);

  // Aborts unless every page of the range is mapped.
  void require_mapped(const char* what, Address begin, std::size_t bytes) const;

  const FakeMapping* mapping_at(Address a) const;
  const FakePage* page_at(Address a) const;
  const std::map<Address, FakeMapping>& mappings() const { return mappings_; }
  HugePool pool(std::size_t page_bytes, NodeId node) const;
  void set_pool_pages(NodeId node, std::size_t page_bytes, std::size_t pages);  // as nr_hugepages; free pages only
  // Lowering it below what is in use only makes the node full.
  void set_memory(NodeId n, std::size_t bytes) { node(n).memory_bytes = bytes; }
  FakeNode& node(NodeId n) { return nodes_[static_cast<std::size_t>(n.value)]; }
  std::size_t node_count() const { return nodes_.size(); }
  std::size_t bytes_on(NodeId node, bool hugetlb) const;
  std::size_t bytes_in_state(PageState state) const;
  void set_thp_mode(int mode) { thp_mode_ = mode; }
  int thp_mode() const { return thp_mode_; }

  // Walks over everything; empty when all agrees, otherwise what does not.
  std::string check() const;

 private:
  struct Pool {
    std::vector<std::size_t> total;
    std::vector<std::size_t> free;
    std::size_t promised = 0;
  };
  using Mappings = std::map<Address, FakeMapping>;

  Pool& pool_of(std::size_t page_bytes);
  const Pool& pool_of(std::size_t page_bytes) const;
  void split_at(const char* what, Address a);
  void merge_around(Address begin, Address end);
  void break_up(Address a);  // makes base pages of the THP that lies across a
  void drop_pages(Address begin, Address end);
  void drop_promises(Address begin, Address end);
  int create_page(Address a, const FakeMapping& mapping, Address limit, NodeId local, std::size_t* bytes);
  int choose_node(const FakePolicy& policy, Address a, std::size_t bytes, NodeId local, bool hugetlb) const;
  std::size_t room_on(int node, std::size_t bytes, bool hugetlb) const;

  std::vector<FakeNode> nodes_;
  std::vector<std::size_t> used_;  // bytes of base pages and THP per node
  Pool pool_2m_;
  Pool pool_1g_;
  Mappings mappings_;
  std::map<Address, FakePage> pages_;
  std::map<Address, std::size_t> promises_;  // huge pages promised to a mapping and not yet faulted: address -> size
  int thp_mode_ = 1;
};

// Says what was done wrong and aborts.
[[noreturn]] void contract_violation(const char* what, const char* why, Address begin, std::size_t bytes);

template <typename OnPage>
int FakeAddressSpace::populate(const char* what, Address begin, std::size_t bytes, NodeId local, OnPage on_page) {
  require_mapped(what, begin, bytes);
  const Address end = begin + bytes;
  for (Address a = begin; a < end;) {
    if (const FakePage* page = page_at(a); page != nullptr) {
      a = a / page->bytes * page->bytes + page->bytes;  // every page is aligned to its size
      continue;
    }
    const FakeMapping& mapping = *mapping_at(a);
    if (mapping.state != PageState::kWritable) contract_violation(what, "the range is not writable", a, bytes);
    std::size_t size = 0;
    const int error = create_page(a, mapping, end < mapping.end ? end : mapping.end, local, &size);
    if (error != 0) return error;
    const Address page = a / size * size;
    on_page(page, size, mapping);
    a = page + size;
  }
  return 0;
}

}  // namespace nh::test
