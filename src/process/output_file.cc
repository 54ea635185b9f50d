#include "process/output_file.h"

#include <cerrno>

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/file_name.h"

namespace nh {

void write_own_file_name(TextWriter& out, const char* pattern) {
  struct utsname machine;
  FileNameFacts facts;
  facts.pid = ::getpid();
  facts.host = ::uname(&machine) == 0 ? machine.nodename : "unknown";
  facts.program = program_invocation_short_name;
  facts.rank = rank_in(environ);
  write_file_name(out, pattern, facts);
}

int open_to_write(const char* path) {
  const long fd = ::syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  return fd >= 0 ? static_cast<int>(fd) : -errno;
}

}  // namespace nh
