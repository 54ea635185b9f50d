// The memory of another process, and where its numaheap keeps what is read from outside (base/live_block.h). The process is
// not stopped and does not notice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nh::cli {

class ProcessMemory {
 public:
  explicit ProcessMemory(int pid) : pid_(pid) {}
  int pid() const { return pid_; }

  // True if all bytes were there. What could not be read is zero. The process may change it at any time: whoever goes by
  // what was read checks it first.
  bool read(std::uint64_t at, void* to, std::size_t bytes);
  template <typename T>
  bool read(std::uint64_t at, T* to) {
    return read(at, static_cast<void*>(to), sizeof(T));
  }
  struct Piece {
    std::uint64_t at;
    void* to;
    std::size_t bytes;
  };
  // Many pieces, few system calls.
  void read_pieces(std::span<const Piece> pieces);
  // At most `most` characters of a text that ends with a 0, printable().
  std::string read_text(std::uint64_t at, std::size_t most);

  // errno of the last read that failed for another reason than that nothing is mapped at an address: ESRCH, EPERM, ENOSYS.
  int error() const { return error_; }

 private:
  int pid_;
  int error_ = 0;
};

struct LivePlace {
  std::uint64_t block;  // address of the LiveBlock
  std::uint32_t version;
  std::string file;  // the library, or the program that has it inside
};
// The notes of a process's program and libraries, in the order of their addresses. false, with *why as a sentence: its
// mappings or its memory must not be read, or it is gone.
bool find_live_blocks(ProcessMemory& memory, std::vector<LivePlace>* found, std::string* why);

// What an errno value of reading /proc/PID or its memory means, and what to do about it.
std::string why_not_readable(int pid, int error);

// Text that another process chose, without what could steer a terminal.
std::string printable(std::string_view text);

// /proc/PID/stat, which anybody may read.
struct ProcessFacts {
  std::string command;
  char state = '?';
  std::uint64_t faults = 0;  // with and without reading from disk
  std::uint64_t threads = 0;
  std::uint64_t started = 0;  // in the kernel's ticks; with the id it names a process for ever
};
// false: there is no such process.
bool read_process_facts(int pid, ProcessFacts* facts);

}  // namespace nh::cli
