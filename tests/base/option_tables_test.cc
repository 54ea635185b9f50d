// Every row of the table, whatever rows there are: names, help texts, and that values are printed as they are parsed.
#include <algorithm>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "base/options.h"

namespace nh {
namespace {

constexpr OptionId id_at(unsigned i) { return static_cast<OptionId>(i); }

TEST(OptionTable, NamesAreUniqueAndFound) {
  std::set<std::string> names;
  for (unsigned i = 0; i < kOptionCount; i++) {
    const std::string name = option_info(id_at(i)).name;
    EXPECT_TRUE(names.insert(name).second) << name;
    EXPECT_EQ(name.rfind("NUMAHEAP_", 0), 0u);
    EXPECT_LE(name.size(), 9u + 31u) << "longer names are never suggested";
    OptionId id;
    ASSERT_TRUE(find_option(name, &id));
    EXPECT_EQ(id, id_at(i));
  }
  OptionId id;
  EXPECT_FALSE(find_option("NUMAHEAP_", &id));
  EXPECT_FALSE(find_option("STATS", &id));
}

TEST(OptionTable, HelpIsWholeSentencesWithoutBars) {
  for (unsigned i = 0; i < kOptionCount; i++) {
    const std::string help = option_info(id_at(i)).help;
    EXPECT_EQ(help.back(), '.') << help;
    EXPECT_EQ(help.find('|'), std::string::npos) << help;
    EXPECT_EQ(help.find("  "), std::string::npos) << help;
    for (const char c : help) EXPECT_TRUE(c >= ' ' && c <= '~') << help;
  }
}

TEST(OptionTable, DefaultsParseBack) {
  const Options defaults;
  for (unsigned i = 0; i < kOptionCount; i++) {
    Text<128> value, problem;
    write_option_value(value, defaults, id_at(i));
    if (value.size() == 0) continue;  // a text that is not set
    Options options;
    EXPECT_TRUE(set_option(id_at(i), value.c_str(), &options, &problem)) << problem.view();
    Text<128> again;
    write_option_value(again, options, id_at(i));
    EXPECT_EQ(again.view(), value.view());
    EXPECT_TRUE(options.given(id_at(i)));
  }
}

TEST(OptionTable, EveryWordParsesToItself) {
  for (unsigned i = 0; i < kOptionCount; i++) {
    const OptionInfo& info = option_info(id_at(i));
    if (info.form.kind != OptionKind::kWords) continue;
    const std::string words = std::string(info.form.words) + "|";
    for (std::size_t from = 0, bar; (bar = words.find('|', from)) != words.npos; from = bar + 1) {
      const std::string word = words.substr(from, bar - from);
      Options options;
      Text<128> problem, value;
      EXPECT_TRUE(set_option(id_at(i), word.c_str(), &options, &problem)) << problem.view();
      write_option_value(value, options, id_at(i));
      EXPECT_EQ(value.view(), word);
    }
  }
}

TEST(OptionTable, SettingOneOptionLeavesTheOthersAlone) {
  const Options defaults;
  for (unsigned i = 0; i < kOptionCount; i++) {
    Options options;
    Text<256> problem;
    static constexpr const char* kOther[] = {"1", "64M", "7s", "off", "/x", "/x", "bind:3", "capacity:1M", "!3"};
    const auto kind = static_cast<unsigned>(option_info(id_at(i)).form.kind);
    set_option(id_at(i), kOther[kind], &options, &problem);
    for (unsigned j = 0; j < kOptionCount; j++) {
      if (j == i) continue;
      Text<128> now, usual;
      write_option_value(now, options, id_at(j));
      write_option_value(usual, defaults, id_at(j));
      EXPECT_EQ(now.view(), usual.view()) << option_info(id_at(i)).name << " changed " << option_info(id_at(j)).name;
    }
  }
}

template <typename Write>
std::string whole(Write write) {
  static Text<64 * 1024> out;
  out.clear();
  write(out);
  EXPECT_FALSE(out.truncated());
  return std::string(out.view());
}

TEST(OptionTable, TextNamesAllAndWhatDiffersFromTheDefault) {
  Options options;
  options.limit = 3 * GiB;
  const std::string text = whole([&](TextWriter& w) { write_options_text(w, options); });
  for (unsigned i = 0; i < kOptionCount; i++) {
    EXPECT_NE(text.find(std::string(option_info(id_at(i)).name) + "="), std::string::npos);
  }
  EXPECT_NE(text.find("NUMAHEAP_LIMIT=size 0..1024T  [0]  now: 3G\n"), std::string::npos);
  std::size_t now = 0;
  for (std::size_t at = text.find("now: "); at != text.npos; at = text.find("now: ", at + 1)) now++;
  EXPECT_EQ(now, 1u);
  std::size_t longest = 0;
  for (std::size_t from = 0, end; (end = text.find('\n', from)) != text.npos; from = end + 1) {
    longest = std::max(longest, end - from);
  }
  EXPECT_LE(longest, 100u);
}

TEST(OptionTable, MarkdownRowsHaveFourCells) {
  const std::string text = whole([](TextWriter& w) { write_options_markdown(w); });
  std::size_t rows = 0;
  for (std::size_t from = 0, end; (end = text.find('\n', from)) != text.npos; from = end + 1, rows++) {
    unsigned bars = 0;
    for (std::size_t i = from; i < end; i++) bars += text[i] == '|' && (i == from || text[i - 1] != '\\');
    EXPECT_EQ(bars, 5u) << text.substr(from, end - from);
  }
  EXPECT_EQ(rows, kOptionCount + 2u);
}

TEST(OptionTable, ManPageNamesAll) {
  const std::string text = whole([](TextWriter& w) { write_options_man(w); });
  for (unsigned i = 0; i < kOptionCount; i++) {
    EXPECT_NE(text.find(std::string(".TP\n.BR ") + option_info(id_at(i)).name + " "), std::string::npos);
  }
}

}  // namespace
}  // namespace nh
