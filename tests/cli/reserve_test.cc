// Pools of a machine of plain files, which hold whatever is written to them; what gives less is a device.
#include "cli/reserve.h"

#include <cerrno>

#include <gtest/gtest.h>

#include "fake_root.h"

namespace nh::cli {
namespace {

class Reserve : public ::testing::Test {
 protected:
  Reserve() {
    request_.root = root_.path();
    request_.is_root = true;
  }
  // The problem, or nothing.
  std::string wish(const std::string& text) {
    std::string problem;
    const bool added = add_wish(text, &request_, &problem);
    EXPECT_EQ(added, problem.empty());
    return problem;
  }
  void run() {
    reserve(&request_, [this](int node, const char* step, std::uint64_t pages, std::uint64_t) {
      steps_ += std::to_string(node) + (step[0] == 'c' ? "c " : ":" + std::to_string(pages) + " ");
    });
  }
  std::string pages(const std::string& node, const std::string& kib = "2048") {
    return root_.read(FakeRoot::pool(node, kib) + "/nr_hugepages");
  }
  static bool has(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

  FakeRoot root_;
  ReserveRequest request_;
  std::string steps_;
};

TEST_F(Reserve, SetsWhatIsAskedForAndSaysHowToUndoIt) {
  EXPECT_EQ(wish("1=4G"), "");
  EXPECT_EQ(wish("0=100"), "");
  run();
  EXPECT_EQ(pages("0"), "100");
  EXPECT_EQ(pages("1"), "2048");
  EXPECT_EQ(pages("0", "1048576"), "0");
  EXPECT_TRUE(all_came(request_));
  const std::string text = outcome_text(request_);
  EXPECT_TRUE(has(text, "     0     2M       512       100       100       500   200.0 MiB\n")) << text;
  EXPECT_TRUE(has(text, "To undo it:\n  numaheap reserve --node 0=1G --node 1=1G\n")) << text;
  request_.is_root = false;
  EXPECT_EQ(undo_line(request_), "sudo numaheap reserve --node 0=1G --node 1=1G");
}

TEST_F(Reserve, WhatUndoesItUndoesIt) {
  for (const char* node : {"0", "1"}) root_.set_pool(node, "2048", node[0] == '0' ? 3 : 0, 0);
  EXPECT_EQ(wish("all=1G"), "");
  run();
  const std::string line = undo_line(request_);
  EXPECT_EQ(line, "numaheap reserve --node 0=6M --node 1=0");
  request_.changes.clear();
  EXPECT_EQ(wish("0=6M") + wish("1=0"), "");
  run();
  EXPECT_EQ(pages("0") + "," + pages("1"), "3,0");
}

TEST_F(Reserve, UnderstandsAmountsAndNodes) {
  EXPECT_EQ(wish("0-1=3M"), "");  // whole pages
  EXPECT_EQ(request_.changes.size(), 2u);
  EXPECT_EQ(request_.changes[1].wanted, 2u);
  EXPECT_EQ(wish("1=1G"), "node 1 is named twice; one amount is enough");
  request_.changes.clear();
  EXPECT_EQ(wish("0=4X"), "'4X' is no amount; write a size (4G, 512M) or a number of pages of 2M");
  EXPECT_EQ(wish("7=4G"), "node 7: there is none with pages of 2M; there are 0-1");
  EXPECT_EQ(wish("0=65G"),
            "node 0: 65.0 GiB are asked for, but it has 64.0 GiB in all; the rest of the system needs some, too");
  for (const char* text : {"", "4G", "0=", "=4G", "x=4G"}) EXPECT_TRUE(has(wish(text), "write --node 0=4G")) << text;
  EXPECT_TRUE(request_.changes.empty());
}

TEST_F(Reserve, PagesOfAGigabyte) {
  request_.kib = 1048576;
  EXPECT_EQ(wish("1=2500M"), "");
  run();
  EXPECT_EQ(pages("1", "1048576"), "3");
  EXPECT_EQ(undo_line(request_), "numaheap reserve --size 1G --node 1=0");
}

TEST_F(Reserve, GrowsInStepsAndShrinksFirst) {
  EXPECT_EQ(wish("0=10G") + wish("1=0"), "");
  request_.compact = true;
  run();
  EXPECT_EQ(steps_, "1:512 0c 0:512 0:2560 0:4608 ");  // 4 GiB at a time, from 1 GiB on
  EXPECT_EQ(pages("0"), "5120");
  EXPECT_EQ(root_.read(FakeRoot::kNodes + "/node0/compact"), "1");
  EXPECT_EQ(root_.read(FakeRoot::kNodes + "/node1/compact"), "");
}

TEST_F(Reserve, SaysWhyPagesDidNotCome) {
  root_.link(FakeRoot::pool("1") + "/nr_hugepages",
             "/dev/null");  // swallows what is written, and says nothing of pages
  request_.changes.push_back({{1, root_.path() + FakeRoot::pool("1"), 512, 500, 0}, {}, 6000, 0, {}});
  run();
  EXPECT_EQ(steps_, "1:512 ");  // no second step after one that fell short
  EXPECT_FALSE(all_came(request_));
  EXPECT_TRUE(has(outcome_text(request_),
                  "node 1: 5488 pages of 2M refused. 16.0 GiB are free there, 15.6 GiB of that in pieces"));
  EXPECT_TRUE(has(outcome_text(request_), "it is fragmented. --compact has"));
  request_.compact = true;
  EXPECT_TRUE(has(outcome_text(request_), "what lies between cannot be moved. --persist"));
  request_.changes[0].state.free = 100 * MiB;
  EXPECT_TRUE(has(outcome_text(request_), "memory is in use; numastat -m")) << outcome_text(request_);
}

TEST_F(Reserve, SaysWhatTheKernelRefused) {
  EXPECT_EQ(wish("0=600"), "");
  root_.link(FakeRoot::pool("0") + "/nr_hugepages", "/dev/full");
  run();
  EXPECT_EQ(request_.changes[0].error, ENOSPC);
  EXPECT_FALSE(all_came(request_));
  EXPECT_TRUE(has(outcome_text(request_), "node 0: the kernel refused: No space left on device"));
}

TEST_F(Reserve, PagesInUseStayUntilTheyAreGivenBack) {
  EXPECT_EQ(wish("0=0"), "");
  root_.write(FakeRoot::pool("0") + "/surplus_hugepages", "12\n");
  request_.changes[0].before.surplus = 0;
  run();
  EXPECT_TRUE(has(outcome_text(request_), "node 0: 12 pages more are in use; they go when"));
}

TEST_F(Reserve, LooksBeforeItChangesAnything) {
  EXPECT_EQ(wish("all=1G"), "");
  EXPECT_EQ(reserve_obstacle(request_, "numaheap reserve --node all=1G"), "");
  root_.remove(FakeRoot::pool("1"));
  request_.is_root = false;
  const std::string obstacle = reserve_obstacle(request_, "numaheap reserve --node all=1G");
  EXPECT_TRUE(has(obstacle, "node 1: ")) << obstacle;
  EXPECT_TRUE(
      has(obstacle, "cannot be written: No such file or directory. As root: sudo numaheap reserve --node all=1G"))
      << obstacle;
  request_.is_root = true;
  EXPECT_TRUE(has(reserve_obstacle(request_, ""), "run this on the host"));
}

TEST_F(Reserve, PlansWithoutChangingAnything) {
  EXPECT_EQ(wish("0=4G"), "");
  request_.compact = true;
  const std::string text = plan_text(request_);
  EXPECT_TRUE(has(text, "     0     2M       512      2048     4.0 GiB      16.0 GiB       15.6 GiB\n")) << text;
  EXPECT_TRUE(has(text, "would write 1 to /sys/devices/system/node/node0/compact\n"));
  EXPECT_TRUE(has(text,
                  "would write 2048 to /sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages\nNothing "
                  "was changed.\n"));
  EXPECT_EQ(pages("0"), "512");
}

TEST_F(Reserve, TellsHowToMakeItLast) {
  EXPECT_EQ(wish("all=4G"), "");
  const std::string even = lasting_text(request_);
  EXPECT_TRUE(has(even, "\nhugepagesz=2M hugepages=0:2048,1:2048\n"));
  EXPECT_TRUE(has(even, "\nExecStart=/bin/sh -c 'echo 2048 > node1/hugepages/hugepages-2048kB/nr_hugepages'\n"));
  EXPECT_TRUE(has(even, "\nvm.nr_hugepages = 4096\n"));
  request_.changes[1].wanted = 0;
  const std::string uneven = lasting_text(request_);
  EXPECT_TRUE(has(uneven, "hugepages=0:2048,1:0\n"));
  EXPECT_TRUE(has(uneven, "sysctl cannot say this"));
  EXPECT_EQ(pages("0"), "512");
}

TEST_F(Reserve, ShowsWhatThereIs) {
  const NodeState state = node_state(root_.path(), 1);
  EXPECT_EQ(state.free, 16 * GiB);
  EXPECT_EQ(state.free_pieces, 10 * 2 * MiB + 4000 * 4 * MiB);  // as /proc/buddyinfo has them
  const std::string text = pools_text(root_.path());
  EXPECT_TRUE(has(text, "     1     2M       512       500        12     1.0 GiB\n")) << text;
  EXPECT_TRUE(has(text, "     0     1G         0         0         0         0 B\n")) << text;
}

// A kernel without NUMA.
TEST_F(Reserve, OnePoolForTheWholeMachine) {
  root_.remove(FakeRoot::kNodes);
  root_.write("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "3\n");
  EXPECT_EQ(wish("0=8M"), "");
  run();
  EXPECT_EQ(root_.read("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"), "4");
  EXPECT_TRUE(has(lasting_text(request_), "\nhugepagesz=2M hugepages=4\n"));
  EXPECT_TRUE(has(lasting_text(request_), "'echo 4 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages'"));
}

}  // namespace
}  // namespace nh::cli
