// Terminals: colours, sizes, characters, and a whole screen that is drawn over and over.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace nh::cli {

enum class ColorMode { kNone, k256, kTrue };

// What standard output can show: none if it is no terminal, TERM is dumb or NO_COLOR is set.
ColorMode terminal_colors();
// "auto", "none", "256" or "true"; false for any other word.
bool parse_colors(std::string_view word, ColorMode* mode);
// Whether the locale's characters are UTF-8, so that block characters may be used.
bool has_utf8();
// The width of a UTF-8 text in columns, one per character.
std::size_t columns_of(std::string_view text);
// The text as lines of at most `width` columns, broken at spaces; lines after the first begin with `indent` spaces.
std::string wrapped(std::string_view text, std::size_t width, std::size_t indent);

struct Rgb {
  std::uint8_t r, g, b;
};
// A colour `share` of the way (0 .. 1) from one to another.
Rgb mix(Rgb from, Rgb to, double share);
// "#rrggbb"
std::string hex_color(Rgb c);

// Builds text with colours in one of the modes; without colours it is the bare text.
class ColorText {
 public:
  explicit ColorText(ColorMode mode) : mode_(mode) {}
  ColorText& text(std::string_view s);
  ColorText& pad_to(std::size_t column);  // spaces until so many columns stand on the line
  ColorText& right(std::string_view s, std::size_t width);
  ColorText& fg(Rgb c);
  ColorText& bg(Rgb c);
  ColorText& bold();
  ColorText& plain();  // ends all of these
  ColorText& line();   // plain(), and the next line
  ColorMode mode() const { return mode_; }
  const std::string& view() const { return out_; }

 private:
  void color(int layer, Rgb c);

  ColorMode mode_;
  std::string out_;
  std::size_t column_ = 0;
  bool styled_ = false;
};

// A screen of its own with single keys from standard input. One at a time. While it exists, however the process ends (by
// exit(), a signal, a crash; SIGKILL excepted), the terminal is put back as it was; so it is while the process is stopped.
class Screen {
 public:
  Screen();
  ~Screen();
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  // Whether standard output is a terminal that can be used like this.
  static bool possible();

  struct Size {
    unsigned columns, rows;
  };
  Size size() const;
  // Draws lines, as many as there are rows. False: the terminal is gone.
  bool draw(std::string_view text) const;
  // Waits for a key, a changed size or the time. A key, or 0. kEnd: a signal asks for the end; finish() obeys it.
  static constexpr int kEnd = -1;
  int wait(double seconds) const;
  // After kEnd, when the screen is gone: ends the process by the signal that came, if one did.
  static void finish();
};

}  // namespace nh::cli
