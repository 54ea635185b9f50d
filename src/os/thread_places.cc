#include "os/thread_places.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/scan.h"
#include "os/linux_calls.h"
#include "os/procfs.h"

namespace nh {

bool for_each_thread_record(void (*visit)(void* argument, std::uintptr_t at), void* argument) {
  struct Walk {
    void (*visit)(void* argument, std::uintptr_t at);
    void* argument;
  } walk{visit, argument};
  const linux_os_detail::ErrnoKeeper keep;
  return for_each_entry("/proc/self/task", [](void* w, const char* name) {
    std::string_view text(name);
    std::uint64_t thread = 0;
    if (!take_decimal(&text, &thread)) return true;
    // The list of robust mutexes begins in libc's record. A thread that has ended meanwhile has none.
    robust_list_head* list = nullptr;
    std::size_t size = 0;
    const Walk& to = *static_cast<const Walk*>(w);
    if (::syscall(SYS_get_robust_list, thread, &list, &size) == 0 && list != nullptr) to.visit(to.argument, address(list));
    return true;
  }, &walk);
}

}  // namespace nh
