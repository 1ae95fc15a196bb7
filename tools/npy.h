// A NumPy file of f32 rows, written row by row.
// Source: numpy/lib/format.py, format version 1.0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "terse/error.h"
#include "terse/file.h"

namespace terse_tools {

class NpyWriter {
 public:
  // Throws Error: path, io.
  NpyWriter(const std::string& path, std::size_t width) : file_(path), width_(width) {
    file_.write(header());
  }

  // row: `width` values, or none for a row of NaN. Throws Error(io).
  void add_row(std::span<const float> row) {
    const std::vector<float> missing(row.empty() ? width_ : 0,
                                     std::numeric_limits<float>::quiet_NaN());
    file_.write(std::as_bytes(row.empty() ? std::span<const float>(missing) : row));
    ++rows_;
  }

  // The file appears. Throws Error(io).
  void finish() {
    file_.overwrite(0, header());
    file_.commit();
  }

 private:
  static constexpr std::size_t kHeaderBytes = 128;  // room for any number of rows

  // 6 bytes of magic, 2 of version, 2 of length, then a Python dictionary up to kHeaderBytes.
  std::string header() const {
    std::string text("\x93NUMPY\x01\x00", 8);
    text += static_cast<char>(kHeaderBytes - 10);
    text += '\0';
    text += "{'descr': '<f4', 'fortran_order': False, 'shape': (" + std::to_string(rows_) + ", " +
            std::to_string(width_) + "), }";
    text.resize(kHeaderBytes - 1, ' ');
    return text + "\n";
  }

  terse::AtomicFile file_;
  std::size_t width_;
  std::size_t rows_ = 0;
};

}  // namespace terse_tools
