#include <cstdio>

extern "C" int probe_rseq();

int main() {
  const int broken = probe_rseq();
  if (broken != 0) std::fprintf(stderr, "promise %d is broken, see rseq_probe.cc\n", broken);
  return broken;
}
