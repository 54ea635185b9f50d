#include "doctor_cases.h"

#include <cerrno>

namespace nh::cli {
namespace {

const std::string kThp = FakeRoot::kThp;
constexpr std::uint64_t kLow = 8 * GiB;
constexpr Severity kNote = Severity::kNote, kCosts = Severity::kCosts, kSerious = Severity::kSerious;

void small_pages(Surroundings& around) {
  for (int node = 0; node < 2; node++) around.trials.thp[node].bytes = 4096;
}

}  // namespace

Surroundings healthy(const FakeRoot& root) {
  Surroundings around;
  around.root = root.path();
  around.kernel = "Linux 6.1.0";
  around.library = "/opt/numaheap/lib/libnumaheap.so";
  around.policy.mode = InheritedPolicy::Mode::kDefault;
  around.stack.soft = 8 * MiB;
  for (int& error : around.trials.error) error = 0;
  around.trials.rseq = RseqMode::kGlibc;
  for (int node = 0; node < 2; node++) around.trials.thp[node] = {true, node, 2 * MiB};
  return around;
}

void fails(Surroundings& around, Ability ability, int error) {
  around.trials.error[static_cast<unsigned>(ability)] = error;
}
void empty_pools(const FakeRoot& root) {
  for (const char* node : {"0", "1"}) root.set_pool(node, "2048", 0, 0);
}

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      // Transparent huge pages.
      {"thp-never", kCosts, "transparent_hugepage/enabled says never", "echo madvise | sudo tee ",
       [](auto& root, auto&) { root.write(kThp + "/enabled", "always madvise [never]"); }},
      {"thp-never", kSerious, "enabled says never", "transparent_hugepage=madvise on the kernel's command line",
       [](auto& root, auto&) { root.write(kThp + "/enabled", "always madvise [never]"), empty_pools(root); }},
      {"thp-never", kCosts, "hugepages-2048kB/enabled says never, although ", "thp_anon=2M:inherit",
       [](auto& root, auto&) { root.write(kThp + "/hugepages-2048kB/enabled", "always inherit madvise [never]"); }},
      {"thp-missing", kSerious, "does not exist", "CONFIG_TRANSPARENT_HUGEPAGE",
       [](auto& root, auto& around) { root.remove(kThp), empty_pools(root), small_pages(around); }},
      {"thp-forbidden", kCosts, "PR_SET_THP_DISABLE", "without that prctl",
       [](auto&, auto& around) { around.trials.thp_forbidden = true; }},
      {"thp-scarce", kCosts, "64.0 KiB came instead of 2 MiB", "/sys/devices/system/node/node1/compact",
       [](auto&, auto& around) { around.trials.thp[1].bytes = 64 * KiB; }},
      {"node-gives-nothing", kCosts, "took them elsewhere", "numastat",
       [](auto&, auto& around) { around.trials.thp[1].node = 0; }},
      {"thp-defrag", kNote, "defrag says never", "echo madvise",
       [](auto& root, auto&) { root.write(kThp + "/defrag", "always defer defer+madvise madvise [never]"); }},
      {"thp-defrag", kCosts, "defrag says defer", "echo madvise",
       [](auto& root, auto& around) {
         root.write(kThp + "/defrag", "always [defer] madvise never"), small_pages(around);
       }},
      {"khugepaged", kNote, "pages_to_scan is 0", "echo 4096",
       [](auto& root, auto&) { root.write(kThp + "/khugepaged/pages_to_scan", "0"); }},
      {"fragmented", kNote, "of 16.0 GiB that are free, 4.0 MiB are in pieces of 2 MiB or more", "--persist",
       [](auto& root, auto&) {
         root.write("/proc/buddyinfo",
                    "Node 0, zone Normal 9 0 0 0 0 0 0 0 0 0 1\n"
                    "Node 1, zone Normal 9 0 0 0 0 0 0 0 0 0 4000\n");
       }},
      {"fragmented", kCosts, "25 % of its blocks hold memory that cannot be moved", "node0/compact",
       [](auto& root, auto& around) {
         root.write("/proc/buddyinfo",
                    "Node 0, zone Normal 9 0 0 0 0 0 0 0 0 0 1\nNode 1, zone Normal 0 0 0 0 0 0 0 0 0 0 4000\n");
         root.write("/proc/pagetypeinfo",
                    "Node    0, zone   Normal, type    Unmovable  1 2\nNumber of blocks type     Unmovable"
                    "      Movable\nNode 0, zone   Normal           25       75\nNode 1, zone   Normal 9 0\n");
         small_pages(around);
       }},
      // Pools.
      {"pool-empty", kNote, "0 pages on nodes 0-1", "sudo numaheap reserve --node 0=8G --node 1=8G",
       [](auto& root, auto&) { empty_pools(root); }},
      {"pool-empty", kCosts, "0 pages", "reserve",
       [](auto& root, auto& around) { empty_pools(root), small_pages(around); }},
      {"pool-empty", kNote, "0 pages on nodes 0-1", "reserve",  // what is left is in use and goes with its processes
       [](auto& root, auto&) {
         empty_pools(root), root.set_pool("0", "2048", 11, 0);
         root.write(FakeRoot::pool("0") + "/surplus_hugepages", "11\n");
       }},
      {"pool-uneven", kCosts, "512 pages of 2 MiB on other nodes", "numaheap reserve --node 1=8G",
       [](auto& root, auto&) { root.set_pool("1", "2048", 0, 0); }},
      {"pool-dry", kCosts, "1024 pages, 1000 in use, 24 promised; held by solver (41) 3.0 GiB, python3 (40) 1.0 GiB",
       "wait for",
       [](auto& root, auto& around) {
         for (const char* node : {"0", "1"}) root.set_pool(node, "2048", 512, 12);
         root.write("/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "24\n");
         root.write("/proc/40/status", "HugetlbPages:\t 1048576 kB\n");
         root.write("/proc/40/comm", "python3\n");
         root.write("/proc/41/status", "HugetlbPages:\t 3145728 kB\n");
         root.write("/proc/41/comm", "solver\n");
         fails(around, Ability::kTakePool, kNotTried);
       }},
      {"pool-dry-node", kCosts, "500 pages are left on other nodes", "reserve --node N=SIZE",
       [](auto& root, auto&) { root.set_pool("1", "2048", 512, 0); }},
      {"pool-negative", kCosts, "HugePages_Rsvd is -4", "end the children",
       [](auto& root, auto&) {
         root.write("/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "18446744073709551612\n");
       }},
      {"pool-refused", kCosts, "Cannot allocate memory", "hugetlb.2MB.max",
       [](auto&, auto& around) { fails(around, Ability::kTakePool, ENOMEM); }},
      {"pool-missing", kNote, "hugepages-2048kB does not exist", "CONFIG_HUGETLBFS",
       [](auto& root, auto&) { root.remove("/sys/kernel/mm/hugepages"); }},
      // Placement.
      {"bind-refused", kSerious, "mbind: Operation not permitted, move_pages: the process that tried it was killed",
       "a seccomp filter",
       [](auto&, auto& around) {
         fails(around, Ability::kBind, EPERM), fails(around, Ability::kAskPlaces, kTrialKilled);
       }},
      {"bind-refused", kSerious, "mbind", "--cap-add SYS_NICE",
       [](auto& root, auto& around) { root.write("/.dockerenv", ""), fails(around, Ability::kBind, EPERM); }},
      {"cpuset", kNote, "memory of node 0 of 0-1", "cpuset.mems",
       [](auto& root, auto&) { root.write("/proc/self/status", "Cpus_allowed_list:\t0-1\nMems_allowed_list:\t0\n"); }},
      {"cpuset-remote", kCosts, "memory of node 0 and CPUs of node 1, too", "cpuset.cpus",
       [](auto& root, auto&) { root.write("/proc/self/status", "Cpus_allowed_list:\t0-3\nMems_allowed_list:\t0\n"); }},
      {"node-full", kCosts, "node 1: 1.0 GiB of 64.0 GiB to be had", "numastat",
       [](auto& root, auto&) { root.set_memory("1", 1); }},
      {"policy", kNote, "interleave nodes 0-1", "without numactl",
       [](auto&, auto& around) {
         around.policy.mode = InheritedPolicy::Mode::kInterleave;
         around.policy.nodes.add(NodeId(0));
         around.policy.nodes.add(NodeId(1));
       }},
      {"numa-balancing", kNote, "kernel.numa_balancing is 1", "sudo sysctl -w kernel.numa_balancing=0",
       [](auto& root, auto&) { root.write("/proc/sys/kernel/numa_balancing", "1\n"); }},
      {"zone-reclaim", kCosts, "vm.zone_reclaim_mode is 1", "tee -a /etc/sysctl.d/90-numaheap.conf",
       [](auto& root, auto&) { root.write("/proc/sys/vm/zone_reclaim_mode", "1\n"); }},
      {"numa-off", kCosts, "numa=off is on its command line", "a boot without",
       [](auto& root, auto&) { root.write("/proc/cmdline", "root=/dev/sda1 numa=off quiet\n"); }},
      // The kernel.
      {"no-rseq", kSerious, "rseq was tried: Function not implemented", "a kernel from 4.18",
       [](auto&, auto& around) { fails(around, Ability::kRestartable, ENOSYS); }},
      {"no-membarrier", kCosts, "membarrier was tried", "5.10",
       [](auto&, auto& around) { fails(around, Ability::kInterruptCpus, EINVAL); }},
      {"no-populate", kCosts, "MADV_POPULATE_WRITE", "5.14",
       [](auto&, auto& around) { fails(around, Ability::kPopulate, EINVAL); }},
      {"no-populate", kNote, "MADV_POPULATE_WRITE", "5.14",
       [](auto& root, auto& around) { fails(around, Ability::kPopulate, EINVAL), empty_pools(root); }},
      {"no-collapse", kNote, "MADV_COLLAPSE", "6.1",
       [](auto&, auto& around) { fails(around, Ability::kCollapse, EINVAL); }},
      {"no-leaving", kCosts, "a seccomp filter is in force", "seccomp=unconfined",
       [](auto& root, auto& around) {
         root.write("/proc/self/status", "Seccomp:\t2\nCpus_allowed_list:\t0-3\nMems_allowed_list:\t0-1\n");
         fails(around, Ability::kStopStores, ENOSYS);
       }},
      {"pool-unmappable", kCosts, "MAP_HUGETLB", "kernel",
       [](auto&, auto& around) { fails(around, Ability::kMapPool, EPERM); }},
      {"no-pool-moves", kNote, "mremap", "5.16",
       [](auto&, auto& around) { fails(around, Ability::kMovePool, EINVAL); }},
      {"no-pool-discard", kNote, "MADV_DONTNEED", "5.18",
       [](auto&, auto& around) { fails(around, Ability::kDiscardPool, EINVAL); }},
      // Control groups and limits.
      {"memory-limit", kNote, "4.0 GiB, 3.0 GiB left (/sys/fs/cgroup/job/memory.max)", "sbatch --mem",
       [](auto& root, auto&) { root.write("/sys/fs/cgroup/job/memory.max", "4294967296\n"); }},
      {"memory-limit", kCosts, "1.0 GiB, 0 B left (/sys/fs/cgroup/job/step/memory.max)", "docker run --memory",
       [](auto& root, auto&) { root.write("/sys/fs/cgroup/job/step/memory.max", "1073741824\n"); }},
      {"memory-limit", kNote, "2.0 GiB, 1.0 GiB left (/groups/memory/a/memory.limit_in_bytes)", "a higher limit",
       [](auto& root, auto&) {
         root.write("/proc/self/cgroup", "4:memory:/a\n");
         root.write("/proc/self/mountinfo", "35 31 0:32 / /groups/memory rw - cgroup cgroup rw,memory\n");
         root.write("/groups/memory/a/memory.limit_in_bytes", "2147483648\n");
         root.write("/groups/memory/a/memory.usage_in_bytes", "1073741824\n");
       }},
      {"memory-high", kNote, "8.0 GiB, 1.0 GiB used (/sys/fs/cgroup/job/memory.high)", "export NUMAHEAP_LIMIT=8G",
       [](auto& root, auto&) { root.write("/sys/fs/cgroup/job/memory.high", "8589934592\n"); }},
      {"memory-high", kCosts, "1.0 GiB, 1.0 GiB used", "NUMAHEAP_LIMIT=1G",
       [](auto& root, auto&) { root.write("/sys/fs/cgroup/job/memory.high", "1073741824\n"); }},
      {"hugetlb-limit", kCosts, "10 of 1024 pages (/sys/fs/cgroup/job/hugetlb.2MB.max)",
       "hugetlb.2MB.rsvd.max in its place",
       [](auto& root, auto&) { root.write("/sys/fs/cgroup/job/hugetlb.2MB.max", "20971520\n"); }},
      {"hugetlb-reservations", kCosts, "1 of 4 pages (/sys/fs/cgroup/job/step/hugetlb.1GB.rsvd.max)", "a higher",
       [](auto& root, auto&) {
         root.set_pool("0", "1048576", 4, 4);
         root.write("/sys/fs/cgroup/job/step/hugetlb.1GB.rsvd.max", "1073741824\n");
       }},
      {"groups-hidden", kNote, "not mounted", "export NUMAHEAP_LIMIT=SIZE",
       [](auto& root, auto&) { root.write("/proc/self/mountinfo", "22 27 0:21 / /proc rw - proc proc rw\n"); }},
      {"limit-address-space", kCosts, "ulimit -v: 8.0 GiB, the machine has 128.0 GiB", "ulimit -v unlimited",
       [](auto&, auto& around) { around.address_space.soft = kLow; }},
      {"limit-address-space", kCosts, "8.0 GiB, at most 8.0 GiB", "h_vmem",
       [](auto&, auto& around) {
         around.address_space = {kLow, kLow};
       }},
      {"limit-data", kCosts, "ulimit -d: 8.0 GiB", "ulimit -d unlimited",
       [](auto&, auto& around) { around.data.soft = kLow; }},
      {"limit-locked", kCosts, "ulimit -l: 8.0 MiB", "limits.conf",
       [](auto& root, auto& around) {
         root.write("/sys/class/infiniband/mlx5_0/node_type", "1: CA\n");
         around.locked = {8 * MiB, 8 * MiB};
       }},
      {"limit-stack", kCosts, "ulimit -s: 32.0 KiB", "ulimit -s 8192",
       [](auto&, auto& around) { around.stack.soft = 32 * KiB; }},
      {"overcommit", kCosts, "63.0 GiB of 64.0 GiB are left to be promised", "vm.overcommit_memory=0",
       [](auto& root, auto&) { root.write("/proc/sys/vm/overcommit_memory", "2\n"); }},
      {"max-map-count", kCosts, "vm.max_map_count is 4096", "vm.max_map_count=262144",
       [](auto& root, auto&) { root.write("/proc/sys/vm/max_map_count", "4096\n"); }},
      // The process.
      {"no-library", kSerious, "looked for /a, /b", "--library FILE",
       [](auto&, auto& around) { around.library = "", around.searched = "/a, /b"; }},
      {"library-path", kSerious, "/a b/libnumaheap.so has a space", "ln -s '/a b/libnumaheap.so' ~/libnumaheap.so",
       [](auto&, auto& around) { around.library = "/a b/libnumaheap.so"; }},
      {"program", kSerious, "it is statically linked", "numaheap::static",
       [](auto&, auto& around) { around.program = "busybox", around.program_obstacle = "it is statically linked"; }},
      {"other-malloc", kSerious, "LD_PRELOAD: libtcmalloc.so.4 before libnumaheap.so", "unset LD_PRELOAD",
       [](auto&, auto& around) { around.environment.push_back("LD_PRELOAD=libtcmalloc.so.4:libnumaheap.so"); }},
      {"other-malloc", kNote, "libtcmalloc.so.4 after libnumaheap.so", "unset LD_PRELOAD",
       [](auto&, auto& around) { around.environment.push_back("LD_PRELOAD=libnumaheap.so libtcmalloc.so.4"); }},
      {"preload-missing", kSerious, "/no/such/libnumaheap.so", "numaheap run -- CMD",
       [](auto&, auto& around) { around.environment.push_back("LD_PRELOAD=/no/such/libnumaheap.so"); }},
      {"malloc-in-the-way", kNote, "/usr/lib/libjemalloc.so.2", "numaheap run",
       [](auto&, auto& around) { around.malloc_file = "/usr/lib/libjemalloc.so.2"; }},
      {"secure", kNote, "ignore LD_PRELOAD", "", [](auto&, auto& around) { around.secure = true; }},
      {"setting-wrong", kCosts, "NUMAHEAP_HUGEPAGE: no such option; did you mean NUMAHEAP_HUGEPAGES?",
       "unset NUMAHEAP_HUGEPAGE", [](auto&, auto& around) { around.environment.push_back("NUMAHEAP_HUGEPAGE=2m"); }},
      {"setting-wrong", kCosts, "NUMAHEAP_POLICY=bind: accepts ", "unset NUMAHEAP_POLICY",
       [](auto&, auto& around) { around.environment.push_back("NUMAHEAP_POLICY=bind"); }},
      {"setting-unmet", kCosts, "NUMAHEAP_POLICY=bind:7", "unset NUMAHEAP_POLICY",
       [](auto&, auto& around) { around.environment.push_back("NUMAHEAP_POLICY=bind:7"); }},
      {"setting-unmet", kCosts, "NUMAHEAP_HUGETLBFS=/proc is no hugetlbfs", "unset NUMAHEAP_HUGETLBFS",
       [](auto&, auto& around) { around.environment.push_back("NUMAHEAP_HUGETLBFS=/proc"); }},
      {"setting-unmet", kCosts, "NUMAHEAP_HUGEPAGES=1g, but the pool of 1 GiB pages is empty", "reserve --size 1G",
       [](auto&, auto& around) { around.environment.push_back("NUMAHEAP_HUGEPAGES=1g"); }},
      {"setting-unmet", kCosts, "NUMAHEAP_HUGEPAGES=2m, but the pool of 2 MiB pages is empty",
       "reserve --node all=SIZE",
       [](auto& root, auto& around) { around.environment.push_back("NUMAHEAP_HUGEPAGES=2m"), empty_pools(root); }},
      {"setting-slow", kCosts, "NUMAHEAP_HUGEPAGES=off", "unset",
       [](auto&, auto& around) { around.environment.push_back("NUMAHEAP_HUGEPAGES=off"); }},
      {"setting-slow", kCosts, "NUMAHEAP_HUGEPAGES=thp", "unset",
       [](auto&, auto& around) { around.environment.push_back("NUMAHEAP_HUGEPAGES=thp"); }},
      {"setting-slow", kCosts, "NUMAHEAP_RSEQ=off", "unset",
       [](auto&, auto& around) { around.environment.push_back("NUMAHEAP_RSEQ=off"); }},
      {"setting-slow", kCosts, "NUMAHEAP_CPU_CACHE=0", "unset",
       [](auto&, auto& around) { around.environment.push_back("NUMAHEAP_CPU_CACHE=0"); }},
  };
  return all;
}

}  // namespace nh::cli
