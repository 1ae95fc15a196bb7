// Lines of a file or of standard input, read ahead so that a caller can batch what is there, and
// told apart from what would have to be waited for: another program may hold a conversation line by
// line.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "interrupt.h"
#include "terse/error.h"
#include "terse/file.h"

namespace terse_tools {

// A line without its end. `text` is valid until the reader is used again.
struct Line {
  std::string_view text;
  std::uint64_t number = 0;  // from 0
  bool too_long = false;     // longer than LineReader::kMaxLineBytes: text is empty
};

class LineReader {
 public:
  static constexpr std::size_t kMaxLineBytes = std::size_t{256} << 20;

  // "-" and the empty name stand for standard input. Throws Error(io).
  explicit LineReader(const std::string& path) {
    if (path.empty() || path == "-") {
      name_ = "standard input";
      descriptor_ = terse::FileDescriptor(::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3));
    } else {
      name_ = terse::path_text(path);
      descriptor_ = terse::FileDescriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    }
    if (descriptor_.get() < 0) fail_io("open");
    struct stat status = {};
    if (::fstat(descriptor_.get(), &status) != 0) fail_io("examine");
    terse::check(!S_ISDIR(status.st_mode), terse::ErrorClass::io, name_,
                 ": is a folder, expected a file");
    if (S_ISREG(status.st_mode)) total_bytes_ = static_cast<std::uint64_t>(status.st_size);
  }

  // For messages.
  const std::string& name() const { return name_; }
  // How much of the input has been handed out; unknown (nothing) for pipes.
  std::optional<double> fraction_done() const {
    if (!total_bytes_ || *total_bytes_ == 0) return std::nullopt;
    return static_cast<double>(bytes_taken_) / static_cast<double>(*total_bytes_);
  }

  // The next line, waited for; nothing at the end. A last line without newline counts. Throws
  // Error: io, cancelled.
  std::optional<Line> next() {
    while (!has_line()) {
      if (at_end_) return std::nullopt;
      wait();
      read_some();
    }
    return take_line();
  }

  // Whether next() has a line without waiting.
  bool ready() {
    while (!has_line()) {
      if (at_end_ || !readable(0)) return false;
      read_some();
    }
    return true;
  }

  // All that is left, newlines included, but at most one byte more than max_bytes. Throws Error.
  std::string read_all(std::size_t max_bytes) {
    while (!at_end_ && buffer_.size() - begin_ <= max_bytes) {
      wait();
      read_some();
    }
    return buffer_.substr(begin_, max_bytes + 1);
  }

 private:
  static constexpr std::size_t kReadBytes = std::size_t{1} << 16;

  [[noreturn]] void fail_io(std::string_view action) const {
    terse::fail(terse::ErrorClass::io, name_, ": could not ", action, ": ", std::strerror(errno));
  }

  // Whether a line is complete in the buffer; remembers how far it looked.
  bool has_line() {
    if (skipping_) return at_end_ || drop_to_newline();
    const std::size_t newline = buffer_.find('\n', scanned_);
    if (newline != std::string::npos) {
      line_end_ = newline;
      return true;
    }
    scanned_ = buffer_.size();
    line_end_ = buffer_.size();
    if (scanned_ - begin_ > kMaxLineBytes) {
      skipping_ = true;
      return drop_to_newline();
    }
    return at_end_ && begin_ < buffer_.size();
  }

  // Forgets an over-long line as it comes in; true when its newline has come.
  bool drop_to_newline() {
    const std::size_t newline = buffer_.find('\n', begin_);
    line_end_ = newline == std::string::npos ? buffer_.size() : newline;
    if (newline != std::string::npos) return true;
    bytes_taken_ += buffer_.size() - begin_;
    buffer_.clear();
    begin_ = scanned_ = 0;
    return false;
  }

  Line take_line() {
    Line line;
    line.number = next_number_++;
    line.too_long = skipping_ || line_end_ - begin_ > kMaxLineBytes;
    if (!line.too_long) line.text = std::string_view(buffer_).substr(begin_, line_end_ - begin_);
    skipping_ = false;
    const std::size_t next = line_end_ < buffer_.size() ? line_end_ + 1 : buffer_.size();
    bytes_taken_ += next - begin_;
    begin_ = scanned_ = next;
    return line;
  }

  // Whether a read would return at once.
  bool readable(int timeout_ms) const {
    pollfd polled[] = {{descriptor_.get(), POLLIN, 0}, {wake_descriptor(), POLLIN, 0}};
    const int count = ::poll(polled, 2, timeout_ms);
    check_interrupted();
    return count > 0 && polled[0].revents != 0;
  }

  void wait() const {
    while (!readable(-1)) {
    }
  }

  void read_some() {
    if (begin_ > 0 && begin_ >= buffer_.size() / 2) {
      buffer_.erase(0, begin_);
      scanned_ -= begin_;
      begin_ = 0;
    }
    const std::size_t used = buffer_.size();
    buffer_.resize(used + kReadBytes);
    const ssize_t got = ::read(descriptor_.get(), buffer_.data() + used, kReadBytes);
    buffer_.resize(used + (got > 0 ? static_cast<std::size_t>(got) : 0));
    if (got == 0) at_end_ = true;
    if (got < 0 && errno != EINTR && errno != EAGAIN) fail_io("read");
  }

  std::string name_;
  terse::FileDescriptor descriptor_;
  std::optional<std::uint64_t> total_bytes_;
  std::uint64_t bytes_taken_ = 0;
  std::string buffer_;
  std::size_t begin_ = 0;     // of the next line
  std::size_t scanned_ = 0;   // no newline in [begin_, scanned_)
  std::size_t line_end_ = 0;  // of the line that has_line() found
  std::uint64_t next_number_ = 0;
  bool skipping_ = false;  // inside a line that is too long
  bool at_end_ = false;
};

// Fills a chunk with the next line and as many more as it takes and as are there without waiting.
// Chunk: add(const Line&), full(), empty(). False at the end of the input.
template <class Chunk>
bool fill_chunk(LineReader& reader, Chunk& chunk) {
  while (chunk.empty() || (!chunk.full() && reader.ready())) {
    const auto line = reader.next();
    if (!line) return !chunk.empty();
    chunk.add(*line);
  }
  return true;
}

}  // namespace terse_tools
