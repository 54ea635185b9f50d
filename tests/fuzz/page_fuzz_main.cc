// Random cases from a seed, in child processes so that an abort inside the allocator is a finding like any other. A
// failing case is cut down and printed as text that --replay takes.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <new>
#include <string>

#include "fuzz/page_fuzz.h"

namespace {

using nh::page_fuzz::Case;

constexpr const char* kUsage =
    "usage: page_fuzz [--seed N] [--cases N] [--commands N]   random cases; seeds N, N+1, ...\n"
    "       page_fuzz --replay FILE                           a printed case\n"
    "       page_fuzz --bytes FILE                            an input of a coverage-guided fuzzer\n";

// fn() in a child: true if it returned true and did not die.
template <typename Fn>
bool survives(Fn fn, bool quiet) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) {
    std::perror("fork");
    std::exit(2);
  }
  if (child == 0) {
    if (quiet && (std::freopen("/dev/null", "w", stderr) == nullptr)) _exit(2);
    _exit(fn() ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool passes(const Case& c) {
  return survives([&c] { return nh::page_fuzz::run(c).empty(); }, true);
}

// Leaves out ever smaller groups of commands for as long as the case still fails; at last single ones, until each that
// is left matters.
Case minimise(Case c) {
  bool shrunk = false;
  for (std::size_t group = c.commands.size(); group != 0; group = group == 1 && shrunk ? 1 : group / 2) {
    shrunk = false;
    for (std::size_t at = 0; at < c.commands.size();) {
      Case shorter = c;
      const auto from = shorter.commands.begin() + static_cast<std::ptrdiff_t>(at);
      const std::size_t n = std::min(group, c.commands.size() - at);
      shorter.commands.erase(from, from + static_cast<std::ptrdiff_t>(n));
      if (passes(shorter)) {
        at += group;
      } else {
        c = shorter;
        shrunk = true;
      }
    }
  }
  return c;
}

int run_one(const Case& c) {
  const std::string error = nh::page_fuzz::run(c);
  if (error.empty()) return 0;
  std::fprintf(stderr, "%s\n", error.c_str());
  return 1;
}

int run_many(std::uint64_t seed, std::uint64_t cases, std::size_t commands) {
  std::printf("page_fuzz: seeds %llu .. %llu, %zu commands each\n", static_cast<unsigned long long>(seed),
              static_cast<unsigned long long>(seed + cases - 1), commands);
  // The child counts where the parent can read it, so that one child serves all cases until one fails.
  void* shared = mmap(nullptr, sizeof(std::uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) {
    std::perror("mmap");
    return 2;
  }
  auto& current = *new (shared) std::atomic<std::uint64_t>(seed);
  const bool good = survives(
      [&] {
        for (; current != seed + cases; current++) {
          const std::string error = nh::page_fuzz::run(nh::page_fuzz::from_seed(current, commands));
          if (error.empty()) continue;
          std::fprintf(stderr, "%s\n", error.c_str());
          return false;
        }
        return true;
      },
      false);
  if (good) return 0;
  std::fprintf(stderr, "page_fuzz: seed %llu failed; cutting it down\n",
               static_cast<unsigned long long>(current.load()));
  const Case c = minimise(nh::page_fuzz::from_seed(current, commands));
  std::fprintf(stderr, "# page_fuzz --replay FILE, FILE being these lines:\n%s", nh::page_fuzz::to_text(c).c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  // A fresh seed each time finds more than a fixed one; it is printed, and NH_FUZZ_SEED or --seed repeats it.
  std::uint64_t seed = static_cast<std::uint64_t>(std::time(nullptr)) * 100'000;
  if (const char* given = std::getenv("NH_FUZZ_SEED")) seed = std::strtoull(given, nullptr, 0);
  std::uint64_t cases = 800;
  std::size_t commands = 400;
  for (int i = 1; i < argc; i += 2) {
    const std::string option = argv[i];
    if (i + 1 == argc) {
      std::fputs(kUsage, stderr);
      return 2;
    }
    const char* value = argv[i + 1];
    if (option == "--seed") {
      seed = std::strtoull(value, nullptr, 0);
    } else if (option == "--cases") {
      cases = std::strtoull(value, nullptr, 0);
    } else if (option == "--commands") {
      commands = std::strtoull(value, nullptr, 0);
    } else if (option == "--replay" || option == "--bytes") {
      std::ifstream file(value, std::ios::binary);
      if (!file) {
        std::fprintf(stderr, "page_fuzz: %s: %s\n", value, std::strerror(errno));
        return 2;
      }
      const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
      Case c;
      std::string error;
      if (option == "--bytes") {
        c = nh::page_fuzz::from_bytes(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
      } else if (!nh::page_fuzz::from_text(text, &c, &error)) {
        std::fprintf(stderr, "page_fuzz: %s\n", error.c_str());
        return 2;
      }
      return run_one(c);
    } else {
      std::fputs(kUsage, stderr);
      return 2;
    }
  }
  return run_many(seed, cases, commands);
}
