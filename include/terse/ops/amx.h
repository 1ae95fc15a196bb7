// The op tables for AMX tiles in bf16 and int8: those of AVX-512 with its products done by tiles,
// on the same operands, panels and attention inputs.
//
// A tile is a register of up to 16 rows of 64 bytes; one instruction multiplies a tile of A (16
// rows, 32 k of bf16 or 64 of int8) by a tile of B (as many k, 16 columns) in 16 cycles. What is
// measured of the instructions and what follows for a kernel: a tile load takes 8 cycles from the
// first-level cache and 21 from the second, so that
//   - four products share two tiles of A and two of B: one load a product;
//   - of the four loads at most two may come from the second level: see kBlockWords;
//   - lines of the next panels are prefetched one or two at a time between products: a burst of
//     prefetches holds the loads up.
// A product by tiles sums even and odd k apart, each tile's sums then added to C: other bits than
// vdpbf16ps. So it is tiles for every row, however few there are: fewer rows, never another
// instruction.
// Source: Intel 64 and IA-32 Architectures SDM, volume 1, chapter 18; Optimization Reference
// Manual, chapter on AMX (latencies: ldtilecfg 204 cycles, hence not one per block of rows).
#pragma once

#if defined(__x86_64__)

#include <immintrin.h>

#include "terse/ops/avx512.h"
#include "terse/ops/target.h"

#if !defined(__clang__)
#pragma GCC diagnostic push
// As in avx512.h.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

TERSE_TARGET_BEGIN(
    "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16,amx-int8,fma,f16c")

