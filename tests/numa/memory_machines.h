// Machines with more than one kind of memory, in the shapes in which they are sold.
#pragma once

#include <vector>

#include "fake_machine.h"

namespace nh {

inline void add_memory_only(FakeMachine& machine, FakeNode node) { machine.nodes.push_back(std::move(node)); }

inline std::vector<std::vector<int>> square(std::size_t nodes, int distance) {
  std::vector<std::vector<int>> rows(nodes, std::vector<int>(nodes, distance));
  for (std::size_t i = 0; i < nodes; i++) rows[i][i] = 10;
  return rows;
}
inline void set_both(FakeMachine& machine, std::size_t i, std::size_t j, int distance) {
  machine.distances[i][j] = machine.distances[j][i] = distance;
}

// Two POWER9 with GPUs whose memory the driver brings online: nodes 0 and 8, and 252 - 255.
inline FakeMachine power9_with_gpus() {
  FakeMachine machine;
  machine.nodes = {{.id = 0, .cpus = range(0, 16)}, {.id = 8, .cpus = range(88, 16)}};
  for (int gpu = 0; gpu < 4; gpu++) {
    add_memory_only(machine, {.id = 252 + gpu, .cpus = {}, .gpu = "000" + std::to_string(gpu) + ":04:00.0"});
  }
  machine.distances = square(6, 80);
  set_both(machine, 0, 1, 40);
  machine.possible_cpus = "0-175";
  return machine;
}

// Grace with a Hopper: the GPU's memory is node 1, and 2 - 8 wait for a GPU that is cut into instances. The GPU's link
// makes its own memory look quick, and its nodes are initiators in the firmware's tables.
inline FakeMachine grace_hopper(bool with_driver = true) {
  FakeMachine machine;
  machine.nodes = {{.id = 0, .cpus = range(0, 72), .memory_kib = 480 << 20, .bandwidth = 400'000, .latency = 150}};
  for (int n = 1; n < 9; n++) {
    FakeNode node{.id = n, .cpus = {}, .memory_kib = n == 1 ? std::size_t{96} << 20 : 0, .generic_initiator = true};
    if (n == 1) node.bandwidth = 3'000'000, node.latency = 300;
    if (n == 1 && with_driver) node.gpu = "0009:01:00.0";
    add_memory_only(machine, node);
  }
  machine.distances = square(9, 80);
  return machine;
}

// Four of them in one machine: 36 nodes.
inline FakeMachine four_grace_hoppers() {
  FakeMachine machine;
  for (int n = 0; n < 4; n++) machine.nodes.push_back({.id = n, .cpus = range(72 * n, 72), .memory_kib = 120 << 20});
  for (int n = 4; n < 36; n++) {
    const bool first = n % 8 == 4;
    FakeNode node{.id = n, .cpus = {}, .memory_kib = first ? std::size_t{96} << 20 : 0};
    if (first) node.gpu = "00" + std::to_string(n) + ":01:00.0";
    add_memory_only(machine, node);
  }
  machine.distances = square(36, 120);
  for (std::size_t i = 0; i < 4; i++) {
    for (std::size_t j = 0; j < i; j++) set_both(machine, i, j, 40);
    for (std::size_t j = 4 + 8 * i; j < 12 + 8 * i; j++) set_both(machine, i, j, 80);
  }
  return machine;
}

// CPUs and GPUs share one memory, which is all HBM: nothing to choose.
inline FakeMachine mi300a() {
  FakeMachine machine = FakeMachine::uniform(4, 48, 32);
  for (FakeNode& node : machine.nodes) node.memory_kib = 128 << 20, node.bandwidth = 1'000'000, node.latency = 120;
  return machine;
}

// Two Xeon Max, each cut in four, HBM as nodes of its own: DDR 0 - 7, HBM 8 - 15. The kernel (before 6.7) takes all dax
// memory for slower than DRAM; the firmware's figures say what it is.
inline FakeMachine xeon_max_flat() {
  FakeMachine machine = FakeMachine::uniform(8, 14, 21);
  for (FakeNode& node : machine.nodes) node.memory_kib = 64 << 20, node.bandwidth = 76'800, node.latency = 110;
  for (int n = 8; n < 16; n++) {
    add_memory_only(machine, {.id = n, .cpus = {}, .memory_kib = 16 << 20, .bandwidth = 204'800, .latency = 140,
                              .dax = "platform/hmem." + std::to_string(n - 8)});
  }
  machine.distances = square(16, 24);
  for (std::size_t i = 0; i < 16; i++) {
    for (std::size_t j = 0; j < i; j++) {
      const bool same_package = i % 8 / 4 == j % 8 / 4;
      const bool ddr = i < 8 && j < 8;
      set_both(machine, i, j, i % 8 == j % 8 ? 13 : same_package ? (ddr ? 12 : 14) : ddr ? 21 : 23);
    }
  }
  machine.memory_tiers = {"0-7", "8-15"};
  machine.first_tier = 4;
  return machine;
}

// Knights Landing, SNC-4 flat: DDR 0 - 3, MCDRAM 4 - 7. Neither HMAT nor tiers; the firmware keeps MCDRAM from filling up
// by accident with distances that say it is far away.
inline FakeMachine knights_landing() {
  FakeMachine machine = FakeMachine::uniform(4, 16);
  for (int n = 4; n < 8; n++) add_memory_only(machine, {.id = n, .cpus = {}, .memory_kib = 4 << 20});
  machine.distances = square(8, 21);
  for (std::size_t i = 4; i < 8; i++) {
    for (std::size_t j = 0; j < i; j++) set_both(machine, i, j, i % 4 == j ? 31 : 41);
  }
  machine.cpu_model = 87;
  return machine;
}

// Two packages with Optane as memory behind each, under a kernel without tiers; no HMAT.
inline FakeMachine xeon_with_optane() {
  FakeMachine machine = FakeMachine::uniform(2, 16, 21);
  for (int n = 2; n < 4; n++) {
    const std::string region = "region" + std::to_string(n - 2);
    add_memory_only(machine, {.id = n, .cpus = {}, .memory_kib = std::size_t{512} << 20,
                              .dax = "LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/" + region + "/dax" + region.back() + ".0"});
  }
  machine.distances = {{10, 21, 17, 28}, {21, 10, 28, 17}, {17, 28, 10, 28}, {28, 17, 28, 10}};
  return machine;
}

// An expander behind package 0, nearer to it than package 1 is.
inline FakeMachine xeon_with_cxl() {
  FakeMachine machine = FakeMachine::uniform(2, 16, 21);
  add_memory_only(machine, {.id = 2, .cpus = {}, .memory_kib = std::size_t{256} << 20,
                            .dax = "platform/ACPI0017:00/root0/decoder0.0/region0/dax_region0"});
  machine.distances = {{10, 21, 14}, {21, 10, 24}, {14, 24, 10}};
  return machine;
}

// The same, brought online by the firmware, which tells its figures; the kernel's tiers have large numbers.
inline FakeMachine xeon_with_cxl_from_firmware() {
  FakeMachine machine = xeon_with_cxl();
  machine.nodes[2].dax = "";
  for (FakeNode& node : machine.nodes) {
    node.bandwidth = node.cpus.empty() ? 30'000 : 200'000;
    node.latency = node.cpus.empty() ? 250 : 100;
  }
  machine.memory_tiers = {"0-1", "2"};
  machine.first_tier = 64;
  return machine;
}

// Four core memory groups with HBM, which is all there is. The nodes of the assistant cores are kept from jobs.
inline FakeMachine a64fx() {
  FakeMachine machine;
  for (int n = 4; n < 8; n++) machine.nodes.push_back({.id = n, .cpus = range(12 * (n - 3), 12), .memory_kib = 8 << 20});
  machine.distances = square(4, 20);
  set_both(machine, 0, 1, 15);
  set_both(machine, 2, 3, 15);
  machine.possible_cpus = "0-59";
  return machine;
}

// 64 nodes, numbered in steps of four, as firmware does that leaves room for packages cut in four.
inline FakeMachine sixty_four_sparse() {
  FakeMachine machine = FakeMachine::uniform(64, 2, 40);
  for (FakeNode& node : machine.nodes) node.id *= 4;
  return machine;
}

}  // namespace nh
