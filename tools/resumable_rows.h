// A CSV file that grows row by row and may be continued after the program was killed at any moment.
#pragma once

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "terse/error.h"
#include "terse/file.h"

namespace terse_tools {

class ResumableRows {
 public:
  static constexpr std::size_t kMaxBytes = std::size_t{1} << 30;

  // Opens or makes the file and keeps other processes from writing it too. Complete rows that it
  // has are kept: they must start with the first of `keys`, in their order; a last row that was cut
  // is removed. Throws Error: path, io, busy, schema (rows of something else).
  ResumableRows(const std::string& path, std::string heading, std::span<const std::string> keys)
      : path_(path), heading_(std::move(heading)) {
    terse::check(path.find('\0') == std::string::npos, terse::ErrorClass::path,
                 terse::path_text(path), ": a NUL in a file name");
    descriptor_ = terse::FileDescriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
    if (descriptor_.get() < 0) terse::detail::fail_io(path, "open", errno);
    terse::check(::flock(descriptor_.get(), LOCK_EX | LOCK_NB) == 0, terse::ErrorClass::busy,
                 terse::path_text(path), ": another process is writing it");
    read(keys);
  }

  // Rows that were there already.
  std::size_t num_kept() const { return num_kept_; }

  // Adds the heading, if there is none yet, and a row; both are on the disk afterwards. Throws
  // Error(io).
  void append(std::string_view row) {
    const std::string text = (size_ == 0 ? heading_ : std::string()) + std::string(row);
    std::string_view rest = text;
    std::uint64_t end = size_;
    while (!rest.empty()) {
      const ssize_t written = terse::detail::retry_interrupted([&] {
        return ::pwrite(descriptor_.get(), rest.data(), rest.size(), static_cast<off_t>(end));
      });
      if (written < 0) terse::detail::fail_io(path_, "write", errno);
      rest.remove_prefix(static_cast<std::size_t>(written));
      end += static_cast<std::uint64_t>(written);
    }
    if (::fsync(descriptor_.get()) != 0) terse::detail::fail_io(path_, "write to disk", errno);
    size_ = end;
  }

 private:
  void read(std::span<const std::string> keys) {
    const std::string text = terse::read_text_file(path_, kMaxBytes);
    std::string_view rest = text;
    std::size_t line = 0;
    for (std::size_t end; (end = rest.find('\n')) != std::string_view::npos; ++line) {
      check_line(rest.substr(0, end + 1), line, keys);
      rest.remove_prefix(end + 1);
    }
    // A lone heading counts as nothing: it is written together with the first row.
    num_kept_ = line == 0 ? 0 : line - 1;
    size_ = num_kept_ == 0 ? 0 : text.size() - rest.size();
    terse::check(line > 0 || heading_.starts_with(rest), terse::ErrorClass::schema,
                 terse::path_text(path_), ": is not the table of a sweep, and not overwritten");
    if (::ftruncate(descriptor_.get(), static_cast<off_t>(size_)) != 0) {
      terse::detail::fail_io(path_, "shorten", errno);
    }
  }

  void check_line(std::string_view text, std::size_t line,
                  std::span<const std::string> keys) const {
    const bool ours =
        line == 0 ? text == heading_ : line <= keys.size() && text.starts_with(keys[line - 1]);
    terse::check(ours, terse::ErrorClass::schema, terse::path_text(path_), ":", line + 1,
                 ": is not of this sweep; choose another output, or remove the file");
  }

  std::string path_;
  std::string heading_;
  terse::FileDescriptor descriptor_;
  std::size_t num_kept_ = 0;
  std::uint64_t size_ = 0;  // of what is kept
};

}  // namespace terse_tools
