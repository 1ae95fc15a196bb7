// A model of the AMX tile registers and of the instructions on them that the library uses, with the
// faults that the processor raises: here std::logic_error, which says what the program did wrong.
//
// Loads and stores touch exactly the bytes of the configured rows, so that AddressSanitizer sees
// what the processor would. Source: Intel 64 and IA-32 Architectures SDM, volume 2, LDTILECFG,
// TILELOADD, TILESTORED, TILEZERO, TDPBF16PS, TDPBSSD; volume 1, chapter 18.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include "avx512_model.h"
#include "terse/ops/target.h"

TERSE_TARGET_BEGIN("avx2,fma,f16c")

namespace emulated {

// The tile registers of one thread.
class Tiles {
 public:
  static constexpr std::size_t kTiles = 8;
  static constexpr std::size_t kRows = 16;
  static constexpr std::size_t kRowBytes = 64;

  // 64 bytes: palette, start row, 14 reserved, 16 x colsb (2 bytes each), 16 x rows (1 byte each).
  void configure(const void* memory) {
    std::array<std::uint8_t, 64> config;
    std::memcpy(config.data(), memory, 64);
    if (config[0] == 0) return release();
    require(config[0] == 1, "ldtilecfg: palette above 1");
    for (std::size_t i = 2; i < 16; ++i) require(config[i] == 0, "ldtilecfg: reserved byte set");
    *this = Tiles();
    for (std::size_t tile = 0; tile < 16; ++tile) {
      const std::size_t row_bytes = config[16 + 2 * tile] | std::size_t{config[17 + 2 * tile]} << 8;
      const std::size_t rows = config[48 + tile];
      if (tile >= kTiles) {
        require(row_bytes == 0 && rows == 0, "ldtilecfg: a tile above 7");
        continue;
      }
      require(row_bytes <= kRowBytes, "ldtilecfg: colsb above 64");
      require(rows <= kRows, "ldtilecfg: rows above 16");
      require((rows == 0) == (row_bytes == 0), "ldtilecfg: one of rows and colsb is 0");
      tiles_[tile].rows = rows;
      tiles_[tile].row_bytes = row_bytes;
    }
    configured_ = true;
  }

  void release() { *this = Tiles(); }
  bool configured() const { return configured_; }

  void zero(std::size_t tile) { used(tile).data = {}; }

  void load(std::size_t tile, const void* base, std::int64_t stride) {
    Tile& to = used(tile);
    to.data = {};
    for (std::size_t row = 0; row < to.rows; ++row) {
      const auto* from = static_cast<const char*>(base) + static_cast<std::int64_t>(row) * stride;
      std::memcpy(to.data[row].data(), from, to.row_bytes);
    }
  }

  void store(std::size_t tile, void* base, std::int64_t stride) {
    const Tile& from = used(tile);
    for (std::size_t row = 0; row < from.rows; ++row) {
      auto* to = static_cast<char*>(base) + static_cast<std::int64_t>(row) * stride;
      std::memcpy(to, from.data[row].data(), from.row_bytes);
    }
  }

  // c (M, N) += a (M, K pairs) b (K pairs, N): first and second elements of the pairs are summed
  // apart, in rising k from zero, by fused multiply-adds that round to nearest even and flush
  // denormals; then their sum is added to c.
  void dpbf16ps(std::size_t c_tile, std::size_t a_tile, std::size_t b_tile) {
    Tile& c = product(c_tile, a_tile, b_tile);
    const Tile& a = tiles_[a_tile];
    const Tile& b = tiles_[b_tile];
    for (std::size_t m = 0; m < c.rows; ++m) {
      std::array<float, 16> sums[2] = {};
      for (std::size_t k = 0; k < b.rows; ++k) {
        for (const bool second : {false, true}) {
          const float x = half_as_float(a.word(m, k), second);
          auto& sum = sums[second];
          for (std::size_t n = 0; n < 16; ++n) {
            sum[n] = flushing_multiply_add(x, half_as_float(b.word(k, n), second), sum[n]);
          }
        }
      }
      for (std::size_t n = 0; n < c.row_bytes / 4; ++n) {
        const float sum = flushed(sums[0][n] + sums[1][n]);
        c.set_word(m, n, to_bits(flushed(flushed(to_float(c.word(m, n))) + sum)));
      }
    }
  }

  // The same of bytes, four to a word, of a unsigned and of b signed, into integers that wrap.
  void dpbusd(std::size_t c_tile, std::size_t a_tile, std::size_t b_tile) {
    Tile& c = product(c_tile, a_tile, b_tile);
    const Tile& a = tiles_[a_tile];
    const Tile& b = tiles_[b_tile];
    for (std::size_t m = 0; m < c.rows; ++m) {
      for (std::size_t n = 0; n < c.row_bytes / 4; ++n) {
        std::uint32_t sum = c.word(m, n);
        for (std::size_t k = 0; k < b.rows; ++k) {
          for (std::size_t i = 0; i < 4; ++i) {
            const auto x = static_cast<int>(a.word(m, k) >> 8 * i & 0xff);
            const int y = static_cast<std::int8_t>(b.word(k, n) >> 8 * i & 0xff);
            sum += static_cast<std::uint32_t>(x * y);
          }
        }
        c.set_word(m, n, sum);
      }
    }
  }

 private:
  struct Tile {
    std::size_t rows = 0;
    std::size_t row_bytes = 0;
    std::array<std::array<std::uint8_t, kRowBytes>, kRows> data = {};

    std::uint32_t word(std::size_t row, std::size_t index) const {
      std::uint32_t value;
      std::memcpy(&value, data[row].data() + 4 * index, 4);
      return value;
    }
    void set_word(std::size_t row, std::size_t index, std::uint32_t value) {
      std::memcpy(data[row].data() + 4 * index, &value, 4);
    }
  };

  static void require(bool holds, const char* fault) {
    if (!holds) throw std::logic_error(fault);
  }

  Tile& used(std::size_t tile) {
    require(configured_, "tile instruction before ldtilecfg");
    require(tile < kTiles && tiles_[tile].rows > 0, "tile instruction on a tile without rows");
    return tiles_[tile];
  }

  // What the shapes of a product must fulfil; gives c.
  Tile& product(std::size_t c_tile, std::size_t a_tile, std::size_t b_tile) {
    require(c_tile != a_tile && c_tile != b_tile && a_tile != b_tile, "product: a tile twice");
    Tile& c = used(c_tile);
    const Tile& a = used(a_tile);
    const Tile& b = used(b_tile);
    require(a.row_bytes % 4 == 0 && b.row_bytes % 4 == 0 && c.row_bytes % 4 == 0,
            "product: colsb not of whole words");
    require(a.rows == c.rows, "product: rows of a and c differ");
    require(a.row_bytes / 4 == b.rows, "product: columns of a and rows of b differ");
    require(b.row_bytes == c.row_bytes, "product: columns of b and c differ");
    return c;
  }

  bool configured_ = false;
  std::array<Tile, kTiles> tiles_ = {};
};

inline Tiles& tiles() {
  static thread_local Tiles registers;
  return registers;
}

}  // namespace emulated

TERSE_TARGET_END
