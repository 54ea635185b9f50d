// Every call to the OS fails once: for each kind of call, the first one, the second one, ... of a scenario that goes
// through all a heap does. Whatever is refused, nothing may be lost, leaked or wrong afterwards, and the heap must work
// as before.
#include <gtest/gtest.h>

#include <cerrno>
#include <functional>
#include <string>
#include <vector>

#include "heap/heap_world.h"

namespace nh::test {
namespace {

struct Refusal {
  FakeCall call;
  const char* name;
  std::vector<int> errors;
};
const Refusal kRefusals[] = {
    {FakeCall::kFindWindow, "find_window", {ENOMEM}},
    {FakeCall::kIsUnmapped, "is_unmapped", {EEXIST}},
    {FakeCall::kHasRoom, "has_room", {ENOMEM}},
    {FakeCall::kReserve, "reserve", {ENOMEM}},
    {FakeCall::kMakeWritable, "make_writable", {ENOMEM}},
    {FakeCall::kUnmap, "unmap", {ENOMEM}},
    {FakeCall::kMapNew, "map_new", {ENOMEM, EEXIST}},
    {FakeCall::kMapNewReadable, "map_new_readable", {ENOMEM}},
    {FakeCall::kMapPlain, "map_plain", {ENOMEM}},
    {FakeCall::kAdviseThp, "advise_thp", {EINVAL}},
    {FakeCall::kPopulate, "populate", {EFAULT, ENOMEM, EHWPOISON, EINVAL}},
    {FakeCall::kDiscard, "discard", {EINVAL}},
    {FakeCall::kPunch, "punch", {EINVAL}},
    {FakeCall::kMapNewHugetlb, "map_new_hugetlb", {ENOMEM, EPERM, EEXIST}},
    {FakeCall::kBind, "bind", {EPERM, EINVAL}},
    {FakeCall::kHugePool, "huge_pool", {0}},
    {FakeCall::kThpMode, "thp_mode", {0}},
};

// What goes through a heap's hands, with contents that are checked on the way out.
class Scenario {
 public:
  explicit Scenario(HeapWorld& w) : w_(w) {}

  void run() {
    for (std::size_t i = 0; i < 30; i++) span(1 + i % 16, static_cast<int>(i % 4));
    large(5 * MiB, kPageSize);
    large(70 * MiB, kPageSize);  // more than an arena
    const std::size_t resized = large(MiB, kPageSize);
    resize(resized, 9 * MiB);
    resize(resized, 100 * MiB);
    resize(resized, 3 * MiB);
    large(3 * MiB, 32 * MiB);
    for (std::size_t i = 0; i < live_.size(); i += 2) free(i);
    w_.heap.flush_page_caches();
    w_.heap.scavenge(12 * MiB, 0);
    audit();
    w_.heap.scavenge(SIZE_MAX, 0);
    audit();
    large(40 * MiB, kPageSize);
    for (std::size_t i = 0; i < 10; i++) span(7, static_cast<int>(i % 4));
    for (std::size_t i = 0; i < live_.size(); i++) free(i);
    w_.heap.flush_page_caches();
    w_.heap.scavenge(SIZE_MAX, 0);
    audit();
  }
  unsigned refused() const { return refused_; }

 private:
  struct Live {
    MSpan* span;
    std::uint64_t value;
  };

  void audit() {
    ASSERT_TRUE(w_.heap.check());
    ASSERT_EQ(w_.os.check(), "");
  }
  std::size_t keep(MSpan* span) {
    live_.push_back({span, ++serial_ << 32});
    if (span == nullptr) {
      refused_++;
      return live_.size() - 1;
    }
    EXPECT_TRUE(span->need_zero || reads_zero(span));
    fill(span, live_.back().value);
    audit();
    return live_.size() - 1;
  }
  void span(std::size_t pages, int cpu) { keep(w_.heap.alloc_span(class_with_pages(pages), CpuId(cpu))); }
  std::size_t large(std::size_t bytes, std::size_t alignment) { return keep(w_.heap.alloc_large(bytes, alignment, false)); }
  void resize(std::size_t i, std::size_t bytes) {
    MSpan* span = live_[i].span;
    if (span == nullptr) return;
    const std::size_t old = span->npages;
    if (!w_.heap.resize_large(span, bytes)) {
      refused_++;
      EXPECT_EQ(span->npages, old);
    }
    EXPECT_TRUE(holds(span, live_[i].value, std::min<std::size_t>(old, span->npages)));
    fill(span, live_[i].value);
    audit();
  }
  void free(std::size_t i) {
    Live& l = live_[i];
    if (l.span == nullptr) return;
    EXPECT_TRUE(holds(l.span, l.value, l.span->npages));
    w_.heap.free_span(l.span);
    l.span = nullptr;
  }

