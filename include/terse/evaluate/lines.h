// Text files line by line: streamed, with the place of each line for messages. Where the bytes come
// from is a ByteSource: a file or pipe here, a compressed file in gzip.h.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/file.h"

namespace terse {

namespace detail {

// White space inside a line.
inline constexpr auto is_blank = [](char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
};

}  // namespace detail

// Bytes that are read once, from the beginning to the end.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Fills the front of buffer and returns how much of it; 0 at the end. Throws Error.
  virtual std::size_t read(std::span<char> buffer) = 0;
  // The file's name, for messages.
  virtual const std::string& name() const = 0;
};

// A file, pipe or device; waits for a pipe's writer.
class FileSource : public ByteSource {
 public:
  // Throws Error: path (a NUL in the name), io.
  explicit FileSource(const std::string& path) : path_(path), name_(path_text(path)) {
    check(path.find('\0') == std::string::npos, ErrorClass::path, name_, ": a NUL in a file name");
    descriptor_ = FileDescriptor(detail::retry_interrupted(
        [&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY); }));
    if (descriptor_.get() < 0) detail::fail_io(path, "open", errno);
    struct stat status = {};
    if (::fstat(descriptor_.get(), &status) != 0) detail::fail_io(path, "examine", errno);
    check(!S_ISDIR(status.st_mode), ErrorClass::io, name_, ": is a folder, expected a file");
  }

  std::size_t read(std::span<char> buffer) override {
    const ssize_t got = detail::retry_interrupted(
        [&] { return ::read(descriptor_.get(), buffer.data(), buffer.size()); });
    if (got < 0) detail::fail_io(path_, "read", errno);
    return static_cast<std::size_t>(got);
  }

  const std::string& name() const override { return name_; }

 private:
  std::string path_;
  std::string name_;
  FileDescriptor descriptor_;
};

// The lines of a source that are not blank, without their ends ("\n" or "\r\n"). A byte order mark
// at the beginning is skipped; a last line without an end counts.
class TextLines {
 public:
  static constexpr std::size_t kMaxLineBytes = std::size_t{64} << 20;

  explicit TextLines(std::unique_ptr<ByteSource> source) : source_(std::move(source)) {}
  // Opens a file that is not compressed. Throws Error: path, io.
  explicit TextLines(const std::string& path) : TextLines(std::make_unique<FileSource>(path)) {}

  // Moves to the next line; false at the end. Throws Error: io, limit (a line of more than
  // kMaxLineBytes), schema (a NUL, as in binary files and UTF-16).
  bool next() {
    while (next_line()) {
      if (text_.ends_with('\r')) text_.remove_suffix(1);
      if (std::all_of(text_.begin(), text_.end(), detail::is_blank)) continue;
      if (text_.find('\0') != std::string_view::npos) {
        fail(ErrorClass::schema, where(), ": a NUL byte, expected a line of text");
      }
      return true;
    }
    return false;
  }

  // The line moved to; valid until next().
  std::string_view text() const { return text_; }
  // Where it is: "runs/bm25.trec:17", lines counted from 1 as editors do.
  std::string where() const { return where(number_); }
  std::string where(std::uint64_t line) const { return name() + ":" + std::to_string(line); }
  std::uint64_t number() const { return number_; }
  // Bytes of the source before the line.
  std::uint64_t offset() const { return offset_; }
  // Bytes of the source up to and with the line and its end.
  std::uint64_t end_offset() const { return base_ + begin_; }
  const std::string& name() const { return source_->name(); }

 private:
  static constexpr std::size_t kReadBytes = std::size_t{1} << 18;

  bool next_line() {
    const void* newline = nullptr;
    std::size_t scanned = begin_;
    while ((newline = find_newline(scanned)) == nullptr) {
      scanned = used_;
      check(used_ - begin_ <= kMaxLineBytes, ErrorClass::limit, where(number_ + 1),
            ": a line of more than ", kMaxLineBytes, " bytes");
      const std::size_t shift = begin_;
      if (!read_more()) break;
      scanned -= shift;
    }
    if (newline == nullptr && begin_ == used_) return false;
    const auto end =
        newline == nullptr
            ? used_
            : static_cast<std::size_t>(static_cast<const char*>(newline) - buffer_.data());
    text_ = std::string_view(buffer_.data() + begin_, end - begin_);
    offset_ = base_ + begin_;
    begin_ = newline == nullptr ? used_ : end + 1;
    ++number_;
    return true;
  }

  const void* find_newline(std::size_t from) const {
    return from == used_ ? nullptr : std::memchr(buffer_.data() + from, '\n', used_ - from);
  }

  // Moves what is left to the front of the buffer and reads on behind it; false at the end.
  bool read_more() {
    std::memmove(buffer_.data(), buffer_.data() + begin_, used_ - begin_);
    base_ += begin_;
    used_ -= std::exchange(begin_, 0);
    if (buffer_.size() < used_ + kReadBytes) buffer_.resize(used_ + std::max(used_, kReadBytes));
    const bool first = base_ == 0 && used_ == 0;
    const std::size_t before = used_;
    // Three bytes decide whether there is a byte order mark; a pipe may hand them out one by one.
    while (true) {
      const std::size_t got = source_->read(std::span<char>(buffer_).subspan(used_));
      used_ += got;
      if (got == 0 || !first || used_ >= 3) break;
    }
    if (first && std::string_view(buffer_.data(), used_).starts_with("\xEF\xBB\xBF")) begin_ = 3;
    return used_ > before;
  }

  std::unique_ptr<ByteSource> source_;
  std::vector<char> buffer_ = std::vector<char>(kReadBytes);
  std::string_view text_;
  std::uint64_t number_ = 0;
  std::uint64_t offset_ = 0;
  std::uint64_t base_ = 0;  // bytes of the source before the buffer
  std::size_t begin_ = 0;   // of the next line, in the buffer
  std::size_t used_ = 0;    // bytes of the buffer that were read
};

// The columns of a line between runs of blanks and tabs, at most N of them, and how many there are.
template <std::size_t N>
std::size_t split_columns(std::string_view text, std::string_view (&columns)[N]) {
  std::size_t count = 0;
  auto at = text.begin();
  while (true) {
    const auto begin = std::find_if_not(at, text.end(), detail::is_blank);
    if (begin == text.end()) return count;
    at = std::find_if(begin, text.end(), detail::is_blank);
    if (count < N) columns[count] = {begin, at};
    ++count;
  }
}

}  // namespace terse
