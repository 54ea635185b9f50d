#include "support/huge_pool_guard.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

namespace nh::test {
namespace {

constexpr const char* kLockFile = "/tmp/nh-hugepages.lock";

void counter_path(char (&path)[128], std::size_t page_bytes, const char* name) {
  std::snprintf(path, sizeof path, "/sys/kernel/mm/hugepages/hugepages-%zukB/%s", page_bytes / 1024, name);
}

std::size_t read_counter(std::size_t page_bytes, const char* name) {
  char path[128];
  counter_path(path, page_bytes, name);
  std::FILE* const f = std::fopen(path, "r");
  if (f == nullptr) return 0;
  std::size_t value = 0;
  if (std::fscanf(f, "%zu", &value) != 1) value = 0;
  std::fclose(f);
  return value;
}

bool write_total(std::size_t page_bytes, std::size_t pages) {
  char path[128];
  counter_path(path, page_bytes, "nr_hugepages");
  std::FILE* const f = std::fopen(path, "w");
  if (f == nullptr) return false;
  std::fprintf(f, "%zu", pages);
  return std::fclose(f) == 0;
}

}  // namespace

std::size_t HugePoolGuard::total(std::size_t page_bytes) { return read_counter(page_bytes, "nr_hugepages"); }
std::size_t HugePoolGuard::free(std::size_t page_bytes) {
  const std::size_t free_pages = read_counter(page_bytes, "free_hugepages");
  const std::size_t promised = read_counter(page_bytes, "resv_hugepages");
  return free_pages > promised ? free_pages - promised : 0;
}

HugePoolGuard::HugePoolGuard(std::size_t free_pages, std::size_t page_bytes) : page_bytes_(page_bytes) {
  lock_ = ::open(kLockFile, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock_ < 0) {
    // The file of another user in a sticky directory (fs.protected_regular) can still be locked for reading.
    lock_ = ::open(kLockFile, O_RDONLY | O_CLOEXEC);
  }
  if (lock_ < 0 || ::flock(lock_, LOCK_EX) != 0) {
    std::snprintf(why_, sizeof why_, "cannot lock %s: %s", kLockFile, std::strerror(errno));
    return;
  }
  // "<page bytes> <pages>" left behind by a guard that was killed.
  char left[64] = "";
  const ssize_t n = ::pread(lock_, left, sizeof left - 1, 0);
  std::size_t left_bytes = 0;
  std::size_t left_pages = 0;
  if (n > 0 && std::sscanf(left, "%zu %zu", &left_bytes, &left_pages) == 2) write_total(left_bytes, left_pages);

  // Surplus pages are counted in the total, but go by themselves with the process that holds them.
  old_total_ = total(page_bytes_) - read_counter(page_bytes_, "surplus_hugepages");
  const int length = std::snprintf(left, sizeof left, "%zu %zu\n", page_bytes_, old_total_);
  // Without the note only the recovery after a SIGKILL is lost.
  if (::pwrite(lock_, left, static_cast<std::size_t>(length), 0) == length) {
    [[maybe_unused]] const int cut = ::ftruncate(lock_, length);
  }
  set_free(free_pages);
}

HugePoolGuard::~HugePoolGuard() {
  if (lock_ < 0) return;
  write_total(page_bytes_, old_total_);
  [[maybe_unused]] const int cut = ::ftruncate(lock_, 0);
  ::close(lock_);  // releases the lock
}

bool HugePoolGuard::set_free(std::size_t free_pages) {
  why_[0] = '\0';
  const std::size_t in_use = total(page_bytes_) - free(page_bytes_);
  if (free(page_bytes_) != free_pages && !write_total(page_bytes_, in_use + free_pages)) {
    std::snprintf(why_, sizeof why_, "cannot set nr_hugepages of %zu kB pages: %s", page_bytes_ / 1024,
                  std::strerror(errno));
  } else if (free(page_bytes_) != free_pages) {
    std::snprintf(why_, sizeof why_, "wanted %zu free pages of %zu kB, the kernel found %zu", free_pages,
                  page_bytes_ / 1024, free(page_bytes_));
  }
  return ok();
}

}  // namespace nh::test
