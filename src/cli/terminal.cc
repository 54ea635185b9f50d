#include "cli/terminal.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

namespace nh::cli {
namespace {

std::string_view variable(const char* name) {
  const char* const value = std::getenv(name);
  return value != nullptr ? value : "";
}

bool is_dumb() { return variable("TERM").empty() || variable("TERM") == "dumb"; }

// The nearest colour of the 6 x 6 x 6 cube or the 24 greys of terminals with 256 colours.
int nearest_of_256(Rgb c) {
  static constexpr int kLevels[] = {0, 95, 135, 175, 215, 255};
  const auto nearest = [](int v) {
    int best = 0;
    for (int i = 1; i < 6; i++) {
      if (std::abs(kLevels[i] - v) < std::abs(kLevels[best] - v)) best = i;
    }
    return best;
  };
  const auto distance = [&](int r, int g, int b) {
    return (r - c.r) * (r - c.r) + (g - c.g) * (g - c.g) + (b - c.b) * (b - c.b);
  };
  const int r = nearest(c.r), g = nearest(c.g), b = nearest(c.b);
  const int grey = std::clamp(((c.r + c.g + c.b) / 3 - 3) / 10, 0, 23), level = 8 + 10 * grey;
  const bool cube = distance(kLevels[r], kLevels[g], kLevels[b]) <= distance(level, level, level);
  return cube ? 16 + 36 * r + 6 * g + b : 232 + grey;
}

// ---- what signal handlers touch ----------------------------------------------------------------------------------------

constexpr char kEnter[] = "\033[?1049h\033[?25l";  // a screen of its own, no cursor
constexpr char kLeave[] = "\033[0m\033[?25h\033[?1049l";

termios g_before;
volatile std::sig_atomic_t g_raw = 0;  // g_before is to be put back
volatile std::sig_atomic_t g_entered = 0;
volatile std::sig_atomic_t g_ended_by = 0;
volatile std::sig_atomic_t g_changed = 0;  // size, or continued after a stop

void put(const char* text, std::size_t bytes) {
  while (bytes != 0) {
    const ssize_t n = ::write(STDOUT_FILENO, text, bytes);
    if (n < 0 && errno != EINTR) return;
    if (n < 0) continue;
    text += n;
    bytes -= static_cast<std::size_t>(n);
  }
}

void leave() {
  if (g_entered == 0) return;
  g_entered = 0;
  put(kLeave, sizeof kLeave - 1);
  if (g_raw != 0) ::tcsetattr(STDIN_FILENO, TCSANOW, &g_before);
}

void enter() {
  g_entered = 1;
  if (g_raw != 0) {
    termios raw = g_before;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    ::tcsetattr(STDIN_FILENO, TCSANOW, &raw);
  }
  put(kEnter, sizeof kEnter - 1);
}

void on_end(int signal) { g_ended_by = signal; }
void on_change(int) { g_changed = 1; }

void on_crash(int signal) {
  leave();
  std::signal(signal, SIG_DFL);
  ::raise(signal);
}

void on_stop(int) {
  const int saved = errno;
  leave();
  // The default action takes place once the handler has returned and the signal is no longer blocked; here it must be now.
  std::signal(SIGTSTP, SIG_DFL);
  sigset_t stop, before;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTSTP);
  ::raise(SIGTSTP);
  ::sigprocmask(SIG_UNBLOCK, &stop, &before);
  // Continued.
  ::sigprocmask(SIG_SETMASK, &before, nullptr);
  std::signal(SIGTSTP, on_stop);
  enter();
  g_changed = 1;
  errno = saved;
}

constexpr int kEnds[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE};
constexpr int kCrashes[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};

void handle(int signal, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigemptyset(&action.sa_mask);
  ::sigaction(signal, &action, nullptr);
}

// They come only while wait() waits, so none is missed between a look at the flags and the wait.
sigset_t waited_for() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : kEnds) sigaddset(&set, signal);
  sigaddset(&set, SIGTSTP);
  sigaddset(&set, SIGWINCH);
  return set;
}

}  // namespace

ColorMode terminal_colors() {
  if (::isatty(STDOUT_FILENO) == 0 || is_dumb() || !variable("NO_COLOR").empty()) return ColorMode::kNone;
  const std::string_view depth = variable("COLORTERM");
  if (depth == "truecolor" || depth == "24bit") return ColorMode::kTrue;
  return variable("TERM").find("256color") != std::string_view::npos ? ColorMode::k256 : ColorMode::kNone;
}

bool parse_colors(std::string_view word, ColorMode* mode) {
  if (word == "auto")
    *mode = terminal_colors();
  else if (word == "none")
    *mode = ColorMode::kNone;
  else if (word == "256")
    *mode = ColorMode::k256;
  else if (word == "true")
    *mode = ColorMode::kTrue;
  else
    return false;
  return true;
}

bool has_utf8() {
  for (const char* const name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    std::string value(variable(name));
    if (value.empty()) continue;
    std::transform(value.begin(), value.end(), value.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 32) : c; });
    return value.find("utf-8") != value.npos || value.find("utf8") != value.npos;
  }
  return false;
}

