// Where results go: standard output, flushed whenever the caller has answered what it was asked, or
// a file that appears under its name only when it is complete.
#pragma once

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "interrupt.h"
#include "terse/error.h"
#include "terse/file.h"

namespace terse_tools {

class Output {
 public:
  // "-" and the empty name stand for standard output. Throws Error: path, io.
  explicit Output(const std::string& path) {
    if (!path.empty() && path != "-") file_ = std::make_unique<terse::AtomicFile>(path);
  }

  // Appends. Throws Error: io, cancelled.
  void write(std::string_view text) {
    if (file_ != nullptr) return file_->write(text);
    buffer_ += text;
    if (buffer_.size() >= kBufferBytes) flush();
  }

  // Hands what was written so far to the reader of standard output. Throws Error: io, cancelled.
  void flush() {
    std::string_view rest = buffer_;
    while (!rest.empty()) {
      const ssize_t written = ::write(STDOUT_FILENO, rest.data(), rest.size());
      if (written >= 0) {
        rest.remove_prefix(static_cast<std::size_t>(written));
      } else if (errno == EAGAIN) {
        wait_until_writable();
      } else {
        terse::check(errno == EINTR, terse::ErrorClass::io,
                     "standard output: could not write: ", std::strerror(errno));
        check_interrupted();
      }
    }
    buffer_.clear();
  }

  // Flushes; a file now replaces what had its name before. Throws Error: io, cancelled.
  void finish() {
    if (file_ != nullptr) return file_->commit();
    flush();
  }

 private:
  static constexpr std::size_t kBufferBytes = std::size_t{1} << 16;

  static void wait_until_writable() {
    pollfd polled[] = {{STDOUT_FILENO, POLLOUT, 0}, {wake_descriptor(), POLLIN, 0}};
    ::poll(polled, 2, -1);
    check_interrupted();
  }

  std::unique_ptr<terse::AtomicFile> file_;
  std::string buffer_;
};

// Replaces or makes a file at once. Throws Error: path, io.
inline void write_whole_file(const std::string& path, std::string_view text) {
  terse::AtomicFile file(path);
  file.write(text);
  file.commit();
}

}  // namespace terse_tools