  HeapWorld& w_;
  std::vector<Live> live_;
  std::uint64_t serial_ = 0;
  unsigned refused_ = 0;
};

struct Machine {
  const char* name;
  std::function<HeapWorldConfig()> config;
};

HeapWorldConfig with_window(HeapWorldConfig c) {
  c.window_bytes = 4 * GiB;
  return c;
}
const Machine kMachines[] = {
    {"PlentyOfHugePages", [] { return with_window(node_heap({FakeNode{.pages_2m = 1000}})); }},
    {"APoolThatRunsDryTwoNodes",
     [] { return with_window(node_heap({FakeNode{.pages_2m = 11}, FakeNode{.pages_2m = 100}})); }},
    {"ThpOnTwoNodes", [] { return with_window(node_heap({FakeNode{}, FakeNode{}}, HugePagesOption::kThp)); }},
    {"AnOldKernel",
     [] {
       HeapWorldConfig c = node_heap({FakeNode{.pages_2m = 30}});
       c.os.can_discard_hugetlb = false;
       return with_window(c);
     }},
    {"SharedFiles",
     [] {
       HeapWorldConfig c = node_heap({FakeNode{.pages_2m = 1000}});
       c.heap.backing.source = HugeSource::kSharedFile;
       return with_window(c);
     }},
    {"FirstTouch", [] { return with_window(first_touch_heap({FakeNode{.pages_2m = 60}, FakeNode{.pages_2m = 60}})); }},
    {"UnderALimit",
     [] {
       HeapWorldConfig c = node_heap({FakeNode{.pages_2m = 11}});
       c.os.address_limit = 2 * GiB;
       return with_window(c);
     }},
    {"UnderALimitOfCommitment",
     [] {
       HeapWorldConfig c = node_heap({FakeNode{}, FakeNode{}});
       c.os.commit_limit = 2 * GiB;
       return with_window(c);
     }},
    {"GiantPages",
     [] { return with_window(node_heap({FakeNode{.pages_2m = 40, .pages_1g = 1}}, HugePagesOption::k1G)); }},
};

class EachCallFails : public ::testing::TestWithParam<Machine> {};
INSTANTIATE_TEST_SUITE_P(On, EachCallFails, ::testing::ValuesIn(kMachines),
                         [](const auto& machine) { return machine.param.name; });

// With the heap all its memory goes, and what is left is metadata, which says how much it is, and what could not be unmapped.
void expect_nothing_leaked(HeapWorld& w, std::size_t lost) {
  const std::size_t metadata = w.heap.stats().metadata_bytes;
  w.heap.destroy();
  w.space.destroy();
  EXPECT_LE(w.mapped_bytes(), metadata + lost) << "a mapping was left behind";
  EXPECT_GE(w.mapped_bytes(), metadata);
  EXPECT_EQ(w.os.check(), "");
}

void expect_works(HeapWorld& w) {
  MSpan* span = w.heap.alloc_large(20 * MiB, kPageSize, false);
  ASSERT_NE(span, nullptr);
  EXPECT_TRUE(span->need_zero || reads_zero(span));
  fill(span, 1);
  EXPECT_TRUE(w.heap.check());
  w.heap.free_span(span);
  EXPECT_NE(w.heap.alloc_span(class_with_pages(9), CpuId(3)), nullptr);
  EXPECT_TRUE(w.heap.check());
}

TEST_P(EachCallFails, NothingIsLostLeakedOrWrong) {
  std::uint64_t most[kFakeCalls];
  {
    HeapWorld w(GetParam().config());
    ASSERT_TRUE(w.set_up());
    Scenario s(w);
    s.run();
    for (unsigned i = 0; i < kFakeCalls; i++) most[i] = w.os.calls(static_cast<FakeCall>(i));
    EXPECT_EQ(s.refused(), 0u) << "the machine is large enough when nothing fails";
    expect_works(w);
    expect_nothing_leaked(w, 0);
  }
  unsigned runs = 0;
  for (const Refusal& refusal : kRefusals) {
    for (const int error : refusal.errors) {
      for (std::uint64_t k = 1; k <= most[static_cast<unsigned>(refusal.call)]; k++) {
        SCOPED_TRACE(std::string(refusal.name) + " " + std::to_string(k) + " errno " + std::to_string(error));
        HeapWorld w(GetParam().config());
        w.os.fail_call(refusal.call, static_cast<unsigned>(k), error == 0 ? 1 : error);
        runs++;
        if (!w.set_up()) {
          EXPECT_EQ(w.os.mapping_count(), 0u);
          ASSERT_TRUE(w.set_up()) << "and works at the second attempt";
        }
        Scenario s(w);
        s.run();
        w.os.clear_failures();  // in case that refusals made the run shorter
        EXPECT_LE(s.refused(), 4u) << "one refusal, and resizes of the object that was not made";
        EXPECT_EQ(w.heap.stats().in_use_bytes, 0u);
        expect_works(w);
        expect_nothing_leaked(w, refusal.call == FakeCall::kUnmap ? 100 * MiB : 0);
        if (HasFailure()) return;
      }
    }
  }
  EXPECT_GE(runs, 40u);
}

// And all of them at once, at random.
TEST_P(EachCallFails, ManyAtRandom) {
  for (std::uint64_t seed = 1; seed <= 25; seed++) {
    SCOPED_TRACE(seed);
    HeapWorld w(GetParam().config());
    ASSERT_TRUE(w.set_up());
    for (const Refusal& r : kRefusals) {
      w.os.fail_randomly(r.call, r.errors[seed % r.errors.size()] == 0 ? 1 : r.errors[seed % r.errors.size()], 0.15, seed);
    }
    Scenario s(w);
    s.run();
    w.os.clear_failures();
    expect_works(w);
    expect_nothing_leaked(w, GiB);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace nh::test
