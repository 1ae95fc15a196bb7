// Files compressed by gzip, read as if they were not. The only header that includes zlib: programs
// that include it link with zlib.
#pragma once

#include <zlib.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/evaluate/lines.h"

namespace terse {

// The bytes of another source, uncompressed if they start as gzip files do (RFC 1952; several
// members one after the other count as one file), else as they are.
class GzipSource : public ByteSource {
 public:
  explicit GzipSource(std::unique_ptr<ByteSource> source) : source_(std::move(source)) {
    // Two bytes decide; a pipe may hand them out one by one.
    while (input_end_ < 2 && fill() > 0) {
    }
    compressed_ = std::string_view(input_.data(), input_end_).starts_with("\x1f\x8b");
    // 15 + 16: the largest window, and a gzip header.
    if (compressed_) check_zlib(::inflateInit2(&stream_, 15 + 16));
  }
  ~GzipSource() override {
    if (compressed_) ::inflateEnd(&stream_);
  }
  GzipSource(const GzipSource&) = delete;
  GzipSource& operator=(const GzipSource&) = delete;

  bool is_compressed() const { return compressed_; }

  // Throws Error: io; truncated (the file ends inside a member); schema (damaged); memory.
  std::size_t read(std::span<char> buffer) override {
    if (!compressed_) return read_plain(buffer);
    stream_.next_out = reinterpret_cast<Bytef*>(buffer.data());
    stream_.avail_out = static_cast<uInt>(std::min(buffer.size(), kMaxRead));
    const uInt wanted = stream_.avail_out;
    while (stream_.avail_out == wanted && has_input()) inflate_some();
    return wanted - stream_.avail_out;
  }

  const std::string& name() const override { return source_->name(); }

 private:
  static constexpr std::size_t kMaxRead = std::size_t{1} << 30;

  // Appends to the input what the source has; how many bytes.
  std::size_t fill() {
    if (input_begin_ == input_end_) input_begin_ = input_end_ = 0;
    const std::size_t got = source_->read(std::span<char>(input_).subspan(input_end_));
    input_end_ += got;
    return got;
  }

  std::size_t read_plain(std::span<char> buffer) {
    if (input_begin_ == input_end_) return source_->read(buffer);
    const std::size_t count = std::min(buffer.size(), input_end_ - input_begin_);
    std::copy_n(input_.data() + input_begin_, count, buffer.data());
    input_begin_ += count;
    return count;
  }

  // Whether there is something to inflate; false at the end of the file, which must be the end of a
  // member.
  bool has_input() {
    if (input_begin_ < input_end_ || fill() > 0) return true;
    check(at_member_end_, ErrorClass::truncated, name(), ": ends inside compressed data");
    return false;
  }

  void inflate_some() {
    if (at_member_end_) check_zlib(::inflateReset(&stream_));
    at_member_end_ = false;
    stream_.next_in = reinterpret_cast<Bytef*>(input_.data() + input_begin_);
    stream_.avail_in = static_cast<uInt>(input_end_ - input_begin_);
    const int status = ::inflate(&stream_, Z_NO_FLUSH);
    input_begin_ = input_end_ - stream_.avail_in;
    if (status == Z_STREAM_END) {
      at_member_end_ = true;
    } else {
      check_zlib(status);
    }
  }

  void check_zlib(int status) const {
    check(status != Z_MEM_ERROR, ErrorClass::memory, name(), ": no memory to uncompress");
    check(status == Z_OK, ErrorClass::schema, name(), ": damaged compressed data (",
          stream_.msg != nullptr ? stream_.msg : "zlib reports no reason", ")");
  }

  std::unique_ptr<ByteSource> source_;
  std::vector<char> input_ = std::vector<char>(std::size_t{1} << 16);
  std::size_t input_begin_ = 0;
  std::size_t input_end_ = 0;
  z_stream stream_ = {};
  bool compressed_ = false;
  bool at_member_end_ = false;
};

// The lines of a file, compressed by gzip or not. Throws Error: path, io.
inline TextLines open_lines(const std::string& path) {
  return TextLines(std::make_unique<GzipSource>(std::make_unique<FileSource>(path)));
}

}  // namespace terse
