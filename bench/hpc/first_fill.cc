// The first write to every byte of a large block.
//
// Shows what backs fresh memory: with base pages the kernel is entered 262 144 times per GiB, with pages of 2 MiB 512
// times, and each clears what it hands out. An allocator that clears or copies fresh memory itself shows up here, too.
//
// "Machine warm": a hypervisor hands memory to a virtual machine at its first use, which costs more than all else. So
// the first of several processes, one after the other, is not counted; the others get the pages that it gave back.
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>

#include "hpc/arrays.h"
#include "hpc/rows.h"

namespace bench {
namespace {

constexpr std::size_t kPage = 4096;

struct Fill {
  double ms;
  std::uint64_t sum;  // over a byte of every page
};

Fill fill_fresh(std::size_t bytes) {
  const std::uint64_t start = now_ns();
  const Array<unsigned char> block = make_array<unsigned char>(bytes);
  for (std::size_t at = 0; at < bytes; at += kPage) std::memset(block.get() + at, static_cast<int>(at / kPage), kPage);
  keep(block.get());
  const double ms = static_cast<double>(now_ns() - start) / 1e6;
  sample_memory();
  std::uint64_t sum = 0;
  for (std::size_t at = 0; at < bytes; at += kPage) sum += block[at + at / kPage % kPage];
  return {ms, sum};
}

// A process of its own gives the memory back to the kernel whatever the allocator does.
Fill fill_in_child(std::size_t bytes) {
  int ends[2];
  if (pipe(ends) != 0) throw std::system_error(errno, std::generic_category(), "pipe");
  const pid_t child = fork();
  if (child < 0) throw std::system_error(errno, std::generic_category(), "fork");
  if (child == 0) {
    int status = 1;
    try {
      const Fill fill = fill_fresh(bytes);
      if (write(ends[1], &fill, sizeof fill) == sizeof fill) status = 0;
    } catch (const std::bad_alloc&) {
    }
    _exit(status);
  }
  close(ends[1]);
  Fill fill{};
  const bool complete = read(ends[0], &fill, sizeof fill) == sizeof fill;
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (!complete || status != 0) throw std::runtime_error("the process that fills memory failed");
  return fill;
}

Result first_fill(const Run& run) {
  const std::size_t children = run.choose(4, 1);
  std::vector<double> times;
  Checksum sum;
  for (std::size_t i = 0; i < children; i++) {
    const Fill fill = fill_in_child(kGiB);
    if (i > 0) times.push_back(fill.ms);
  }
  const Fill own = fill_fresh(kGiB);  // here, so that this process's peak tells the memory
  times.push_back(own.ms);
  sum.add(own.sum);
  return {median(times), sum.text()};
}

}  // namespace

void add_first_fill(Table& table) {
  table.push_back(
      {"first-fill/1g", "ms", "malloc of 1 GiB and the first write to all of it, in a fresh process", first_fill});
}

}  // namespace bench
