// What every workload program of bench/compare and bench/hpc shares: the rows it offers, its command line, the line of
// JSON it prints. A workload knows nothing of numaheap and runs on whatever malloc the process has.
//
//   PROGRAM --list              a line per row: name, unit and what it does, separated by tabs
//   PROGRAM ROW [--quick]       runs that row and prints one line of JSON on stdout (README.md names its members)
//
// Exit status: 0, 1 if the row failed (reason on stderr), 2 for a wrong command line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bench {

// How a row is asked to run.
struct Run {
  bool quick = false;  // about an eighth of the work

  // An amount of work for this run.
  std::size_t scaled(std::size_t full) const { return quick ? (full + 7) / 8 : full; }
  // The memory that a workload may fill or the length of a history that must not get too short.
  std::size_t choose(std::size_t full, std::size_t short_form) const { return quick ? short_form : full; }
};

struct Result {
  double value = 0;      // in the row's unit; smaller is better
  std::string checksum;  // the same under every allocator; depends on the work having been done
};

struct Row {
  std::string name;  // "theme/detail", without spaces
  std::string unit;  // "ns/op", "ms", ...
  std::string what;  // one sentence
  std::function<Result(const Run&)> run;
};

using Table = std::vector<Row>;

// The body of main(). Catches what the row throws.
int run_program(int argc, char** argv, const Table& table);

// The line of JSON alone, for programs that cannot leave the command line to run_program() (MPI: rank 0 prints).
void print_result(std::string_view row, std::string_view unit, const Result& result);

// --- Time -----------------------------------------------------------------------------------------------------------

// Nanoseconds of the steady clock.
std::uint64_t now_ns();

// The middle of the values, the mean of both middle ones where their number is even. Not empty.
double median(std::vector<double> values);

// Runs `body` once untimed, then `repetitions` times; the median in nanoseconds.
template <class Body>
double median_ns(int repetitions, Body&& body) {
  body();
  std::vector<double> times;
  times.reserve(static_cast<std::size_t>(repetitions));
  for (int i = 0; i < repetitions; i++) {
    const std::uint64_t start = now_ns();
    body();
    times.push_back(static_cast<double>(now_ns() - start));
  }
  return median(std::move(times));
}

// --- What the compiler must not see through -------------------------------------------------------------------------

// Makes the compiler believe that the object at p is read and written here. A malloc whose result passes through is not
// removed. Costs no instruction.
inline void keep(const void* p) { asm volatile("" : : "r"(p) : "memory"); }

// --- Memory ---------------------------------------------------------------------------------------------------------

// Notes VmRSS + HugetlbPages as they are now. A row calls it outside of its timed part where it holds most memory: the
// kernel keeps the highest RSS by itself (VmHWM), but not the pages of huge-page pools. For one thread.
void sample_memory();

// The most KiB seen: the highest sample or VmHWM, whichever is more.
std::size_t peak_kib();

// --- Threads --------------------------------------------------------------------------------------------------------

// The number of CPUs that this process may run on.
std::size_t cpu_count();

// Binds the calling thread to the index-th of these CPUs, modulo their number.
void pin_to_cpu(std::size_t index);

// Runs body(0) ... body(count - 1) on threads of their own; all start together once all exist. Pinned threads have one
// CPU each, in turn. Returns the nanoseconds from the start of the first to the end of the last; rethrows what a body
// threw.
double run_threads(std::size_t count, bool pinned, const std::function<void(std::size_t)>& body);

// --- Contents -------------------------------------------------------------------------------------------------------

// xorshift64*: the same sequence everywhere, cheap enough to stay out of the figures.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u | 1) {}

  std::uint64_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1du;
  }

  // Uniform in [0, bound) without a division; bound up to 2^32.
  std::size_t below(std::size_t bound) { return static_cast<std::size_t>(((next() >> 32) * bound) >> 32); }

 private:
  std::uint64_t state_;
};

// Order-dependent sum over words (FNV-1a, 64 bits at a time).
class Checksum {
 public:
  void add(std::uint64_t word) { state_ = (state_ ^ word) * 0x100000001b3u; }
  std::string text() const;

 private:
  std::uint64_t state_ = 0xcbf29ce484222325u;
};

}  // namespace bench
