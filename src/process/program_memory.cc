#include "process/program_memory.h"

#include <cerrno>
#include <cstring>

#include <pthread.h>

#include "base/format.h"
#include "os/room.h"
#include "os/segments.h"
#include "process/process.h"
#include "process/start.h"
#include "process/static_pool.h"
#include "process/stores_stopped.h"

namespace nh {
namespace {

// Zeroes below that stay as they are: a second-level TLB covers 4 to 8 MiB with base pages, so there is little to gain, and
// a program that uses single pages of them would grow by 2 MiB for each.
constexpr std::size_t kLeastZeroes = 8 * MiB;
// A copy takes all of its memory at once, whether the program will use it or not.
constexpr std::size_t kLeastData = 32 * MiB;
// Where threads on several nodes fill an array, half a huge page is wrong at each border between them: one part in a hundred.
constexpr std::size_t kLeastPerNode = 100 * MiB;

// Smaller ones are of no use to anybody but reports, which then call their zeroes "other".
constexpr std::size_t kLeastSegment = 64 * KiB;

struct SegmentList {
  static constexpr unsigned kMax = 128;
  Segment items[kMax];
  unsigned count = 0;
};
// Written once, by the constructor. The program's own come first.
constinit SegmentList g_segments;

// Where libc's record of the thread begins that ran the constructor.
constinit std::uintptr_t g_first_thread = 0;

void keep(void*, const Segment& segment) {
  if (segment.zeroes.end - segment.file.start < (segment.writable ? kLeastSegment : kHugeSize)) return;
  if (g_segments.count < SegmentList::kMax) g_segments.items[g_segments.count++] = segment;
}

template <typename Is>
bool any_segment(Is&& is) {
  for (unsigned i = 0; i < g_segments.count; i++) {
    if (is(g_segments.items[i])) return true;
  }
  return false;
}

// Whether so much more can be on huge pages: even if the program meant to touch one byte of each, it has to find room for
// all of it. Files are read for the first answer, so small programs do not ask.
class Budget {
 public:
  bool take(std::size_t bytes) {
    if (!known_ && linux_os().thp_mode() != 0) left_ = room_of_machine() / 10 * 9;
    known_ = true;
    if (bytes > left_) return false;
    left_ -= bytes;
    return true;
  }

