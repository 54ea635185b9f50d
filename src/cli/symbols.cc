#include "cli/symbols.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>

#include <cxxabi.h>
#include <elf.h>

namespace nh::cli {
namespace {

std::string demangled(const char* name) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(abi::__cxa_demangle(name, nullptr, nullptr, &status), &std::free);
  return status == 0 ? text.get() : name;
}

std::string hex(std::uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

// Bounds are checked: the file may be anything by now.
template <typename Type>
const Type* at(const std::string& bytes, std::uint64_t offset, std::uint64_t count = 1) {
  if (offset > bytes.size() || count > (bytes.size() - offset) / sizeof(Type)) return nullptr;
  return reinterpret_cast<const Type*>(bytes.data() + offset);
}

}  // namespace

Symbols::File Symbols::read_file(const std::string& path) {
  File file;
  std::ifstream in(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const auto* head = at<Elf64_Ehdr>(bytes, 0);
  if (head == nullptr || std::memcmp(head->e_ident, ELFMAG, SELFMAG) != 0 || head->e_ident[EI_CLASS] != ELFCLASS64) return file;
  if (const auto* programs = at<Elf64_Phdr>(bytes, head->e_phoff, head->e_phnum); programs != nullptr) {
    for (unsigned i = 0; i < head->e_phnum; i++) {
      if (programs[i].p_type == PT_LOAD) file.segments.push_back({programs[i].p_offset, programs[i].p_vaddr, programs[i].p_filesz});
    }
  }
  const auto* sections = at<Elf64_Shdr>(bytes, head->e_shoff, head->e_shnum);
  if (sections == nullptr) return file;
  // .symtab knows all functions; stripped files have only those that others may call.
  for (const Elf64_Word kind : {Elf64_Word{SHT_SYMTAB}, Elf64_Word{SHT_DYNSYM}}) {
    for (unsigned i = 0; file.functions.empty() && i < head->e_shnum; i++) {
      if (sections[i].sh_type != kind || sections[i].sh_link >= head->e_shnum) continue;
      const std::uint64_t count = sections[i].sh_size / sizeof(Elf64_Sym);
      const auto* symbols = at<Elf64_Sym>(bytes, sections[i].sh_offset, count);
      const Elf64_Shdr& names = sections[sections[i].sh_link];
      const auto* text = at<char>(bytes, names.sh_offset, names.sh_size);
      if (symbols == nullptr || text == nullptr || names.sh_size == 0 || text[names.sh_size - 1] != '\0') continue;
      for (std::uint64_t s = 0; s < count; s++) {
        const Elf64_Sym& symbol = symbols[s];
        if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC || symbol.st_shndx == SHN_UNDEF || symbol.st_name >= names.sh_size) continue;
        file.functions.push_back({symbol.st_value, symbol.st_size, text + symbol.st_name});
      }
    }
  }
  std::stable_sort(file.functions.begin(), file.functions.end(),
                   [](const Function& a, const Function& b) { return a.address < b.address; });
  return file;
}

const Symbols::File& Symbols::file(const std::string& path) {
  const auto known = files_.find(path);
  return known != files_.end() ? known->second : files_.emplace(path, read_file(path)).first->second;
}

std::string Symbols::find(std::uint64_t address) {
  if (address == 0) return "(other places)";
  const auto mapping = std::find_if(mappings_.begin(), mappings_.end(), [address](const ProfileMapping& m) {
    return address >= m.begin && address < m.end;
  });
  if (mapping == mappings_.end() || mapping->path.empty()) return hex(address);
  const std::uint64_t offset = address - mapping->begin + mapping->offset;
  const File& f = file(mapping->path);
  for (const Segment& segment : f.segments) {
    if (offset < segment.offset || offset - segment.offset >= segment.bytes) continue;
    const std::uint64_t wanted = offset - segment.offset + segment.address;
    auto after = std::upper_bound(f.functions.begin(), f.functions.end(), wanted,
                                  [](std::uint64_t a, const Function& function) { return a < function.address; });
    if (after == f.functions.begin()) break;
    const Function& function = *std::prev(after);
    // Hand-written assembly has functions without a size.
    if (function.bytes == 0 || wanted - function.address < function.bytes) return demangled(function.name.c_str());
    break;
  }
  return std::filesystem::path(mapping->path).filename().string() + "+" + hex(offset);
}

const std::string& Symbols::name(std::uint64_t address) {
  const auto known = names_.find(address);
  return known != names_.end() ? known->second : names_.emplace(address, find(address)).first->second;
}

}  // namespace nh::cli
