// One line on standard error that says how far the work is.
#pragma once

#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>

namespace terse_tools {

enum class ProgressMode { automatic, always, never };

class Progress {
 public:
  // automatic: drawn only if standard error is a terminal.
  explicit Progress(ProgressMode mode, std::string unit)
      : unit_(std::move(unit)),
        shown_(mode == ProgressMode::always ||
               (mode == ProgressMode::automatic && ::isatty(STDERR_FILENO) == 1)) {}
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Draws at most ten times a second. fraction: of the whole work, if that is known.
  void update(std::uint64_t items, std::uint64_t tokens, std::optional<double> fraction) {
    const auto now = Clock::now();
    if (!shown_ || now < next_draw_) return;
    next_draw_ = now + std::chrono::milliseconds(100);
    draw(items, tokens, fraction, std::chrono::duration<double>(now - start_).count());
  }

  // Takes the line away, before something else is printed.
  void clear() {
    if (!drawn_) return;
    std::fputs("\r\x1b[K", stderr);
    drawn_ = false;
  }

 private:
  using Clock = std::chrono::steady_clock;

  void draw(std::uint64_t items, std::uint64_t tokens, std::optional<double> fraction,
            double seconds) {
    std::string line = "\r" + std::to_string(items) + " " + unit_;
    if (fraction) line += ", " + rounded(100 * *fraction) + "%";
    if (seconds > 0) {
      line += ", " + rounded(static_cast<double>(items) / seconds) + " " + unit_ + "/s";
      if (tokens > 0) {
        line += ", " + rounded(static_cast<double>(tokens) / seconds) + " tokens/s";
      }
    }
    if (fraction && *fraction > 0) {
      line += ", " + rounded(seconds / *fraction - seconds) + " s left";
    }
    std::fputs((line + "\x1b[K").c_str(), stderr);
    drawn_ = true;
  }

  static std::string rounded(double value) {
    return std::to_string(static_cast<std::int64_t>(value + 0.5));
  }

  std::string unit_;
  bool shown_;
  bool drawn_ = false;
  Clock::time_point start_ = Clock::now();
  Clock::time_point next_draw_ = start_ + std::chrono::milliseconds(300);
};

}  // namespace terse_tools