 private:
  bool known_ = false;
  std::size_t left_ = 0;
};

// The nodes between which the program's first touch decides.
unsigned nodes_of_first_touch() {
  const Backer::Config& config = g_process.heaps[g_process.first_touch].heap.backer().config();
  return config.policy_places ? 1 : config.nodes.count();
}

// True where that is not known.
bool has_threads() { return process_facts().threads != 1; }

// Puts a copy on huge pages in the place of `range`. The kernel checks what can fail (the number of mappings, a seal) before
// it takes the old pages away.
int replace_by_copy(const AddressRange& range, bool executable) {
  const OsOps& os = linux_os();
  void* const copy = os.reserve(range.bytes(), kHugeSize);
  if (copy == nullptr) return ENOMEM;
  int error = os.make_writable(copy, range.bytes());
  if (error == 0) error = os.advise_thp(copy, range.bytes(), true);
  if (error == 0) {
    const StoresStopped stopped;
    std::memcpy(copy, range.begin(), range.bytes());
    if (executable) error = make_executable(copy, range.bytes());
    if (error == 0) error = os.move_mapping(copy, range.begin(), range.bytes());
  }
  if (error != 0) os.unmap(copy, range.bytes());
  return error;
}

// Whether NUMAHEAP_STATIC=2m can be honoured here, apart from the pool.
bool may_use_pool(const Segment& segment) {
  const Options& options = g_process.options;
  if (options.static_data != StaticOption::k2M) return false;
  if (has_threads()) {
    cannot_honour(options, "NUMAHEAP_STATIC=2m: the process has threads already; transparent huge pages serve instead");
    return false;
  }
  // What a fork does runs on variables of ours while others may not be stored to.
  if (!AddressRange{segment.file.start, segment.zeroes.end}.contains(address(&g_process))) return true;
  cannot_honour(options, "NUMAHEAP_STATIC=2m: not in a program that libnumaheap.a is linked into; transparent huge pages serve "
                         "instead");
  return false;
}

void advise_static(const Segment& segment, Budget& budget) {
  const unsigned nodes = nodes_of_first_touch();
  const AddressRange zeroes = segment.zeroes.whole_huge_pages(), data = segment.file.whole_huge_pages();
  const bool large_zeroes = zeroes.bytes() >= (nodes > 1 ? nodes * kLeastPerNode : kLeastZeroes);
  // Whoever copies touches first.
  const bool large_data = nodes == 1 && data.bytes() >= kLeastData;
  if (!large_zeroes && !large_data) return;
  const bool pool = may_use_pool(segment);
  if (large_zeroes && !(pool && move_static_data_to_pool(zeroes, true)) && budget.take(zeroes.bytes())) {
    linux_os().advise_thp(zeroes.begin(), zeroes.bytes(), true);
  }
  if (large_data && !(pool && move_static_data_to_pool(data, false)) && !has_threads() && budget.take(data.bytes())) {
    replace_by_copy(data, false);
  }
}

void advise_text(const Segment& segment, Budget& budget) {
  const AddressRange code = segment.file.whole_huge_pages();
  if (code.bytes() == 0 || !budget.take(code.bytes()) || collapse(code.begin(), code.bytes()) == 0) return;
  const int error = has_threads() ? EBUSY : replace_by_copy(code, true);
  if (error == 0) return;
  Text<200> line;
  line.text("NUMAHEAP_TEXT=thp: ").bytes(code.bytes()).text(" of code stay where they are (errno ").sdec(error).ch(')');
  cannot_honour(g_process.options, line.c_str());
}

}  // namespace

void advise_program_memory() {
  const Options& options = g_process.options;
  for_each_segment(keep, nullptr);
  g_first_thread = address(__builtin_thread_pointer());
  const bool asked = (options.given(OptionId::kStatic) && options.static_data == StaticOption::kThp) ||
                     options.text != ThpOption::kOff || options.stacks != ThpOption::kOff;
  if (asked && linux_os().thp_mode() == 0) {
    return cannot_honour(options, "NUMAHEAP_STATIC, NUMAHEAP_TEXT, NUMAHEAP_STACKS: transparent huge pages are off");
  }
  Budget budget;
  for (unsigned i = 0; i < g_segments.count; i++) {
    const Segment& segment = g_segments.items[i];
    if (segment.writable && options.static_data != StaticOption::kOff) advise_static(segment, budget);
    if (segment.executable && !segment.writable && options.text != ThpOption::kOff) advise_text(segment, budget);
  }
  // A stack grows within the mapping's advice.
  if (options.stacks == ThpOption::kOff) return;
  if (const AddressRange stack = main_stack(); stack.bytes() != 0) linux_os().advise_thp(stack.begin(), stack.bytes(), true);
}

void advise_own_stack() {
  pthread_attr_t attributes;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) return;
  void* start = nullptr;
  std::size_t bytes = 0;
  if (pthread_attr_getstack(&attributes, &start, &bytes) == 0 && !g_process.space.contains(start)) {
    const AddressRange deep = AddressRange{address(start), address(__builtin_frame_address(0))}.whole_huge_pages();
    if (deep.bytes() != 0) linux_os().advise_thp(deep.begin(), deep.bytes(), true);
  }
  pthread_attr_destroy(&attributes);
}

bool is_static_data(std::uintptr_t at) {
  return any_segment([at](const Segment& s) { return s.writable && (s.file.contains(at) || s.zeroes.contains(at)); });
}

bool is_code(std::uintptr_t at) {
  return any_segment([at](const Segment& s) { return s.executable && s.file.contains(at); });
}

bool is_record_of_first_thread(std::uintptr_t at) { return at - g_first_thread < kOsPageSize; }

}  // namespace nh