std::size_t columns_of(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

std::string wrapped(std::string_view text, std::size_t width, std::size_t indent) {
  std::string out;
  std::size_t column = 0;
  while (!text.empty()) {
    const std::size_t end = text.find(' ');
    const std::string_view word = text.substr(0, end);
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
    const std::size_t n = columns_of(word);
    if (column != 0 && column + 1 + n > width) {
      out.append("\n").append(indent, ' ');
      column = indent;
    } else if (!out.empty()) {
      out += ' ';
      column++;
    }
    out += word;
    column += n;
  }
  return out;
}

Rgb mix(Rgb from, Rgb to, double share) {
  const auto part = [&](std::uint8_t a, std::uint8_t b) {
    return static_cast<std::uint8_t>(std::lround(a + (b - a) * share));
  };
  return {part(from.r, to.r), part(from.g, to.g), part(from.b, to.b)};
}

std::string hex_color(Rgb c) {
  char text[8];
  std::snprintf(text, sizeof text, "#%02x%02x%02x", c.r, c.g, c.b);
  return text;
}

ColorText& ColorText::text(std::string_view s) {
  out_ += s;
  const std::size_t newline = s.rfind('\n');
  column_ = newline == s.npos ? column_ + columns_of(s) : columns_of(s.substr(newline + 1));
  return *this;
}

ColorText& ColorText::pad_to(std::size_t column) {
  if (column > column_) text(std::string(column - column_, ' '));
  return *this;
}

ColorText& ColorText::right(std::string_view s, std::size_t width) {
  const std::size_t n = columns_of(s);
  if (n < width) text(std::string(width - n, ' '));
  return text(s);
}

void ColorText::color(int layer, Rgb c) {
  char code[32] = "";
  if (mode_ == ColorMode::kTrue) std::snprintf(code, sizeof code, "\033[%d;2;%d;%d;%dm", layer, c.r, c.g, c.b);
  if (mode_ == ColorMode::k256) std::snprintf(code, sizeof code, "\033[%d;5;%dm", layer, nearest_of_256(c));
  out_ += code;
  styled_ = styled_ || code[0] != '\0';
}

ColorText& ColorText::fg(Rgb c) {
  color(38, c);
  return *this;
}

ColorText& ColorText::bg(Rgb c) {
  color(48, c);
  return *this;
}

ColorText& ColorText::bold() {
  if (mode_ == ColorMode::kNone) return *this;
  out_ += "\033[1m";
  styled_ = true;
  return *this;
}

ColorText& ColorText::plain() {
  if (styled_) out_ += "\033[0m";
  styled_ = false;
  return *this;
}

ColorText& ColorText::line() {
  plain();
  return text("\n");
}

bool Screen::possible() { return ::isatty(STDOUT_FILENO) != 0 && !is_dumb(); }

Screen::Screen() {
  g_raw = ::isatty(STDIN_FILENO) != 0 && ::tcgetattr(STDIN_FILENO, &g_before) == 0;
  g_ended_by = 0;
  const sigset_t blocked = waited_for();
  ::sigprocmask(SIG_BLOCK, &blocked, nullptr);
  for (const int signal : kEnds) handle(signal, on_end);
  for (const int signal : kCrashes) handle(signal, on_crash);
  handle(SIGTSTP, on_stop);
  handle(SIGWINCH, on_change);
  // Before the first change, so that there is no exit without it.
  static const bool registered = std::atexit(leave) == 0;
  (void)registered;
  enter();
}

Screen::~Screen() { leave(); }

Screen::Size Screen::size() const {
  winsize w = {};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) != 0 || w.ws_col == 0 || w.ws_row == 0) return {80, 24};
  return {w.ws_col, w.ws_row};
}

bool Screen::draw(std::string_view text) const {
  // Each line wipes the rest of its row, and the end the rest of the screen: nothing flickers.
  std::string out = "\033[H";
  const unsigned rows = size().rows;
  for (unsigned row = 0; row < rows && !text.empty(); row++) {
    const std::size_t end = text.find('\n');
    if (row != 0) out += "\r\n";
    out.append(text.substr(0, end)).append("\033[0m\033[K");
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
  }
  out += "\033[J";
  put(out.data(), out.size());
  return ::isatty(STDOUT_FILENO) != 0;
}

int Screen::wait(double seconds) const {
  timespec end;
  ::clock_gettime(CLOCK_MONOTONIC, &end);
  const double until = static_cast<double>(end.tv_sec) + static_cast<double>(end.tv_nsec) * 1e-9 + seconds;
  for (;;) {
    timespec now;
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    const double left = until - static_cast<double>(now.tv_sec) - static_cast<double>(now.tv_nsec) * 1e-9;
    if (left <= 0) return 0;
    const timespec timeout = {static_cast<time_t>(left), static_cast<long>((left - std::floor(left)) * 1e9)};
    pollfd input = {g_raw != 0 ? STDIN_FILENO : -1, POLLIN, 0};
    sigset_t open;
    sigemptyset(&open);
    const int n = ::ppoll(&input, 1, &timeout, &open);
    if (g_ended_by != 0) return kEnd;
    if (g_changed != 0) {
      g_changed = 0;
      return 0;
    }
    if (n < 0 && errno != EINTR) return kEnd;
    if (n <= 0) continue;
    unsigned char key = 0;
    const ssize_t got = ::read(STDIN_FILENO, &key, 1);
    if (got == 1 && key != 0) return key;
    if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN)) return kEnd;  // the terminal hung up
  }
}

void Screen::finish() {
  const int signal = g_ended_by;
  if (signal == 0) return;
  std::signal(signal, SIG_DFL);
  sigset_t open;
  sigemptyset(&open);
  ::sigprocmask(SIG_SETMASK, &open, nullptr);
  ::raise(signal);
}

}  // namespace nh::cli
