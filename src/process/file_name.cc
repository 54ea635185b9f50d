#include "process/file_name.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/scan.h"

namespace nh {
namespace {

// Who starts the ranks of a job tells them their number in a variable of its own.
constexpr std::string_view kRanks[] = {"PMIX_RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID"};

void write_rank(TextWriter& out) {
  for (const std::string_view name : kRanks) {
    for (char** v = environ; v != nullptr && *v != nullptr; v++) {
      std::string_view rest(*v);
      std::uint64_t rank;
      if (!take(&rest, name) || !take(&rest, "=") || !take_decimal(&rest, &rank)) continue;
      out.dec(rank);
      return;
    }
  }
  out.ch('0');
}

void write_host(TextWriter& out) {
  struct utsname name;
  out.text(::uname(&name) == 0 ? name.nodename : "unknown");
}

}  // namespace

void write_file_name(TextWriter& out, const char* pattern) {
  for (const char* c = pattern; *c != '\0'; c++) {
    if (*c != '%') {
      out.ch(*c);
      continue;
    }
    switch (*++c) {
      case 'p': out.sdec(getpid()); break;
      case 'h': write_host(out); break;
      case 'e': out.text(program_invocation_short_name); break;
      case 'r': write_rank(out); break;
      case '%': out.ch('%'); break;
      default:  // no mark
        out.ch('%');
        c--;
    }
  }
}

int open_to_write(const char* path) {
  const long fd = ::syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  return fd >= 0 ? static_cast<int>(fd) : -errno;
}

}  // namespace nh
