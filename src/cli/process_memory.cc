#include "cli/process_memory.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <elf.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/live_block.h"
#include "base/scan.h"
#include "os/procfs.h"

namespace nh::cli {
namespace {

constexpr std::size_t kMaxPieces = 512;  // per call; the kernel's limit is 1024
constexpr std::size_t kMaxNotes = 64 * 1024;

std::string proc_path(int pid, const char* file) { return "/proc/" + std::to_string(pid) + "/" + file; }

bool take_hex(std::string_view* s, std::uint64_t* value) {
  std::size_t n = 0;
  *value = 0;
  for (; n < s->size() && n < 16; n++) {
    const char c = to_lower((*s)[n]);
    if (!is_digit(c) && (c < 'a' || c > 'f')) break;
    *value = *value * 16 + static_cast<unsigned>(is_digit(c) ? c - '0' : c - 'a' + 10);
  }
  s->remove_prefix(n);
  return n != 0;
}

// A line of /proc/PID/maps.
struct Mapping {
  std::uint64_t start = 0, offset = 0;
  bool readable = false, executable = false;
  std::string_view file;  // device and inode
  std::string_view path;
};
bool parse_mapping(std::string_view line, Mapping* m) {
  std::uint64_t end = 0;
  if (!take_hex(&line, &m->start) || !take(&line, "-") || !take_hex(&line, &end) || !take(&line, " ")) return false;
  if (line.size() < 5) return false;
  m->readable = line[0] == 'r';
  m->executable = line[2] == 'x';
  line.remove_prefix(5);
  if (!take_hex(&line, &m->offset) || !take(&line, " ")) return false;
  const std::string_view device = before(line, ' ');
  const std::string_view inode = before(after(line, ' '), ' ');
  m->file = head(line, device.size() + 1 + inode.size());
  m->path = trimmed(tail(line, m->file.size()));
  return true;
}

// The descriptor of numaheap's note in a PT_NOTE segment that was read to `notes`, from its start; 0: there is none.
std::size_t find_note(const std::vector<char>& notes, std::size_t alignment) {
  const auto aligned = [&](std::size_t n) { return (n + alignment - 1) & ~(alignment - 1); };
  for (std::size_t at = 0; at + sizeof(Elf64_Nhdr) <= notes.size();) {
    Elf64_Nhdr note;
    std::memcpy(&note, &notes[at], sizeof note);
    const std::size_t name = at + sizeof note, descriptor = aligned(name + note.n_namesz);
    if (note.n_namesz > notes.size() || note.n_descsz > notes.size()) return 0;
    if (descriptor + note.n_descsz > notes.size()) return 0;
    if (note.n_type == kLiveNoteType && note.n_namesz == sizeof kLiveNoteName && note.n_descsz >= sizeof(LiveNote) &&
        std::memcmp(&notes[name], kLiveNoteName, sizeof kLiveNoteName) == 0) {
      return descriptor;
    }
    at = aligned(descriptor + note.n_descsz);
  }
  return 0;
}

// Looks into the headers of an ELF file whose start is mapped at `start`. What is mapped is asked and not the file, which may
// lie in another mount namespace or be another one by now.
bool find_in_image(ProcessMemory& memory, std::uint64_t start, LivePlace* place) {
  Elf64_Ehdr header;
  if (!memory.read(start, &header) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return false;
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum > 128)
    return false;
  std::vector<Elf64_Phdr> segments(header.e_phnum);
  if (!memory.read(start + header.e_phoff, segments.data(), segments.size() * sizeof segments[0])) return false;
  const auto first = std::find_if(segments.begin(), segments.end(),
                                  [](const Elf64_Phdr& s) { return s.p_type == PT_LOAD && s.p_offset == 0; });
  if (first == segments.end()) return false;
  const std::uint64_t bias = start - first->p_vaddr;
  for (const Elf64_Phdr& s : segments) {
    if (s.p_type != PT_NOTE || s.p_memsz > kMaxNotes) continue;
    std::vector<char> notes(s.p_memsz);
    if (!memory.read(bias + s.p_vaddr, notes.data(), notes.size())) continue;
    const std::size_t at = find_note(notes, s.p_align == 8 ? 8 : 4);
    if (at == 0) continue;
    LiveNote note;
    std::memcpy(&note, &notes[at], sizeof note);
    place->version = note.version;
    place->block =
        bias + s.p_vaddr + at + offsetof(LiveNote, block) + static_cast<std::uint64_t>(std::int64_t{note.block});
    return true;
  }
  return false;
}

std::string user_name(unsigned uid) {
  const passwd* const entry = ::getpwuid(uid);
  return entry != nullptr ? entry->pw_name : "user " + std::to_string(uid);
}

}  // namespace

bool ProcessMemory::read(std::uint64_t at, void* to, std::size_t bytes) {
  char* out = static_cast<char*>(to);
  std::size_t done = 0;
  while (done < bytes) {
    const iovec local = {out + done, bytes - done};
    const iovec remote = {reinterpret_cast<void*>(at + done), bytes - done};
    const ssize_t n = ::process_vm_readv(pid_, &local, 1, &remote, 1, 0);
    if (n > 0) {
      done += static_cast<std::size_t>(n);
      continue;
    }
    if (n < 0 && errno != EFAULT && errno != EINVAL) error_ = errno;
    std::memset(out + done, 0, bytes - done);
    return false;
  }
  return true;
}

void ProcessMemory::read_pieces(std::span<const Piece> pieces) {
  iovec local[kMaxPieces], remote[kMaxPieces];
  while (!pieces.empty()) {
    const std::size_t count = std::min(pieces.size(), kMaxPieces);
    std::size_t wanted = 0;
    for (std::size_t i = 0; i < count; i++) {
      local[i] = {pieces[i].to, pieces[i].bytes};
      remote[i] = {reinterpret_cast<void*>(pieces[i].at), pieces[i].bytes};
      wanted += pieces[i].bytes;
    }
    const ssize_t n = ::process_vm_readv(pid_, local, count, remote, count, 0);
    if (n < 0 && errno != EFAULT && errno != EINVAL) error_ = errno;
    // The kernel stops at the first address that is not there. One by one from here on, as far as this call went.
    std::size_t done = 0, i = 0;
    while (n > 0 && i < count && done + pieces[i].bytes <= static_cast<std::size_t>(n)) done += pieces[i++].bytes;
    if (static_cast<std::size_t>(n) != wanted && i < count) {
      read(pieces[i].at, pieces[i].to, pieces[i].bytes);
      i++;
    }
    pieces = pieces.subspan(i);
  }
}

std::string ProcessMemory::read_text(std::uint64_t at, std::size_t most) {
  std::string text(most, '\0');
  if (at == 0) return "";
  // It may end where the mapping does.
  if (!read(at, text.data(), most)) read(at, text.data(), std::min(most, 4096 - at % 4096));
  return printable(text.c_str());
}

bool find_live_blocks(ProcessMemory& memory, std::vector<LivePlace>* found, std::string* why) {
  found->clear();
  // The file whose start was mapped last. Programs and libraries have it there and code behind it; pages of other files
  // are not asked for, since they might have to be read from a disk.
  std::uint64_t start = 0;
  std::string file, path;
  LineReader lines(proc_path(memory.pid(), "maps").c_str());
  for (std::string_view line; lines.next(&line);) {
    Mapping m;
    if (!parse_mapping(line, &m) || head(m.file, 6) == "00:00 " || head(m.path, 5) == "/dev/") continue;
    if (m.offset == 0 && m.readable) {
      start = m.start;
      file = m.file;
      path = m.path;
    }
    if (!m.executable || start == 0 || m.file != file) continue;
    LivePlace place;
    if (find_in_image(memory, start, &place)) {
      place.file = path;
      found->push_back(place);
    }
    start = 0;
    if (memory.error() != 0) break;
  }
  int error = lines.error() != 0 ? lines.error() : memory.error();
  // Of a process that ends meanwhile the list just stops; it is then empty from its start.
  std::string_view any;
  if (error == 0 && found->empty() && !LineReader(proc_path(memory.pid(), "maps").c_str()).next(&any)) error = ESRCH;
  if (error != 0) *why = why_not_readable(memory.pid(), error);
  return error == 0;
}

std::string why_not_readable(int pid, int error) {
  const std::string process = "process " + std::to_string(pid);
  if (error == ENOENT || error == ESRCH) {
    ProcessFacts facts;
    if (!read_process_facts(pid, &facts)) return "there is no " + process;
    if (facts.state == 'Z' || facts.state == 'X') return process + " has ended; its parent has not looked yet";
    return process + " is ending, or is one of the kernel's own";
  }
  if (error == ENOSYS) return "this kernel has no process_vm_readv (CONFIG_CROSS_MEMORY_ATTACH)";
  if (error != EPERM && error != EACCES) return process + ": " + std::strerror(error);
  const std::string mine = "may not look into " + process + ": ";
  struct stat owner;
  if (::stat(proc_path(pid, "").c_str(), &owner) == 0 && owner.st_uid != ::geteuid() && ::geteuid() != 0) {
    return mine + "it is " + user_name(owner.st_uid) +
           "'s or may not be looked at by its user; run this as root (sudo)";
  }
  std::uint64_t scope = 0;
  if (read_number("/proc/sys/kernel/yama/ptrace_scope", &scope) && scope != 0) {
    return mine + "kernel.yama.ptrace_scope is " + std::to_string(scope) +
           (scope >= 3 ? ", which forbids it until the next boot"
                       : "; run this as root (sudo), or allow it to users: sudo sysctl kernel.yama.ptrace_scope=0");
  }
  return mine +
         "the kernel refuses (a privileged program, or a container); run this as root, "
         "in a container with --cap-add SYS_PTRACE";
}

// Beyond ASCII it may be cut within a character.
std::string printable(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c < ' ' || c == '\x7f') c = '?';
  }
  return out;
}

bool read_process_facts(int pid, ProcessFacts* facts) {
  char text[1024];
  if (read_file(proc_path(pid, "stat").c_str(), text, sizeof text) <= 0) return false;
  const std::string_view line(text);
  const std::size_t open = line.find('('), close = line.rfind(')');
  if (open == line.npos || close == line.npos || close < open) return false;
  facts->command = printable(line.substr(open + 1, close - open - 1));
  std::string_view rest = trimmed(line.substr(close + 1));
  if (!rest.empty()) facts->state = rest[0];
  // Fields as proc(5) numbers them: 3 is the state, 10 minflt, 12 majflt, 20 num_threads, 22 starttime.
  facts->faults = facts->threads = 0;
  for (int field = 3; !rest.empty() && field <= 22; field++) {
    std::string_view word = before(rest, ' ');
    rest = after(rest, ' ');
    std::uint64_t value = 0;
    if (!take_decimal(&word, &value)) continue;
    if (field == 10 || field == 12) facts->faults += value;
    if (field == 20) facts->threads = value;
    if (field == 22) facts->started = value;
  }
  return true;
}

}  // namespace nh::cli
