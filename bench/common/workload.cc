#include "common/workload.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <barrier>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <system_error>
#include <thread>

namespace bench {
namespace {

std::size_t highest_sample_kib = 0;

// Figures of /proc/self/status in KiB, read without malloc: it must not change what it measures.
class Status {
 public:
  Status() {
    const int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    const ssize_t length = read(file, text_, sizeof text_ - 1);
    close(file);
    if (length > 0) text_[length] = '\0';
  }

  // 0 where the kernel has no such line. `field` with its colon.
  std::size_t kib(const char* field) const {
    const char* line = std::strstr(text_, field);
    return line == nullptr ? 0 : std::strtoull(line + std::strlen(field), nullptr, 10);
  }

 private:
  char text_[8192] = {};
};

cpu_set_t allowed_cpus() {
  // As it was before any thread was pinned.
  static const cpu_set_t allowed = [] {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) CPU_SET(0, &set);
    return set;
  }();
  return allowed;
}

// The file that holds the malloc which this program calls.
std::string allocator_path() {
  Dl_info info;
  void* const address = dlsym(RTLD_DEFAULT, "malloc");
  return address != nullptr && dladdr(address, &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : "";
}

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) >= 0x20) out += c;
  }
  return out + '"';
}

int usage(const char* program) {
  std::fprintf(stderr, "usage: %s --list | ROW [--quick]\n", program);
  return 2;
}

}  // namespace

std::uint64_t now_ns() {
  return static_cast<std::uint64_t>(
      std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count());
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

void sample_memory() {
  const Status status;
  highest_sample_kib = std::max(highest_sample_kib, status.kib("VmRSS:") + status.kib("HugetlbPages:"));
}

std::size_t peak_kib() {
  sample_memory();
  return std::max(highest_sample_kib, Status().kib("VmHWM:"));
}

std::size_t cpu_count() {
  const cpu_set_t allowed = allowed_cpus();
  return static_cast<std::size_t>(CPU_COUNT(&allowed));
}

void pin_to_cpu(std::size_t index) {
  const cpu_set_t allowed = allowed_cpus();
  std::size_t left = index % cpu_count();
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &allowed) || left-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) {
      throw std::system_error(errno, std::generic_category(), "sched_setaffinity");
    }
    return;
  }
}

double run_threads(std::size_t count, bool pinned, const std::function<void(std::size_t)>& body) {
  allowed_cpus();
  // Every thread looks at the clock itself: on a busy machine this one may be woken long after the others have begun.
  std::vector<std::uint64_t> begun(count), ended(count);
  std::barrier start(static_cast<std::ptrdiff_t>(count));
  std::mutex mutex;
  std::exception_ptr failure;
  std::vector<std::thread> threads;
  threads.reserve(count);
  for (std::size_t i = 0; i < count; i++) {
    threads.emplace_back([&, i] {
      const auto guarded = [&](auto&& step) {
        try {
          step();
        } catch (...) {
          const std::lock_guard lock(mutex);
          failure = std::current_exception();
        }
      };
      if (pinned) guarded([&] { pin_to_cpu(i); });
      start.arrive_and_wait();
      begun[i] = now_ns();
      guarded([&] { body(i); });
      ended[i] = now_ns();
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
  return static_cast<double>(*std::max_element(ended.begin(), ended.end()) -
                             *std::min_element(begun.begin(), begun.end()));
}

std::string Checksum::text() const {
  char hex[17];
  std::snprintf(hex, sizeof hex, "%016llx", static_cast<unsigned long long>(state_));
  return hex;
}

void print_result(std::string_view row, std::string_view unit, const Result& result) {
  const std::size_t peak = peak_kib();
  std::printf("{\"row\": %s, \"value\": %.9g, \"unit\": %s, \"peak_kib\": %zu, \"allocator\": %s, \"checksum\": %s}\n",
              quoted(row).c_str(), result.value, quoted(unit).c_str(), peak, quoted(allocator_path()).c_str(),
              quoted(result.checksum).c_str());
  std::fflush(stdout);
}

int run_program(int argc, char** argv, const Table& table) {
  if (argc == 2 && std::string_view(argv[1]) == "--list") {
    for (const Row& row : table) {
      std::printf("%s\t%s\t%s\n", row.name.c_str(), row.unit.c_str(), row.what.c_str());
    }
    return 0;
  }
  Run run;
  std::string_view name;
  for (int i = 1; i < argc; i++) {
    const std::string_view argument = argv[i];
    if (argument == "--quick") {
      run.quick = true;
    } else if (name.empty() && !argument.starts_with("-")) {
      name = argument;
    } else {
      return usage(argv[0]);
    }
  }
  if (name.empty()) return usage(argv[0]);
  const auto row = std::find_if(table.begin(), table.end(), [&](const Row& r) { return r.name == name; });
  if (row == table.end()) {
    std::fprintf(stderr, "%s: no row %.*s (--list names them)\n", argv[0], static_cast<int>(name.size()), name.data());
    return 2;
  }
  try {
    print_result(row->name, row->unit, row->run(run));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s %s: %s\n", argv[0], row->name.c_str(), error.what());
    return 1;
  }
  return 0;
}

}  // namespace bench