namespace terse::amx {

inline constexpr std::int64_t kTileRows = 16;   // of A and C, at most
inline constexpr std::int64_t kTileWords = 16;  // of k, at most; and columns of B and C

// What ldtilecfg reads: palette, first row after a fault, then bytes a row and rows of each tile.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

// Tiles 0 to 3 are C, [row tile][column tile]; 4 and 5 are A, 6 and 7 are B.
constexpr TileConfig tile_config(int rows, int words) {
  TileConfig config;
  for (std::size_t tile = 0; tile < 8; ++tile) {
    const bool is_a = tile == 4 || tile == 5;
    config.row_bytes[tile] = static_cast<std::uint16_t>(is_a ? 4 * words : 64);
    config.rows[tile] = static_cast<std::uint8_t>(tile < 6 ? rows : words);
  }
  return config;
}

// Constants rather than something filled before each use: GCC's ldtilecfg says that it reads 8
// bytes, and stores to the other 56 would be dropped. [rows - 1][words - 1].
inline constexpr auto kTileConfigs = [] {
  std::array<std::array<TileConfig, kTileWords>, kTileRows> configs;
  for (int rows = 1; rows <= kTileRows; ++rows) {
    for (int words = 1; words <= kTileWords; ++words) {
      configs[static_cast<std::size_t>(rows - 1)][static_cast<std::size_t>(words - 1)] =
          tile_config(rows, words);
    }
  }
  return configs;
}();

// Rows of a block in tiles of one height, so that a block has one configuration. The last tile
// begins where it ends with the block: the rows it shares with the one before are computed twice,
// to the same bits, in one call of multiply_tiles, which reads all of C before it writes any.
struct RowTiles {
  std::int64_t rows;
  std::int64_t count = ceil_div(rows, kTileRows);
  std::int64_t height = ceil_div(rows, count);
  std::int64_t begin(std::int64_t tile) const { return std::min(tile * height, rows - height); }
};

// C (row tiles, column tiles) = or += A B over `steps` tiles of k: f32 of bf16, or i32 of int8,
// whose sums are exact. Strides in bytes. The second row tile of A and C is anywhere; the second
// column tile of C is the next 16 columns.
struct TileBlock {
  const Word* a[2] = {};
  std::int64_t a_stride = 0;
  const Word* b[2] = {};
  std::int64_t b_stride = 0;
  float* c[2] = {};
  std::int64_t c_stride = 0;
  std::int64_t steps = 0;
  bool accumulate = false;
  // Lines wanted soon in the second-level cache, one of each stream after every product.
  const std::byte* prefetch[2] = {};
  std::int64_t prefetch_lines = 0;
};

template <bool INT8, int ROWS, int COLUMNS>
inline void multiply_tiles(TileBlock block) {
  // GCC's tile loads do not say that they read memory: what was stored before must be there.
  std::atomic_signal_fence(std::memory_order_seq_cst);
  if (block.accumulate) {
    _tile_loadd(0, block.c[0], block.c_stride);
    if constexpr (COLUMNS == 2) _tile_loadd(1, block.c[0] + 16, block.c_stride);
    if constexpr (ROWS == 2) _tile_loadd(2, block.c[1], block.c_stride);
    if constexpr (ROWS * COLUMNS == 4) _tile_loadd(3, block.c[1] + 16, block.c_stride);
  } else {
    _tile_zero(0);
    if constexpr (COLUMNS == 2) _tile_zero(1);
    if constexpr (ROWS == 2) _tile_zero(2);
    if constexpr (ROWS * COLUMNS == 4) _tile_zero(3);
  }
  const auto prefetch = [&block] {
    if (block.prefetch_lines == 0) return;
    --block.prefetch_lines;
    for (const std::byte*& line : block.prefetch) {
      _mm_prefetch(line, _MM_HINT_T1);
      line += 64;
    }
  };
  for (std::int64_t step = 0; step < block.steps; ++step) {
    // Each load right before the first product that needs it.
    _tile_loadd(6, block.b[0], block.b_stride);
    _tile_loadd(4, block.a[0], block.a_stride);
    if constexpr (INT8) _tile_dpbssd(0, 4, 6);
    if constexpr (!INT8) _tile_dpbf16ps(0, 4, 6);
    prefetch();
    if constexpr (COLUMNS == 2) {
      _tile_loadd(7, block.b[1], block.b_stride);
      if constexpr (INT8) _tile_dpbssd(1, 4, 7);
      if constexpr (!INT8) _tile_dpbf16ps(1, 4, 7);
      prefetch();
    }
    if constexpr (ROWS == 2) {
      _tile_loadd(5, block.a[1], block.a_stride);
      if constexpr (INT8) _tile_dpbssd(2, 5, 6);
      if constexpr (!INT8) _tile_dpbf16ps(2, 5, 6);
      prefetch();
    }
    if constexpr (ROWS * COLUMNS == 4) {
      if constexpr (INT8) _tile_dpbssd(3, 5, 7);
      if constexpr (!INT8) _tile_dpbf16ps(3, 5, 7);
      prefetch();
    }
    for (int i = 0; i < 2; ++i) {
      block.a[i] += kTileWords;
      block.b[i] += kTileWords * block.b_stride / std::int64_t{sizeof(Word)};
    }
  }
  _tile_stored(0, block.c[0], block.c_stride);
  if constexpr (COLUMNS == 2) _tile_stored(1, block.c[0] + 16, block.c_stride);
  if constexpr (ROWS == 2) _tile_stored(2, block.c[1], block.c_stride);
  if constexpr (ROWS * COLUMNS == 4) _tile_stored(3, block.c[1] + 16, block.c_stride);
}

template <bool INT8>
inline void multiply(const TileBlock& block, std::int64_t row_tiles, std::int64_t column_tiles) {
  if (row_tiles == 2) {
    column_tiles == 2 ? multiply_tiles<INT8, 2, 2>(block) : multiply_tiles<INT8, 2, 1>(block);
  } else {
    column_tiles == 2 ? multiply_tiles<INT8, 1, 2>(block) : multiply_tiles<INT8, 1, 1>(block);
  }
}

// Words of k that pass all rows of a block before the next ones do: two panels of them are 32 KiB,
// which stays in the first-level cache (48 KiB) while rows of A stream past from the second.
// Between blocks C lies in memory, in the tile's type, so that no bit depends on this.
inline constexpr std::int64_t kBlockWords = 256;

// What a worker holds while it multiplies: its floating-point environment and, from the first
// product on, the tiles. They are given back at its end: a thread with live tiles is slow to
// switch.
class TileScope {
 public:
  TileScope() = default;
  ~TileScope() {
    if (rows_ > 0) _tile_release();
  }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;

