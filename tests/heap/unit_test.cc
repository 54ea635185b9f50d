// The layout of Unit, which is read from outside the process as LiveUnit (base/live_block.h).
#include "heap/unit.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/live_block.h"

namespace nh {
namespace {

TEST(Unit, IsLaidOutAsReadersExpect) {
  for (const UnitState state : {UnitState::kReserved, UnitState::kMapped, UnitState::kBacked, UnitState::kLost}) {
    for (const UnitKind kind : {UnitKind::kBase, UnitKind::kThp, UnitKind::kHuge2M, UnitKind::kHuge1G}) {
      for (const bool others : {false, true}) {  // the bits beside the kind
        Unit unit{};
        unit.state = state;
        unit.kind = kind;
        unit.bound = others ? BindMode::kInterleave : BindMode::kDefault;
        unit.kept = others;
        unit.place = others ? 300 : 0;
        unit.freed_tick = 7;
        LiveUnit seen;
        static_assert(sizeof seen == sizeof unit);
        std::memcpy(&seen, &unit, sizeof seen);
        EXPECT_EQ(seen.state, static_cast<unsigned>(state));
        EXPECT_EQ(seen.bits & ((1u << kLiveKindBits) - 1), static_cast<unsigned>(kind));
        EXPECT_EQ(seen.place, unit.place);
        EXPECT_EQ(seen.freed_tick, 7u);
      }
    }
  }
}

}  // namespace
}  // namespace nh
