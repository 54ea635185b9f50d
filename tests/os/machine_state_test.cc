// The snapshot of the machine: how often files are read, what happens to answers in between, and who may come in between.
//
// The layer under test opens files by syscall(), which this program defines itself: it counts, and shows other contents.
#include "os/machine_state.h"

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "os/os.h"

namespace {

// What is shown instead of a file ("" at first: nothing is changed), and the files that were opened.
std::map<std::string, std::string> g_shown;
std::atomic<std::uint64_t> g_opened{0};
std::atomic<bool> g_note_paths{false};
std::map<std::string, unsigned> g_paths;
std::function<void(const char*)> g_when_opened;

const char* note_open(const char* path) {
  g_opened++;
  if (g_when_opened) g_when_opened(path);
  if (g_note_paths) g_paths[path]++;
  const auto found = g_shown.find(path);
  return found != g_shown.end() ? found->second.c_str() : path;
}

}  // namespace

extern "C" long syscall(long number, ...) noexcept {
  static const auto real = reinterpret_cast<long (*)(long, ...)>(dlsym(RTLD_NEXT, "syscall"));
  va_list list;
  va_start(list, number);
  long a[6];
  for (long& word : a) word = va_arg(list, long);
  va_end(list);
  if (number == SYS_openat) a[1] = reinterpret_cast<long>(note_open(reinterpret_cast<const char*>(a[1])));
  return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

namespace nh {
namespace {

using linux_os_detail::note_reserved;

const OsOps& os = linux_os();
const std::string kPool = "/sys/kernel/mm/hugepages/hugepages-2048kB/";

class MachineState : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/nh-state-XXXXXX";
    folder_ = ::mkdtemp(name);
    os.forget_state();
  }
  void TearDown() override {
    g_when_opened = nullptr;
    g_note_paths = false;
    g_paths.clear();
    g_shown.clear();
    std::filesystem::remove_all(folder_);
    os.forget_state();
  }
  void show(const std::string& path, const std::string& text) {
    if (g_shown.count(path) == 0) g_shown[path] = folder_ + "/" + std::to_string(g_shown.size());
    std::ofstream(g_shown[path]) << text;
  }
  void show_pool(const std::string& total, const std::string& free, const std::string& reserved) {
    show(kPool + "nr_hugepages", total + "\n");
    show(kPool + "free_hugepages", free + "\n");
    show(kPool + "resv_hugepages", reserved + "\n");
    show(kPool + "nr_overcommit_hugepages", "0\n");
    show(kPool + "surplus_hugepages", "0\n");
  }
  void show_node(unsigned mib_total, unsigned mib_free, const std::string& node = "0") {
    const auto line = [&](const char* name, unsigned mib) {
      return "Node " + node + " " + std::string(name) + ": " + std::to_string(mib * 1024) + " kB\n";
    };
    show("/sys/devices/system/node/node" + node + "/meminfo",
         line("MemTotal", mib_total) + line("MemFree", mib_free) + line("Active(file)", 0) + line("Inactive(file)", 0));
    show("/proc/sys/vm/min_free_kbytes", "0\n");
  }
  void show_group(const std::string& limit, const std::string& used) {
    show("/proc/self/cgroup", "0::/job\n");
    show("/proc/self/mountinfo", "30 23 0:26 / /nh-test-groups rw - cgroup2 cgroup2 rw\n");
    show("/nh-test-groups/job/memory.max", limit + "\n");
    show("/nh-test-groups/job/memory.current", used + "\n");
  }
  static HugePool pool() {
    HugePool out;
    EXPECT_TRUE(os.huge_pool(kHugeSize, NodeId(), &out));
    return out;
  }
  // How many files f opens.
  template <typename F>
  static std::uint64_t files(F&& f) {
    const std::uint64_t before = g_opened;
    f();
    return g_opened - before;
  }
  static void ask_everything() {
    HugePool out;
    MemoryLimit limit;
    os.huge_pool(kHugeSize, NodeId(), &out);
    os.huge_pool(kHugeSize, NodeId(0), &out);
    os.huge_pool(GiB, NodeId(), &out);
    os.nodes_have_room(NodeSet::of(NodeId(0)), kHugeSize);
    os.hugetlb_fault_limited(kHugeSize);
    os.memory_limit(&limit);
    os.thp_mode();
  }
  // Longer than counters are kept.
  static void age() { ::usleep(12000); }

  std::string folder_;
};

TEST_F(MachineState, AFileIsReadOnceInAnInterval) {
  show_pool("100", "70", "0");
  g_note_paths = true;
  const std::uint64_t begin = os.now_ns();
  for (int i = 0; i < 1000; i++) ask_everything();
  const std::uint64_t intervals = (os.now_ns() - begin) / 10'000'000 + 1;
  EXPECT_GE(g_paths[kPool + "free_hugepages"], 1u);
  for (const auto& [path, count] : g_paths) EXPECT_LE(count, intervals) << path;
}

TEST_F(MachineState, AnswersAge) {
  show_pool("100", "70", "5");
  EXPECT_EQ(pool().available(), 65u);
  show_pool("100", "50", "5");
  age();
  EXPECT_EQ(pool().available(), 45u);
  EXPECT_EQ(pool().total, 100u);
}

TEST_F(MachineState, WhatWeGaveBackCountsAtOnce) {
  show_pool("100", "0", "0");
  EXPECT_EQ(pool().available(), 0u);
  show_pool("100", "3", "0");
  void* const p = os.reserve(kOsPageSize, kOsPageSize);
  ASSERT_EQ(os.make_writable(p, kOsPageSize), 0);
  for (const auto& give_back : {std::function<void()>([p] { os.discard(p, kOsPageSize); }),
                                std::function<void()>([p] { os.unmap(p, kOsPageSize); })}) {
    EXPECT_EQ(files([&] { give_back(); }), 0u) << "nobody has asked yet";
    EXPECT_GT(files([] { EXPECT_EQ(pool().available(), 3u); }), 0u);
    EXPECT_EQ(files([] { pool(); }), 0u);
  }
}

TEST_F(MachineState, ForgottenAnswersAreReadAnew) {
  ask_everything();
  EXPECT_EQ(files([] { os.thp_mode(); }), 0u);
  os.forget_state();
  EXPECT_EQ(files([] { os.thp_mode(); }), 1u);
  EXPECT_GE(files([] { os.hugetlb_fault_limited(kHugeSize); }), 2u);
}

TEST_F(MachineState, OurReservationsAreSubtracted) {
  show_pool("100", "70", "20");
  EXPECT_EQ(pool().available(), 50u);
  note_reserved(kHugeSize, 30);
  note_reserved(GiB, 7);
  EXPECT_EQ(pool().available(), 20u);
  note_reserved(kHugeSize, 30);
  EXPECT_EQ(pool().available(), 0u);
  // The next reading knows of them by itself.
  show_pool("100", "70", "60");
  os.forget_state();
  EXPECT_EQ(pool().available(), 10u);
}

TEST_F(MachineState, ACounterBelowZero) {
  show_pool("100", "70", "18446744073709551612");
  const HugePool below = pool();
  EXPECT_FALSE(below.reservations_work);
  EXPECT_EQ(below.reserved, 0u);
  EXPECT_EQ(below.available(), 70u);
  show_pool("100", "70", "0");
  os.forget_state();
  EXPECT_TRUE(pool().reservations_work);
}

TEST_F(MachineState, GrantedRoomCountsAsTaken) {
  show_node(6400, 1100);  // 1000 MiB beyond the margin
  std::size_t granted = 0;
  while (granted < 5000 && os.nodes_have_room(NodeSet::of(NodeId(0)), 10 * MiB)) granted += 10;
  EXPECT_GT(granted, 300u);
  EXPECT_LE(granted, 1000u);
  EXPECT_FALSE(os.nodes_have_room(NodeSet::of(NodeId(0)), 2000 * MiB));
  EXPECT_FALSE(os.nodes_have_room(NodeSet::of(NodeId(0)), SIZE_MAX));
  // A reading shows what became of it.
  os.forget_state();
  EXPECT_TRUE(os.nodes_have_room(NodeSet::of(NodeId(0)), 500 * MiB));
  EXPECT_TRUE(os.nodes_have_room(NodeSet::of(NodeId(900)), TiB)) << "nobody tells";
}

TEST_F(MachineState, NodesHaveRoomTogether) {
  NodeSet both = NodeSet::of(NodeId(0));
  both.add(NodeId(1));
  show_node(6400, 1100);
  show_node(6400, 50, "1");  // less than the margin: it takes nothing from the other's
  EXPECT_TRUE(os.nodes_have_room(both, 900 * MiB));
  os.forget_state();
  EXPECT_FALSE(os.nodes_have_room(both, 1100 * MiB));
  show_node(6400, 600, "1");
  os.forget_state();
  EXPECT_TRUE(os.nodes_have_room(both, 1100 * MiB));
  EXPECT_FALSE(os.nodes_have_room(NodeSet::of(NodeId(1)), 100 * MiB)) << "a half of what was granted is its part";
}

TEST_F(MachineState, WhatNodesAreMadeOf) {
  NodeSet both = NodeSet::of(NodeId(0));
  both.add(NodeId(1));
  show_node(6400, 10);
  show_node(3000, 0, "1");
  show("/proc/sys/vm/overcommit_memory", "0\n");
  const std::uint64_t one = os.memory_of(NodeSet::of(NodeId(0)));
  EXPECT_GE(one, 6400 * MiB) << "and the machine's swap";
  EXPECT_EQ(os.memory_of(both), one + 3000 * MiB);
  EXPECT_EQ(os.memory_of(NodeSet::of(NodeId(900))), UINT64_MAX) << "nobody tells";
  show("/proc/sys/vm/overcommit_memory", "1\n");
  EXPECT_EQ(os.memory_of(both), UINT64_MAX);
}

TEST_F(MachineState, AFullNodeIsRemembered) {
  show_node(6400, 90);
  EXPECT_FALSE(os.nodes_have_room(NodeSet::of(NodeId(0)), MiB));
  const std::uint64_t begin = os.now_ns();
  const std::uint64_t opened = files([] {
    for (int i = 0; i < 1000; i++) EXPECT_FALSE(os.nodes_have_room(NodeSet::of(NodeId(0)), MiB));
  });
  EXPECT_LE(opened, (os.now_ns() - begin) / 10'000'000 + 1);
}

TEST_F(MachineState, MemoryLimit) {
  show_group("314572800", "1000000");
  MemoryLimit limit;
  ASSERT_TRUE(os.memory_limit(&limit));
  EXPECT_EQ(limit.limit, 314572800u);
  EXPECT_EQ(limit.used, 1000000u);
  show_group("314572800", "2000000");
  age();
  EXPECT_EQ(files([&] { ASSERT_TRUE(os.memory_limit(&limit)); }), 1u) << "the groups are known";
  EXPECT_EQ(limit.used, 2000000u);
  show_group("max", "2000000");
  os.forget_state();
  EXPECT_FALSE(os.memory_limit(&limit));
  age();
  EXPECT_EQ(files([&] { EXPECT_FALSE(os.memory_limit(&limit)); }), 0u);
}

// As from a signal handler, or from an interposed function that calls malloc: while this very thread reads.
TEST_F(MachineState, AskedWhileItReads) {
  show_group("314572800", "1000000");
  show_pool("100", "70", "0");
  static bool inside = false;
  static unsigned asked = 0;
  g_when_opened = [](const char*) {
    if (inside) return;
    inside = true;
    ask_everything();
    asked++;
    inside = false;
  };
  ask_everything();
  EXPECT_GT(asked, 0u);
  MemoryLimit limit;
  EXPECT_TRUE(os.memory_limit(&limit));
  EXPECT_EQ(limit.used, 1000000u);
}

TEST_F(MachineState, AskedInAForkChildOfAThreadThatRead) {
  show_group("314572800", "1000000");
  static int status = -1;
  g_when_opened = [](const char* path) {
    if (std::strcmp(path, "/proc/self/cgroup") != 0 || status != -1) return;
    const pid_t pid = fork();
    if (pid == 0) {
      g_when_opened = nullptr;
      repair_os_after_fork();
      MemoryLimit limit;
      _exit(os.memory_limit(&limit) && limit.used == 1000000 ? 0 : 1);
    }
    waitpid(pid, &status, 0);
  };
  MemoryLimit limit;
  EXPECT_TRUE(os.memory_limit(&limit));
  EXPECT_EQ(status, 0);
}

TEST_F(MachineState, ManyThreads) {
  show_pool("100", "70", "0");
  show_group("314572800", "1000000");
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  std::atomic<unsigned> wrong{0};
  for (int t = 0; t < 4; t++) {
    threads.emplace_back([&] {
      while (!stop) {
        HugePool p;
        MemoryLimit limit;
        if (!os.huge_pool(kHugeSize, NodeId(), &p) || p.free != 70) wrong++;
        if (!os.memory_limit(&limit) || limit.used != 1000000) wrong++;
        if (os.thp_mode() < -1) wrong++;
      }
    });
  }
  for (int i = 0; i < 50; i++) {
    os.forget_state();
    ::usleep(2000);
  }
  stop = true;
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong, 0u);
}

