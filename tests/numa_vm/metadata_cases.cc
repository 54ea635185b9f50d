// The heap's own structures: a node's lie on that node. A look inside: the structures are found through the library's own
// types and the addresses of two of its variables, which in_guest.py takes from the symbol table. Where they lie says the
// kernel.
#include <link.h>

#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "base/bits.h"
#include "process/process.h"
#include "placement.h"

namespace {

// NH_SYMBOLS="g_process=2f6c0 g_caches=...": offsets in the library.
std::uintptr_t offset_of(const char* name) {
  const char* text = getenv("NH_SYMBOLS");
  REQUIRE(text != nullptr, "NH_SYMBOLS is not set");
  const char* at = strstr(text, name);
  REQUIRE(at != nullptr && at[strlen(name)] == '=', "%s is not in NH_SYMBOLS", name);
  return strtoul(at + strlen(name) + 1, nullptr, 16);
}

std::uintptr_t library_base() {
  std::uintptr_t base = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* out) {
        if (strstr(info->dlpi_name, "libnumaheap.so") == nullptr) return 0;
        *static_cast<std::uintptr_t*>(out) = info->dlpi_addr;
        return 1;
      },
      &base);
  REQUIRE(base != 0, "not under libnumaheap.so");
  return base;
}

// Counts the pages of a structure that somebody has written to; the rest of it lies nowhere yet.
struct Structures {
  PageSet pages;
  const char* what;
  explicit Structures(const char* name) : what(name) {}
  void expect_on(int node) const {
    Census census;
    census.add(pages);
    EXPECT(census.on[node] > 0 && census.on[node] + census.absent == census.total, "%s of node %d: %s", what, node,
           census.text());
  }
};

}  // namespace

CASE(the_structures_of_a_heap_lie_on_its_node) {
  auto& process = *reinterpret_cast<nh::Process*>(library_base() + offset_of("g_process"));
  auto& caches = *reinterpret_cast<nh::CpuCaches*>(library_base() + offset_of("g_caches"));
  const nh::AddressSpace& space = process.space;
  pin(0);  // the first thread, which set everything up, is on node 0
  constexpr std::size_t kObjects = 4000;
  for (int node = 0; node < machine().nodes; node++) {
    Objects objects(kObjects);
    on_node(node, [](int, void* p) { static_cast<Objects*>(p)->allocate(kObjects, 64 * kKiB, 9); }, &objects);
    nh::NodeHeap* own = nullptr;
    Structures heaps("heap"), centrals("mcentrals"), spans("span descriptors"), arenas("arenas"), map("page map"),
        cpu_caches("mcaches"), lists("free lists");
    for (unsigned h = 0; h < process.heaps.count(); h++) {
      nh::NodeHeap& heap = process.heaps[nh::HeapId(h)];
      if (heap.heap.node().value == node && heap.heap.kind() == nh::HeapKind::kNode) own = &heap;
    }
    REQUIRE(own != nullptr);
    heaps.pages.add(own, sizeof *own);
    for (auto& slot : own->central) {
      if (const nh::Central* central = slot.load(); central != nullptr) centrals.pages.add(central, sizeof *central);
    }
    for (std::size_t i = 0; i < objects.count; i++) {
      const void* p = objects.list[i].p;
      spans.pages.add(space.span_of(p), sizeof(nh::MSpan));
      map.pages.add(&space.page_map()[(nh::address(p) - space.base()) >> nh::kPageShift], sizeof(nh::PageEntry));
    }
    // The places of its arenas, and behind them the table of its units (heap/heap_arenas.cc).
    const auto* tables = reinterpret_cast<const char*>(space.heap_tables(own->heap.id()));
    arenas.pages.add(tables, sizeof(std::uint32_t));
    const std::size_t places = 2 * (space.max_bytes() >> nh::kArenaShift) * sizeof(std::uint32_t);
    arenas.pages.add(tables + nh::align_up(places, nh::WindowTable::kStep), sizeof(nh::Unit));
    caches.for_each([&](nh::CpuCache& cache) {
      if (machine().node_of[cache.cpu] != node) return;
      cpu_caches.pages.add(&cache, sizeof cache);
      lists.pages.add(cache.lists, process.heaps.count() * nh::kListSetsPerHeap * sizeof *cache.lists);
    });
    for (const Structures* all : {&heaps, &centrals, &spans, &arenas, &map, &cpu_caches, &lists}) all->expect_on(node);
    objects.free_all();
  }
}
