#include "os/segments.h"

#include <link.h>

#include "base/scan.h"
#include "os/linux_calls.h"
#include "os/procfs.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1
#endif

namespace nh {

using namespace linux_os_detail;

namespace {

struct Visit {
  void (*visit)(void* argument, const Segment& segment);
  void* argument;
};

int visit_object(dl_phdr_info* object, std::size_t, void* argument) {
  const Visit& visit = *static_cast<Visit*>(argument);
  std::uintptr_t read_only_end = 0;
  for (unsigned i = 0; i < object->dlpi_phnum; i++) {
    const ElfW(Phdr)& header = object->dlpi_phdr[i];
    if (header.p_type == PT_GNU_RELRO) read_only_end = object->dlpi_addr + header.p_vaddr + header.p_memsz;
  }
  for (unsigned i = 0; i < object->dlpi_phnum; i++) {
    const ElfW(Phdr)& header = object->dlpi_phdr[i];
    if (header.p_type != PT_LOAD || (header.p_flags & (PF_W | PF_X)) == 0) continue;
    const std::uintptr_t start = object->dlpi_addr + header.p_vaddr;
    Segment segment;
    segment.writable = (header.p_flags & PF_W) != 0;
    segment.executable = (header.p_flags & PF_X) != 0;
    segment.file = {align_down(start, kOsPageSize), align_up(start + header.p_filesz, kOsPageSize)};
    segment.zeroes = {segment.file.end, align_up(start + header.p_memsz, kOsPageSize)};
    // The loader makes whole pages read-only.
    const std::uintptr_t written_from = align_down(read_only_end, kOsPageSize);
    if (segment.writable && segment.file.contains(written_from)) segment.file.start = written_from;
    visit.visit(visit.argument, segment);
  }
  return 0;
}

}  // namespace

void for_each_segment(void (*visit)(void* argument, const Segment& segment), void* argument) {
  Visit all = {visit, argument};
  ::dl_iterate_phdr(visit_object, &all);
}

int make_executable(void* p, std::size_t bytes) {
  const ErrnoKeeper keep;
  return counted_mprotect(p, bytes, PROT_READ | PROT_EXEC) == 0 ? 0 : errno;
}

int collapse(void* p, std::size_t bytes) {
  const ErrnoKeeper keep;
  return counted_madvise(p, bytes, MADV_COLLAPSE) == 0 ? 0 : errno;
}

AddressRange main_stack() {
  LineReader lines("/proc/self/maps");
  for (std::string_view line; lines.next(&line);) {
    AddressRange range;
    if (line.ends_with("[stack]") && take_hex(&line, &range.start) && take(&line, "-") && take_hex(&line, &range.end)) {
      return range;
    }
  }
  return {};
}

}  // namespace nh
