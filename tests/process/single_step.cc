// Under a debugger's single steps every restartable sequence is interrupted at each of its instructions. The calls must end
// all the same, and work.
#include <stdlib.h>
#include <string.h>

#include "harness/case.h"
#include "../support/single_step.h"

namespace {

constexpr size_t kSizes[] = {16, 100, 1000, 40000};
constexpr int kRounds = 2;
// A call that takes the long way needs some thousand instructions; one that starts over for ever needs any number.
constexpr long kMostSteps = 300'000;

// 0, or the number of what went wrong.
int allocate_and_free() {
  char* kept[kRounds][sizeof kSizes / sizeof *kSizes];
  int i = 0;
  for (auto& round : kept) {
    for (char*& p : round) {
      const size_t n = kSizes[&p - round];
      p = static_cast<char*>(i++ % 3 != 0 || n > 1000 ? malloc(n) : calloc(1, n));
      if (p == nullptr) return 1;
      p[0] = static_cast<char>(i);
      p[n - 1] = static_cast<char>(i);
      free(opaque(malloc(n)));
    }
  }
  i = 0;
  for (auto& round : kept) {
    for (char*& p : round) {
      const size_t n = kSizes[&p - round];
      if (p[n - 1] != static_cast<char>(++i)) return 2;
      p = static_cast<char*>(realloc(p, n + n / 8));
      if (p == nullptr || p[n - 1] != static_cast<char>(i)) return 3;
    }
  }
  for (auto& round : kept) {
    for (char* p : round) free(p);
  }
  return 0;
}

// Runs `body` step by step; it must end well.
void step(int (*body)()) {
  const nh::test::Stepped stepped = nh::test::run_stepped(kMostSteps, body);
  if (!stepped.possible) {
    static const char words[] = "skipped: ptrace is refused here\n";
    (void)!write(1, words, sizeof words - 1);
    return;
  }
  EXPECT(stepped.ended, "still running after %ld steps", stepped.steps);
  EXPECT(stepped.status == 0, "status %x", static_cast<unsigned>(stepped.status));
}

}  // namespace

CASE(single_steps_come_to_an_end) { step(allocate_and_free); }

// The caches hold objects, and lists have room: every call would be served by a sequence.
CASE(with_warm_caches) {
  EXPECT(allocate_and_free() == 0);
  step(allocate_and_free);
}

// A double free is noticed however the first free came to its end.
CASE(a_double_free_is_noticed) {
  const nh::test::Stepped stepped = nh::test::run_stepped(kMostSteps, [] {
    close(2);
    void* other = malloc(100);
    void* p = malloc(100);
    free(other);
    free(p);
    free(opaque(p));
    return 0;
  });
  if (!stepped.possible) return;
  EXPECT(stepped.ended && WIFSIGNALED(stepped.status) && WTERMSIG(stepped.status) == SIGABRT, "status %x",
         static_cast<unsigned>(stepped.status));
}
