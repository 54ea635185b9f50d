// Leaving no old pointers on the stack.
#pragma once

// Wipes what earlier calls have left.
[[gnu::noinline]] inline void forget_calls() {
  volatile char stack[64 << 10];
  for (volatile char& c : stack) c = 0;
}

// Calls so far down the stack that forget_calls() wipes all of it later.
template <typename Call>
[[gnu::noinline]] void deep(Call&& call) {
  [[maybe_unused]] volatile char distance[8 << 10];
  distance[0] = 0;
  call();
  distance[1] = 0;
}
