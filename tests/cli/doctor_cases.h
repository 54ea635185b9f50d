// The faults that the doctor can find: each a machine without faults into which one is brought.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cli/doctor.h"
#include "fake_root.h"

namespace nh::cli {

// What surrounds the tool on a machine without faults.
Surroundings healthy(const FakeRoot& root);
void fails(Surroundings& around, Ability ability, int error);
void empty_pools(const FakeRoot& root);

struct Case {
  const char* id;
  Severity severity;
  const char* here;    // part of what it is here
  const char* remedy;  // part of one of the remedies
  std::function<void(const FakeRoot&, Surroundings&)> spoil;
};
const std::vector<Case>& cases();

}  // namespace nh::cli