  // C (rows, 16 panels) = A W^T for panels [first, last) of the weight: of int8 times the scales of
  // row and column. Steps in words.
  template <bool INT8 = false>
  void multiply_panels(const Word* a, std::int64_t a_step, std::int64_t rows,
                       const PanelWeight& weight, std::int64_t first, std::int64_t last, float* c,
                       std::int64_t c_step) {
    const std::int64_t words = weight.panel_words() / kPanelColumns;
    TileBlock block;
    block.a_stride = a_step * std::int64_t{sizeof(Word)};
    block.b_stride = kPanelColumns * std::int64_t{sizeof(Word)};
    block.c_stride = c_step * std::int64_t{sizeof(float)};
    for (std::int64_t panel = first; panel < last; panel += 2) {
      const std::int64_t panels = std::min<std::int64_t>(2, last - panel);
      for (std::int64_t k = 0; k < words;) {
        const std::int64_t left = std::min(kBlockWords, words - k);
        // A last step of fewer words has a configuration of its own.
        const std::int64_t step_words = std::min(left, kTileWords);
        const std::int64_t block_words = left / step_words * step_words;
        block.steps = left / step_words;
        block.accumulate = k > 0;
        set_columns(block, weight, panel, panels, k, k + block_words);
        multiply_rows<INT8>(block, step_words, a + k, rows, c + (panel - first) * kPanelColumns,
                            panels);
        k += block_words;
      }
      if constexpr (INT8) {
        scale(reinterpret_cast<const float*>(a) + scale_word(weight.width(), 1), a_step,
              weight.scales() + panel * kPanelColumns, rows, panels,
              c + (panel - first) * kPanelColumns, c_step);
      }
    }
  }

  // For products of whole tiles alone.
  void use_whole_tiles() { configure(kTileRows, kTileWords); }

 private:
  // Columns [k words, end) of the panels, and of what is multiplied after them to prefetch.
  static void set_columns(TileBlock& block, const PanelWeight& weight, std::int64_t panel,
                          std::int64_t panels, std::int64_t k, std::int64_t end) {
    const std::int64_t words = weight.panel_words() / kPanelColumns;
    for (std::int64_t i = 0; i < 2; ++i) {
      block.b[i] = weight.panel(panel + std::min(i, panels - 1)) + k * kPanelColumns;
    }
    std::int64_t next = panel;
    if (end == words) {
      next += 2;
      end = 0;
    }
    const bool more = next + 2 <= weight.panels();
    block.prefetch_lines = more ? std::min(kBlockWords, words - end) : 0;
    for (std::int64_t i = 0; more && i < 2; ++i) {
      block.prefetch[i] =
          reinterpret_cast<const std::byte*>(weight.panel(next + i) + end * kPanelColumns);
    }
  }

  // Sums in i32 (rows, 16 panels), in place: times the scale of the row (row_step words apart) and
  // of the column. As avx512::vnni does, to the bit.
  static void scale(const float* row_scales, std::int64_t row_step, const float* column_scales,
                    std::int64_t rows, std::int64_t panels, float* c, std::int64_t c_step) {
    for (std::int64_t row = 0; row < rows; ++row) {
      const avx512::Vector row_scale = avx512::broadcast(row_scales[row * row_step]);
      for (std::int64_t i = 0; i < panels * kPanelColumns; i += kPanelColumns) {
        float* sums = c + row * c_step + i;
        const __m512i exact = _mm512_castps_si512(avx512::load(sums));
        avx512::store(sums,
                      _mm512_cvtepi32_ps(exact) * (row_scale * avx512::load(column_scales + i)));
      }
    }
  }