// ---- stack -------------------------------------------------------------------------------------------------------

ucontext_t g_main, g_painted;
void (*g_body)();

// The bytes of stack that f takes.
std::size_t stack_of(void (*f)()) {
  static char stack[64 * KiB];
  g_body = f;
  std::memset(stack, 0x5a, sizeof stack);
  getcontext(&g_painted);
  g_painted.uc_stack.ss_sp = stack;
  g_painted.uc_stack.ss_size = sizeof stack;
  g_painted.uc_link = &g_main;
  makecontext(&g_painted, [] { g_body(); }, 0);
  swapcontext(&g_main, &g_painted);
  std::size_t clean = 0;
  while (clean < sizeof stack && stack[clean] == 0x5a) clean++;
  return sizeof stack - clean;
}

TEST_F(MachineState, TakesLittleStack) {
#if !defined __OPTIMIZE__ || defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
  GTEST_SKIP() << "the compiler takes what it likes here";
#endif
  ask_everything();  // the dynamic linker looks names up now
  const std::size_t nothing = stack_of([] {});
  static const NodeSet node = NodeSet::of(NodeId(0));
  for (const auto f : {+[] { pool(); }, +[] { os.nodes_have_room(node, MiB); }, +[] { os.memory_of(node); }, +[] { os.thp_mode(); },
                       +[] { os.hugetlb_fault_limited(kHugeSize); },
                       +[] {
                         MemoryLimit limit;
                         os.memory_limit(&limit);
                       }}) {
    os.forget_state();
    EXPECT_LT(stack_of(f) - nothing, 2 * KiB);
  }
}

}  // namespace
}  // namespace nh
