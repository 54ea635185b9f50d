// Memory that the process has not had before.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>
#include <system_error>

#include "compare/blocks.h"
#include "compare/rows.h"

namespace bench {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

// Touches memory of every kind that an allocator may take, in a process of its own and just before it is measured: what
// a virtual machine has not used for a while is slow, and whose fault that is is not the question. Base pages and huge
// pages come from different free lists of the kernel, and the pool has its own.
void warm_machine(std::size_t bytes) {
  const pid_t child = fork();
  if (child < 0) throw std::system_error(errno, std::generic_category(), "fork");
  if (child == 0) {
    const auto touch = [bytes](int flags, int advice) {
      void* const p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
      if (p == MAP_FAILED) return;  // a pool that is too small serves nobody
      madvise(p, bytes, advice);
      std::memset(p, 1, bytes);
    };
    touch(0, MADV_NOHUGEPAGE);
    touch(0, MADV_HUGEPAGE);
    touch(MAP_HUGETLB, MADV_NORMAL);
    _exit(0);
  }
  int status = 0;
  if (waitpid(child, &status, 0) != child || status != 0) throw std::runtime_error("no memory to warm up");
}

// One block, written from front to back.
Result first_fill(const Run& run) {
  const std::size_t bytes = run.choose(1024, 256) * kMiB;
  warm_machine(bytes);
  const std::uint64_t start = now_ns();
  auto* const p = static_cast<unsigned char*>(allocate(bytes));
  std::memset(p, 1, bytes);
  keep(p);
  const double ns = static_cast<double>(now_ns() - start);
  Checksum sum;
  for (std::size_t at = 0; at < bytes; at += kMiB) sum.add(p[at]);
  sample_memory();
  std::free(p);
  return {ns / 1e6, sum.text()};
}

// A program that grows and frees nothing: objects of mixed sizes, written to the end, until they hold `bytes`.
Result slow_growth(const Run& run) {
  struct Object {
    Object* below;
    std::size_t size;
  };
  const std::size_t bytes = run.choose(1024, 256) * kMiB;
  const MixedSizes sizes;
  warm_machine(bytes);
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
  const double ns = static_cast<double>(now_ns() - start);
  sample_memory();
  Checksum sum;
  for (const Object* object = top; object != nullptr; object = object->below) sum.add(object->size);
  return {ns / 1e6, sum.text()};
}

}  // namespace

void add_growth(Table& table) {
  table.push_back({"growth/fill-1G", "ms", "first fill of one block of 1 GiB (quick: 256 MiB)", first_fill});
  table.push_back({"growth/leak-1G", "ms", "mixed sizes, nothing freed, until 1 GiB is held (quick: 256 MiB)", slow_growth});
}

}  // namespace bench
