#include "process/profile.h"

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>

#include <sys/syscall.h>
#include <unistd.h>

#include "base/check.h"
#include "base/profile_settings.h"
#include "base/stderr.h"
#include "os/procfs.h"
#include "process/output_file.h"
#include "process/process.h"
#include "process/sampling.h"

namespace nh {
namespace {

ProfileSettings g_settings;
pid_t g_pid = 0;  // who was asked; a fork child writes a file only if that is another one

struct Totals {
  Estimate live, all;
};
Totals total() {
  Totals t;
  g_sites.for_each([&](const Site& site) {
    const Estimate live = site.live(), all = site.all();
    t.live.objects += live.objects;
    t.live.bytes += live.bytes;
    t.all.objects += all.objects;
    t.all.bytes += all.bytes;
  });
  return t;
}

std::uint64_t whole(std::uint64_t objects) { return (objects + kObjectUnit / 2) / kObjectUnit; }

void write_counts(TextWriter& out, const Estimate& live, const Estimate& all) {
  out.dec(whole(live.objects)).text(": ").dec(live.bytes).text(" [").dec(whole(all.objects)).text(": ").dec(all.bytes);
  out.text("] @");
}

bool write_line(int fd, std::string_view line) { return write_to(fd, line.data(), line.size()); }

bool write_sites(int fd, bool live_only) {
  bool ok = true;
  g_sites.for_each([&](const Site& site) {
    const Estimate live = site.live(), all = site.all();
    if (all.objects == 0 || (live_only && live.bytes == 0)) return;
    Text<1400> line;
    write_counts(line, live, all);
    const unsigned depth = site.depth.load(std::memory_order_acquire);
    for (unsigned i = 0; i < depth; i++) line.ch(' ').hex(reinterpret_cast<std::uintptr_t>(site.frame[i]));
    line.ch('\n');
    ok = ok && write_line(fd, line.view());
  });
  return ok;
}

// Readers find symbols by it.
bool write_mappings(int fd) {
  bool ok = write_line(fd, "\nMAPPED_LIBRARIES:\n");
  LineReader lines("/proc/self/maps");
  for (std::string_view line; ok && lines.next(&line);) ok = write_line(fd, line) && write_line(fd, "\n");
  return ok;
}

// Says that the file could not be written, which is all that can be done.
void try_to_write(const char* cause) {
  const int error = write_profile(g_settings.file, g_settings.live_only);
  if (error == 0) return;
  Text<1300> line;
  line.text("NUMAHEAP_PROFILE: cannot write ");
  write_own_file_name(line, g_settings.file);
  line.text(cause).text(" (errno ").sdec(error).ch(')');
  warn_line(line.c_str());
}

void on_signal(int) {
  const int saved = errno;
  try_to_write(" when the signal came");
  errno = saved;
}

void install_handler(int signal) {
  struct sigaction before;
  if (::sigaction(signal, nullptr, &before) == 0 && before.sa_handler == SIG_DFL) {
    struct sigaction handler = {};
    handler.sa_handler = on_signal;
    handler.sa_flags = SA_RESTART;
    sigemptyset(&handler.sa_mask);
    if (::sigaction(signal, &handler, nullptr) == 0) return;
  }
  warn_line("NUMAHEAP_PROFILE: the signal is taken or cannot be caught; the profile is written at exit only");
}

}  // namespace

int write_profile(const char* name, bool live_only) {
  if (!g_sites.ready()) return EINVAL;
  Text<1200> path;
  write_own_file_name(path, name);
  const int fd = open_to_write(path.c_str());
  if (fd < 0) return -fd;
  const Totals t = total();
  Text<200> head;
  head.text("heap profile: ");
  write_counts(head, t.live, t.all);
  head.text(" heapprofile\n");
  errno = EIO;
  const bool ok = write_line(fd, head.view()) && write_sites(fd, live_only) && write_mappings(fd);
  const int error = ok ? 0 : errno;
  return ::syscall(SYS_close, fd) != 0 && error == 0 ? errno : error;
}

void init_profile() {
  const char* const text = g_process.options.profile.c_str();
  if (*text == '\0') return;
  Text<300> problem;
  int error = 0;
  if (parse_profile(text, &g_settings, &problem)) {
    error = start_sampling(g_settings.interval);
    if (error == ENOTSUP) problem.text("this library was built with NUMAHEAP_TRUST_SIZES and cannot sample");
    if (error == ENOMEM) problem.text("no memory for its table");
  }
  if (problem.size() != 0) {
    g_settings.file[0] = '\0';
    Text<400> line;
    line.text("NUMAHEAP_PROFILE: ").text(problem.view()).text("; no profile is taken");
    if (!g_process.options.quiet || g_process.options.strict) warn_line(line.c_str());
    if (g_process.options.strict) ::_exit(2);
    return;
  }
  g_pid = ::getpid();
  if (g_settings.signal != 0) install_handler(g_settings.signal);
}

void profile_at_exit() {
  if (g_settings.file[0] == '\0' || (g_pid != ::getpid() && std::strstr(g_settings.file, "%p") == nullptr)) return;
  try_to_write("");
}

}  // namespace nh