  // All rows of a block of k: pairs of row tiles, the prefetches spread over them.
  template <bool INT8>
  void multiply_rows(TileBlock block, std::int64_t step_words, const Word* a, std::int64_t rows,
                     float* c, std::int64_t column_tiles) {
    const RowTiles tiles{rows};
    configure(tiles.height, step_words);
    std::int64_t row_tiles = tiles.count % 2 == 0 ? 2 : 1;  // an odd one first: see RowTiles
    for (std::int64_t tile = 0; tile < tiles.count; tile += row_tiles, row_tiles = 2) {
      for (std::int64_t i = 0; i < row_tiles; ++i) {
        const std::int64_t row = tiles.begin(tile + i);
        block.a[i] = a + row * (block.a_stride / std::int64_t{sizeof(Word)});
        block.c[i] = c + row * (block.c_stride / std::int64_t{sizeof(float)});
      }
      multiply<INT8>(block, row_tiles, column_tiles);
      const std::int64_t lines =
          std::min(block.prefetch_lines, block.steps * row_tiles * column_tiles);
      for (const std::byte*& line : block.prefetch) line += 64 * lines;
      block.prefetch_lines -= lines;
    }
  }

  void configure(std::int64_t rows, std::int64_t words) {
    if (rows == rows_ && words == words_) return;
    rows_ = rows;
    words_ = words;
    _tile_loadconfig(
        &kTileConfigs[static_cast<std::size_t>(rows - 1)][static_cast<std::size_t>(words - 1)]);
  }

  ComputeScope environment_;
  std::int64_t rows_ = 0;
  std::int64_t words_ = 0;
};

struct TileProducts : avx512::pairs::PairProducts {
  using Scope = TileScope;
  static constexpr bool kAmx = true;
};

// int8 by int8, both signed: no sum of a column to take off.
struct Int8Tiles {
  struct Scope : TileScope {
    void multiply_panels(const Word* a, std::int64_t a_step, std::int64_t rows,
                         const PanelWeight& weight, std::int64_t first, std::int64_t last, float* c,
                         std::int64_t c_step) {
      TileScope::multiply_panels<true>(a, a_step, rows, weight, first, last, c, c_step);
    }
  };
  static constexpr std::size_t kOperandBytes = 1;
  static constexpr std::size_t kWeightBytes = 1;
  static constexpr bool kWidened = false;
  static constexpr bool kAmx = true;
  static std::int64_t stride(std::int64_t width) { return quantized_stride(width, kOperandBytes); }

  static void store(std::byte* row, std::int64_t i, avx512::Vector x, std::int64_t count) {
    _mm_mask_storeu_epi8(row + i, avx512::first_lanes(count),
                         _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
  }
  static int element(const std::byte* row, std::int64_t i) {
    return load_unaligned<std::int8_t>(row, static_cast<std::size_t>(i));
  }
};

// Products in int8, sensitive ones in bf16.
struct Int8Products : TileProducts {
  using Int8 = Int8Tiles;
};

#include "terse/ops/vector/tile_attention.inl"

// By tiles where a head fills them, which is a matter of the model, never of the batch.
inline void attention(Context& context, const Batch& batch, const AttentionInputs& inputs,
                      const AttentionRule& rule, const RowSelection* selection, Operand out) {
  const bool whole_tiles = inputs.shape.head_dim % (2 * kTileWords) == 0;
  const auto run = whole_tiles ? &avx512::pairs::Attention<TileProducts, TileAttention>::run
                               : &avx512::pairs::Attention<avx512::pairs::PairProducts>::run;
  run(context, batch, inputs, rule, selection, out);
}

// The table for products in bf16.
inline const Backend& backend() {
  static const Backend bf16 = [] {
    using Ops = avx512::pairs::Ops<TileProducts>;
    Backend table = avx512::pairs::backend();
    table.name = "amx bf16";
    table.isa = Isa::amx;
    table.project_qkv = avx512::pairs::Projection<TileProducts>::run;
    table.attention = attention;
    table.linear_add = Ops::linear_add;
    table.linear_activation = Ops::linear_activation;
    table.linear_gated = Ops::linear_gated;
    return table;
  }();
  return bf16;
}

// The table for products in int8, sensitive ones in bf16.
inline const Backend& int8_backend() {
  static const Backend int8 = [] {
    Backend table = avx512::pairs::Ops<Int8Products>::table("amx int8, bf16", Isa::amx, DType::i8);
    table.attention = attention;
    return table;
  }();
  return int8;
}

}  // namespace terse::amx

TERSE_TARGET_END

#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif
