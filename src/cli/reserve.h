// Pools of huge pages, node by node: what is asked for, what came of it, how it is undone and how it is made to last.
// Everything works below `root`, the directory that stands for "/".
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/machine_files.h"

namespace nh::cli {

// One node's pool: what it holds and what it is to hold.
struct PoolChange {
  NodePool before, after;
  std::uint64_t wanted = 0;  // pages
  int error = 0;             // errno value with which the kernel refused, other than by giving fewer pages
  NodeState state;           // the node's memory afterwards
};

struct ReserveRequest {
  std::string root;
  std::string tool = "numaheap";
  std::uint64_t kib = 2048;
  bool compact = false;
  bool is_root = false;
  std::vector<PoolChange> changes;  // by node
  std::uint64_t page_bytes() const { return kib * KiB; }
};

// Adds "NODES=AMOUNT" to a request whose page size is settled: NODES as for numactl, AMOUNT a number of pages or a size
// with a suffix, which is rounded up to whole pages. false: *problem says why, and what to write.
bool add_wish(std::string_view text, ReserveRequest* request, std::string* problem);

// Empty, or why nothing can be set here and what to do: checked before anything is changed.
std::string reserve_obstacle(const ReserveRequest& request, const std::string& command_line);

// Sets the pools, in steps so that progress can be told: called with a node, the pages it has and is to have.
using Progress = std::function<void(int node, const char* step, std::uint64_t pages, std::uint64_t wanted)>;
void reserve(ReserveRequest* request, const Progress& progress);
bool all_came(const ReserveRequest& request);

std::string pools_text(const std::string& root);          // what there is
std::string plan_text(const ReserveRequest& request);     // what would be done
std::string outcome_text(const ReserveRequest& request);  // before and after, what was refused and why, how to undo it
std::string undo_line(const ReserveRequest& request);
std::string lasting_text(const ReserveRequest& request);  // for boot loader, systemd and sysctl

}  // namespace nh::cli
