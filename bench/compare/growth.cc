// Memory that the process has not had before.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <system_error>

#include "compare/blocks.h"
#include "compare/rows.h"

namespace bench {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

struct Growth {
  double ms = 0;
  Checksum sum;
};

// What `grow` takes where the machine has the memory at hand: a virtual machine gets a page from its host at first use,
// which costs more than all else. So it is done three times and the fastest counts; twice in processes of their own, so
// that the memory is fresh for the allocator every time, and in this one last, whose memory is looked at.
template <class Grow>
Result on_warm_machine(Grow&& grow) {
  double best = 0;
  const auto count = [&](double ms) { best = best == 0 ? ms : std::min(best, ms); };
  for (int i = 0; i < 2; i++) {
    int ends[2];
    if (pipe(ends) != 0) throw std::system_error(errno, std::generic_category(), "pipe");
    const pid_t child = fork();
    if (child < 0) throw std::system_error(errno, std::generic_category(), "fork");
    if (child == 0) {
      double ms = 0;
      try {
        ms = grow().ms;
      } catch (const std::bad_alloc&) {
        _exit(1);
      }
      _exit(write(ends[1], &ms, sizeof ms) == sizeof ms ? 0 : 1);
    }
    close(ends[1]);
    double ms = 0;
    const bool complete = read(ends[0], &ms, sizeof ms) == sizeof ms;
    close(ends[0]);
    waitpid(child, nullptr, 0);
    if (!complete) throw std::runtime_error("a process that grew as this one would has failed");
    count(ms);
  }
  const Growth last = grow();
  count(last.ms);
  return {best, last.sum.text()};
}

// One block, written from front to back.
Growth first_fill(std::size_t bytes) {
  const std::uint64_t start = now_ns();
  auto* const p = static_cast<unsigned char*>(allocate(bytes));
  std::memset(p, 1, bytes);
  keep(p);
  Growth growth{static_cast<double>(now_ns() - start) / 1e6, {}};
  sample_memory();
  for (std::size_t at = 0; at < bytes; at += kMiB) growth.sum.add(p[at]);
  std::free(p);
  return growth;
}

// A program that grows and frees nothing: objects of mixed sizes, written to the end, until they hold `bytes`.
Growth slow_growth(std::size_t bytes) {
  struct Object {
    Object* below;
    std::size_t size;
  };
  const MixedSizes sizes;
  Random random(3);
  Object* top = nullptr;
  const std::uint64_t start = now_ns();
  for (std::size_t held = 0; held < bytes;) {
    const std::size_t size = sizes(random.next() >> 32);
    auto* const object = static_cast<Object*>(allocate(size));
    std::memset(static_cast<void*>(object), 1, size);
    object->below = top;
    object->size = size;
    top = object;
    held += size;
  }
  Growth growth{static_cast<double>(now_ns() - start) / 1e6, {}};
  sample_memory();
  for (const Object* object = top; object != nullptr; object = object->below) growth.sum.add(object->size);
  return growth;
}

}  // namespace

void add_growth(Table& table) {
  const auto add = [&](const char* name, const char* what, Growth (*grow)(std::size_t)) {
    table.push_back({name, "ms", what, [grow](const Run& run) {
                       return on_warm_machine([&] { return grow(run.choose(1024, 256) * kMiB); });
                     }});
  };
  add("growth/fill-1G", "first fill of one block of 1 GiB (quick: 256 MiB)", first_fill);
  add("growth/leak-1G", "mixed sizes, nothing freed, until 1 GiB is held (quick: 256 MiB)", slow_growth);
}

}  // namespace bench
