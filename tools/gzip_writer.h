// A file that appears when it is complete, compressed by gzip if its name ends in .gz.
#pragma once

#include <zlib.h>

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "terse/error.h"
#include "terse/file.h"

namespace terse_tools {

class GzipWriter {
 public:
  // Throws Error: path, io, memory.
  explicit GzipWriter(const std::string& path) : file_(path), compressed_(path.ends_with(".gz")) {
    // 15 + 16: the largest window, and a gzip header, which holds neither time nor name.
    const int level = 6;
    const int status =
        compressed_ ? ::deflateInit2(&stream_, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY)
                    : Z_OK;
    terse::check(status == Z_OK, terse::ErrorClass::memory, terse::path_text(path),
                 ": no memory to compress");
  }
  ~GzipWriter() {
    if (compressed_) ::deflateEnd(&stream_);
  }
  GzipWriter(const GzipWriter&) = delete;
  GzipWriter& operator=(const GzipWriter&) = delete;

  // Throws Error(io).
  void write(std::string_view text) {
    if (!compressed_) return file_.write(text);
    deflate(text, Z_NO_FLUSH);
  }

  // The file now has its name. Throws Error(io).
  void commit() {
    if (compressed_) deflate({}, Z_FINISH);
    file_.commit();
  }

 private:
  void deflate(std::string_view text, int flush) {
    std::array<char, 1 << 15> out;
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
    stream_.avail_in = static_cast<uInt>(text.size());
    do {
      stream_.next_out = reinterpret_cast<Bytef*>(out.data());
      stream_.avail_out = static_cast<uInt>(out.size());
      ::deflate(&stream_, flush);
      file_.write(std::string_view(out.data(), out.size() - stream_.avail_out));
    } while (stream_.avail_out == 0);
  }

  terse::AtomicFile file_;
  bool compressed_;
  z_stream stream_ = {};
};

}  // namespace terse_tools
