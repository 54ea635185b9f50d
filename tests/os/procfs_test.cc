// The bounded readers, fed with the odd files that /proc and /sys and broken systems offer.
#include "os/procfs.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

namespace nh {
namespace {

class Procfs : public testing::Test {
 protected:
  void SetUp() override {
    const int fd = mkstemp(path_);
    ASSERT_GE(fd, 0);
    close(fd);
    errno = 4711;
  }
  void TearDown() override {
    EXPECT_EQ(errno, 4711) << "errno was changed";
    unlink(path_);
  }
  void write(const std::string& text) {
    std::FILE* const f = std::fopen(path_, "w");
    ASSERT_EQ(std::fwrite(text.data(), 1, text.size(), f), text.size());
    std::fclose(f);
    errno = 4711;
  }
  std::vector<std::string> lines() {
    std::vector<std::string> out;
    LineReader reader(path_);
    for (std::string_view line; reader.next(&line);) out.emplace_back(line);
    return out;
  }
  char path_[32] = "/tmp/numaheap-procfs-XXXXXX";
};

TEST_F(Procfs, ReadFileReturnsLengthAndTerminates) {
  write("hello\n");
  char buffer[16];
  std::memset(buffer, 'x', sizeof buffer);
  EXPECT_EQ(read_file(path_, buffer, sizeof buffer), 6);
  EXPECT_STREQ(buffer, "hello\n");
}

TEST_F(Procfs, ReadFileCutsAtTheCapacity) {
  write("0123456789");
  char buffer[8];
  std::memset(buffer, 'x', sizeof buffer);
  EXPECT_EQ(read_file(path_, buffer, 5), 4);
  EXPECT_STREQ(buffer, "0123");
  EXPECT_EQ(buffer[5], 'x');
  EXPECT_EQ(read_file(path_, buffer, 1), 0);
  EXPECT_STREQ(buffer, "");
}

TEST_F(Procfs, ReadFileErrors) {
  char buffer[8] = "dirt";
  EXPECT_EQ(read_file("/proc/there/is/no/such/file", buffer, sizeof buffer), -ENOENT);
  EXPECT_STREQ(buffer, "");
  EXPECT_EQ(read_file("/proc", buffer, sizeof buffer), -EISDIR);
  write("");
  EXPECT_EQ(read_file(path_, buffer, sizeof buffer), 0);
}

TEST_F(Procfs, ReadFileOfSeveralPages) {
  // Such files arrive in pieces of a page; a single read would return the first.
  std::vector<char> buffer(1 << 20);
  const long n = read_file("/proc/kallsyms", buffer.data(), buffer.size());
  if (n < 0) {
    EXPECT_TRUE(n == -ENOENT || n == -EPERM) << n;
  } else {
    EXPECT_GT(n, 8192);
  }
}

TEST_F(Procfs, ParseNumber) {
  std::uint64_t v = 7;
  EXPECT_TRUE(parse_number("0", &v));
  EXPECT_EQ(v, 0u);
  EXPECT_TRUE(parse_number(" 42\n", &v));
  EXPECT_EQ(v, 42u);
  EXPECT_TRUE(parse_number("18446744073709551615", &v));
  EXPECT_EQ(v, UINT64_MAX);
  for (const char* bad : {"", " ", "\n", "-1", "+1", "1x", "x1", "1 2", "0x10", "18446744073709551616",
                          "99999999999999999999999"}) {
    v = 7;
    EXPECT_FALSE(parse_number(bad, &v)) << bad;
    EXPECT_EQ(v, 7u) << bad;
  }
}

TEST_F(Procfs, TakeNumberLeavesTheRest) {
  std::string_view text = "12-34";
  std::uint64_t v = 0;
  EXPECT_TRUE(take_number(&text, &v));
  EXPECT_EQ(v, 12u);
  EXPECT_EQ(text, "-34");
  EXPECT_FALSE(take_number(&text, &v));
  EXPECT_EQ(text, "-34");
  text = "18446744073709551616,1";
  EXPECT_FALSE(take_number(&text, &v));
  EXPECT_EQ(text, "18446744073709551616,1");
}

TEST_F(Procfs, ReadNumber) {
  std::uint64_t v = 0;
  write("123\n");
  EXPECT_TRUE(read_number(path_, &v));
  EXPECT_EQ(v, 123u);
  for (const std::string& bad : {std::string(), std::string("\n"), std::string("12 13\n"), std::string("N0=1\n"),
                                 std::string(63, '1'), std::string(200, ' ') + "1"}) {
    write(bad);
    EXPECT_FALSE(read_number(path_, &v)) << bad;
  }
  EXPECT_FALSE(read_number("/proc/there/is/no/such/file", &v));
  EXPECT_EQ(v, 123u);
}

TEST_F(Procfs, PathExists) {
  errno = 4711;
  EXPECT_TRUE(path_exists("/proc/self"));
  EXPECT_TRUE(path_exists("/proc/self/status"));
  EXPECT_FALSE(path_exists("/proc/self/no such file"));
  EXPECT_FALSE(path_exists(""));
  EXPECT_EQ(errno, 4711);
}

TEST_F(Procfs, LineReaderEdges) {
  write("");
  EXPECT_EQ(lines(), std::vector<std::string>{});
  write("\n");
  EXPECT_EQ(lines(), std::vector<std::string>{""});
  write("one\n\nthree");
  EXPECT_EQ(lines(), (std::vector<std::string>{"one", "", "three"}));
  write("one\ntwo\n");
  EXPECT_EQ(lines(), (std::vector<std::string>{"one", "two"}));
}

// Lines of every length around the buffer's, each between two short ones.
TEST_F(Procfs, LineReaderLongLines) {
  for (std::size_t length : {LineReader::kMaxLine - 1, LineReader::kMaxLine, LineReader::kMaxLine + 1,
                             LineReader::kMaxLine + 2, 2 * LineReader::kMaxLine + 3, std::size_t{20000}}) {
    for (const char* end : {"\nlast\n", "\nlast", "\n", ""}) {
      write("first\n" + std::string(length, 'x') + end);
      LineReader reader(path_);
      std::string_view line;
      ASSERT_TRUE(reader.next(&line));
      EXPECT_EQ(line, "first");
      EXPECT_FALSE(reader.line_cut());
      ASSERT_TRUE(reader.next(&line));
      EXPECT_EQ(line, std::string(std::min(length, LineReader::kMaxLine), 'x')) << length;
      EXPECT_EQ(reader.line_cut(), length > LineReader::kMaxLine) << length;
      if (std::strlen(end) > 1) {
        ASSERT_TRUE(reader.next(&line)) << length;
        EXPECT_EQ(line, "last");
        EXPECT_FALSE(reader.line_cut());
      }
      EXPECT_FALSE(reader.next(&line)) << length;
      EXPECT_FALSE(reader.next(&line)) << "again behind the end";
      EXPECT_EQ(reader.error(), 0);
    }
  }
}

TEST_F(Procfs, LineReaderOfNothing) {
  std::string_view line;
  LineReader missing("/proc/there/is/no/such/file");
  EXPECT_EQ(missing.error(), ENOENT);
  EXPECT_FALSE(missing.next(&line));
  LineReader directory("/proc");
  EXPECT_EQ(directory.error(), 0);
  EXPECT_FALSE(directory.next(&line));
  EXPECT_EQ(directory.error(), EISDIR);
}

TEST_F(Procfs, ReadField) {
  write("MemTotalX:  1 kB\nMemTotal:\t 24 kB\nEmpty:\nMemTotal: 25 kB\nWord: many\nLast: 9");
  std::uint64_t v = 0;
  EXPECT_TRUE(read_field(path_, "MemTotal", &v));
  EXPECT_EQ(v, 24u);
  EXPECT_TRUE(read_field(path_, "Last", &v));
  EXPECT_EQ(v, 9u);
  EXPECT_FALSE(read_field(path_, "Mem", &v));
  EXPECT_FALSE(read_field(path_, "Empty", &v));
  EXPECT_FALSE(read_field(path_, "Word", &v));
  EXPECT_FALSE(read_field(path_, "Missing", &v));
  EXPECT_EQ(v, 9u);
  EXPECT_TRUE(read_field("/proc/meminfo", "MemTotal", &v));
  EXPECT_GT(v, 1024u);
  EXPECT_TRUE(read_field("/proc/self/status", "Threads", &v));
  EXPECT_EQ(v, 1u);
}

TEST(Directories, AreWalked) {
  char directory[] = "/tmp/nh-procfs-XXXXXX";
  ASSERT_NE(::mkdtemp(directory), nullptr);
  std::set<std::string> expected = {".", ".."};
  for (int i = 0; i < 100; i++) {
    const std::string name = std::string(static_cast<std::size_t>(1 + i * 2), 'x') + std::to_string(i);
    std::ofstream(std::string(directory) + "/" + name) << "x";
    expected.insert(name);
  }
  std::set<std::string> found;
  const auto visit = [](void* set, const char* name) {
    static_cast<std::set<std::string>*>(set)->insert(name);
    return true;
  };
  errno = 77;
  EXPECT_TRUE(for_each_entry(directory, visit, &found));
  EXPECT_EQ(found, expected);
  int visits = 0;
  const auto once = [](void* count, const char*) { return ++*static_cast<int*>(count) < 1; };
  EXPECT_TRUE(for_each_entry(directory, once, &visits));
  EXPECT_EQ(visits, 1) << "false ends it";
  EXPECT_FALSE(for_each_entry("/nonexistent", once, &visits));
  EXPECT_FALSE(for_each_entry("/proc/self/status", once, &visits));
  EXPECT_EQ(errno, 77);
  std::filesystem::remove_all(directory);
}

TEST(Directories, LinksAreRead) {
  char directory[] = "/tmp/nh-procfs-XXXXXX";
  ASSERT_NE(::mkdtemp(directory), nullptr);
  const std::string link = std::string(directory) + "/link";
  std::filesystem::create_symlink("../where/ever", link);
  char target[14];
  errno = 77;
  EXPECT_TRUE(read_link(link.c_str(), target, sizeof target));
  EXPECT_STREQ(target, "../where/ever");
  EXPECT_FALSE(read_link(link.c_str(), target, sizeof target - 1)) << "no room for the end";
  EXPECT_FALSE(read_link(directory, target, sizeof target));
  EXPECT_EQ(errno, 77);
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace nh
