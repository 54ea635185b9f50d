// Shapes of machines for the tests: each is one that exists, or a corner of one.
#pragma once

#include <vector>

#include "fake_machine.h"
#include "memory_machines.h"

namespace nh {

struct NamedMachine {
  const char* name;
  FakeMachine machine;
};

// Two packages cut in four: distances 10, 11, 12 within a package, 20 across (sub-NUMA clusters).
inline FakeMachine sub_numa_clusters() {
  FakeMachine machine = FakeMachine::uniform(8, 4, 20);
  for (std::size_t i = 0; i < 8; i++) {
    for (std::size_t j = 0; j < 8; j++) {
      if (i / 4 == j / 4 && i != j) machine.distances[i][j] = (i / 2 == j / 2) ? 11 : 12;
    }
  }
  return machine;
}

// Two packages of eight core complexes, each a node of its own (L3 as NUMA): 16 nodes, three kinds of neighbours.
inline FakeMachine core_complexes() {
  FakeMachine machine = FakeMachine::uniform(16, 8, 32);
  for (std::size_t i = 0; i < 16; i++) {
    for (std::size_t j = 0; j < 16; j++) {
      if (i / 8 == j / 8 && i != j) machine.distances[i][j] = (i / 2 == j / 2) ? 11 : 12;
    }
    // Siblings in a second row, behind those of all nodes.
    for (const int cpu : range(128 + 8 * static_cast<int>(i), 8)) machine.nodes[i].cpus.push_back(cpu);
  }
  return machine;
}

// Some CPUs are offline: the nodes' lists have holes, and one node has but one CPU left.
inline FakeMachine with_offline_cpus() {
  FakeMachine machine = FakeMachine::uniform(4, 0);
  machine.nodes[0].cpus = {0, 1, 5, 7};
  machine.nodes[1].cpus = {8, 15};
  machine.nodes[2].cpus = {19};
  machine.nodes[3].cpus = {24, 25, 26, 27, 29, 30, 31};
  machine.possible_cpus = "0-31";
  return machine;
}

// HBM beside the DRAM of each package, and an expander at the far end: three kinds of memory.
inline FakeMachine three_kinds_of_memory() {
  FakeMachine machine = FakeMachine::uniform(2, 8, 21);
  for (int n = 2; n < 4; n++) machine.nodes.push_back({n, {}, 16 << 20});
  machine.nodes.push_back({4, {}, 128 << 20});
  machine.distances = {{10, 21, 13, 23, 24}, {21, 10, 23, 13, 34}, {13, 23, 10, 25, 26}, {23, 13, 25, 10, 36},
                       {24, 34, 26, 36, 10}};
  machine.memory_tiers = {"2-3", "0-1", "4"};
  return machine;
}

// Hyperthread siblings numbered in a second row, as most x86 firmware does: node 0 has 0-3,8-11, node 1 has 4-7,12-15.
inline FakeMachine two_rows_of_siblings() {
  FakeMachine machine = FakeMachine::uniform(2, 4);
  for (int n = 0; n < 2; n++) {
    for (const int cpu : range(8 + 4 * n, 4)) machine.nodes[static_cast<std::size_t>(n)].cpus.push_back(cpu);
  }
  return machine;
}

// CPUs dealt to the nodes in turn.
inline FakeMachine round_robin_cpus() {
  FakeMachine machine = FakeMachine::uniform(4, 0);
  for (int cpu = 0; cpu < 32; cpu++) machine.nodes[static_cast<std::size_t>(cpu % 4)].cpus.push_back(cpu);
  return machine;
}

// Two packages, and one expander behind package 0 whose distance equals that of the other package.
inline FakeMachine expander_memory() {
  FakeMachine machine = FakeMachine::uniform(2, 4, 21);
  machine.nodes.push_back({2, {}, 64 << 20});
  machine.distances = {{10, 21, 21}, {21, 10, 31}, {21, 31, 10}};
  machine.memory_tiers = {"0-1", "2"};
  return machine;
}

// Memory in the first slot of each package only: nodes 1 and 3 have CPUs and no memory.
inline FakeMachine nodes_without_memory() {
  FakeMachine machine = FakeMachine::uniform(4, 4, 32);
  machine.nodes[1].memory_kib = machine.nodes[3].memory_kib = 0;
  machine.distances = {{10, 16, 32, 32}, {16, 10, 32, 32}, {32, 32, 10, 16}, {32, 32, 16, 10}};
  return machine;
}

// Node 0 is gone (its memory is kept from this partition).
inline FakeMachine without_node_zero() {
  FakeMachine machine;
  machine.nodes = {{1, range(8, 8)}, {2, range(16, 8)}, {3, range(24, 8)}};
  machine.possible_cpus = "0-31";
  return machine;
}

inline std::vector<NamedMachine> all_machines() {
  std::vector<NamedMachine> machines = {
      {"OneNode", FakeMachine::uniform(1, 8)},
      {"OneNodeOneCpu", FakeMachine::uniform(1, 1)},
      {"TwoPackages", FakeMachine::uniform(2, 8)},
      {"FourNodes", FakeMachine::uniform(4, 16)},
      {"EightNodes", FakeMachine::uniform(8, 16, 32)},
      {"SixtyFourNodes", FakeMachine::uniform(64, 4, 40)},
      {"SubNumaClusters", sub_numa_clusters()},
      {"CoreComplexes", core_complexes()},
      {"WithOfflineCpus", with_offline_cpus()},
      {"ThreeKindsOfMemory", three_kinds_of_memory()},
      {"TwoRowsOfSiblings", two_rows_of_siblings()},
      {"RoundRobinCpus", round_robin_cpus()},
      {"ExpanderMemory", expander_memory()},
      {"NodesWithoutMemory", nodes_without_memory()},
      {"Power9WithGpus", power9_with_gpus()},
      {"GraceHopper", grace_hopper()},
      {"GraceHopperWithoutDriver", grace_hopper(false)},
      {"FourGraceHoppers", four_grace_hoppers()},
      {"Mi300a", mi300a()},
      {"XeonMaxFlat", xeon_max_flat()},
      {"KnightsLanding", knights_landing()},
      {"XeonWithOptane", xeon_with_optane()},
      {"XeonWithCxl", xeon_with_cxl()},
      {"XeonWithCxlFromFirmware", xeon_with_cxl_from_firmware()},
      {"A64fx", a64fx()},
      {"SixtyFourSparse", sixty_four_sparse()},
      {"WithoutNodeZero", without_node_zero()},
  };
  FakeMachine hotplug = FakeMachine::uniform(2, 4);
  hotplug.possible_cpus = "0-63";
  machines.push_back({"RoomForMoreCpus", hotplug});
  FakeMachine old_kernel = nodes_without_memory();
  old_kernel.has_memory_file = false;
  machines.push_back({"OldKernel", old_kernel});
  FakeMachine confined = FakeMachine::uniform(4, 4);
  confined.mems_allowed = "2-3";
  confined.cpus_allowed = "8-11";
  machines.push_back({"Confined", confined});
  FakeMachine one_of_many = FakeMachine::uniform(64, 4, 40);
  one_of_many.mems_allowed = "63";
  one_of_many.cpus_allowed = "252-253";
  machines.push_back({"OneNodeOfMany", one_of_many});
  FakeMachine memory_elsewhere = expander_memory();
  memory_elsewhere.mems_allowed = "2";
  memory_elsewhere.cpus_allowed = "0-1";
  machines.push_back({"MemoryElsewhere", memory_elsewhere});
  return machines;
}

}  // namespace nh
