// The op tables for AMX tiles in bf16 and int8: those of AVX-512 with its products done by tiles,
// on the same operands, panels and attention inputs.
//
// A tile is a register of up to 16 rows of 64 bytes; one instruction multiplies a tile of A (16
// rows, 32 k of bf16 or 64 of int8) by a tile of B (as many k, 16 columns) in 16 cycles. Measured
// on Sapphire Rapids (3.4 GHz, one core), and what follows for a kernel:
//   - A load from the first-level cache takes 8 cycles, from the second 20. Four products share two
//     tiles of A and two of B, so two of the four loads may come from the second level.
//   - Two panels of B fit the first level (48 KiB) up to 768 k of bf16. Rows of A that stream past
//     would push them out, were they not loaded by tileloaddt1, which leaves no trace there: with
//     it the products of (192, 768) rose from 38 % to 56 % of the probe.
//   - Storing C costs as much as a dozen products where its lines are not at hand: to memory that
//     is used again at once, 60 % instead of 50 %.
//   - The vector unit is idle meanwhile: what is done to finished sums costs little if it stands
//     between tile products, see RowsBehind.
//   - Lines of the next panels are prefetched one or two at a time between products: a burst of
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

// Rows of a unit in tiles of one height, at most `rows`. The last tile begins where it ends with
// the unit: the rows it shares with the one before are computed twice, to the same bits, in one
// call of multiply_tiles, which reads all of C before it writes any.
struct RowTiles {
  std::int64_t rows;
  std::int64_t height;
  std::int64_t count = ceil_div(rows, height);
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

// Steps of k whose tiles of B are kept in the first-level cache for the next rows; the others are
// loaded past it, like A. All of them would leave no room for what else is read.
inline constexpr std::int64_t kKeptSteps = 16;

// between(): called once for every step of k.
template <bool INT8, int ROWS, int COLUMNS, class Between>
inline void multiply_tiles(TileBlock block, const Between& between) {
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
    const bool kept = step < kKeptSteps;
    // Each load right before the first product that needs it.
    if (kept) {
      _tile_loadd(6, block.b[0], block.b_stride);
    } else {
      _tile_stream_loadd(6, block.b[0], block.b_stride);
    }
    _tile_stream_loadd(4, block.a[0], block.a_stride);
    if constexpr (INT8) _tile_dpbusd(0, 4, 6);
    if constexpr (!INT8) _tile_dpbf16ps(0, 4, 6);
    prefetch();
    if constexpr (COLUMNS == 2) {
      if (kept) {
        _tile_loadd(7, block.b[1], block.b_stride);
      } else {
        _tile_stream_loadd(7, block.b[1], block.b_stride);
      }
      if constexpr (INT8) _tile_dpbusd(1, 4, 7);
      if constexpr (!INT8) _tile_dpbf16ps(1, 4, 7);
      prefetch();
    }
    if constexpr (ROWS == 2) {
      _tile_stream_loadd(5, block.a[1], block.a_stride);
      if constexpr (INT8) _tile_dpbusd(2, 5, 6);
      if constexpr (!INT8) _tile_dpbf16ps(2, 5, 6);
      prefetch();
    }
    if constexpr (ROWS * COLUMNS == 4) {
      if constexpr (INT8) _tile_dpbusd(3, 5, 7);
      if constexpr (!INT8) _tile_dpbf16ps(3, 5, 7);
      prefetch();
    }
    between();
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

template <bool INT8, class Between>
inline void multiply(const TileBlock& block, std::int64_t row_tiles, std::int64_t column_tiles,
                     const Between& between) {
  if (row_tiles == 2) {
    column_tiles == 2 ? multiply_tiles<INT8, 2, 2>(block, between)
                      : multiply_tiles<INT8, 2, 1>(block, between);
  } else {
    column_tiles == 2 ? multiply_tiles<INT8, 1, 2>(block, between)
                      : multiply_tiles<INT8, 1, 1>(block, between);
  }
}

// Rows of two tiles: what one pass over k multiplies.
inline constexpr std::int64_t kUnitRows = 2 * kTileRows;

// Words of k that pass all rows before the next ones do. Whole where two panels fit the first-level
// cache; else C lies in memory between blocks, in the tile's type, so that no bit depends on this.
constexpr std::int64_t k_block_words(std::int64_t words) { return words <= 384 ? words : 256; }

// Up to so many panels are a group of which C is kept twice, one for the products and one for what
// finishes the rows of the group before.
inline constexpr std::int64_t kTwofoldPanels = 16;

// Floats from one row of C to the next: a whole number of cache lines, an odd one in a group of
// more than two panels, so that rows do not fall into one set of the cache.
constexpr std::int64_t c_step(std::int64_t group_panels) {
  const std::int64_t columns = group_panels * kPanelColumns;
  return group_panels <= 2 ? columns : columns + kPanelColumns;
}

// Rows of a product that are complete: of the block's rows [row, row + rows) and panels [first,
// last), C from `y` on, `step` floats a row.
struct FinishedRows {
  std::int64_t row = 0;
  std::int64_t rows = 0;
  std::int64_t first_panel = 0;
  std::int64_t last_panel = 0;
  float* y = nullptr;
  std::int64_t step = 0;
};

// The rows that wait to be finished, a few at a time between the tile products of those after them.
template <class Finish>
class RowsBehind {
 public:
  explicit RowsBehind(const Finish& finish) : finish_(finish) {}

  // All of them are to be finished in `steps` calls of operator().
  void set(const FinishedRows& rows, std::int64_t steps) {
    waiting_ = rows;
    at_once_ = ceil_div(rows.rows, std::max<std::int64_t>(steps, 1));
  }
  void operator()() { take(at_once_); }
  void drain() { take(waiting_.rows); }

 private:
  void take(std::int64_t count) {
    FinishedRows rows = waiting_;
    rows.rows = std::min(count, rows.rows);
    if (rows.rows == 0) return;
    finish_(rows);
    waiting_.row += rows.rows;
    waiting_.rows -= rows.rows;
    waiting_.y += rows.rows * rows.step;
  }

  const Finish& finish_;
  FinishedRows waiting_;
  std::int64_t at_once_ = 0;
};

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

  // Rows of A, a_step words apart, that stay in the second-level cache while all panels pass. The
  // share was measured at 2 MiB.
  static std::int64_t block_rows(std::int64_t a_step) {
    const std::int64_t rows = second_level_words() * 2 / 5 / a_step;
    return std::clamp<std::int64_t>(rows / kUnitRows * kUnitRows, 2 * kUnitRows, 12 * kUnitRows);
  }

  // Floats of C that multiply_rows() works in, for up to `rows` rows.
  static std::int64_t product_floats(std::int64_t rows, std::int64_t group_panels) {
    const std::int64_t times = group_panels <= kTwofoldPanels ? 2 : 1;
    return times * round_up(rows, kUnitRows) * c_step(group_panels);
  }

  // C = A W^T for panels [first, last) of the weight, in groups of group_panels, each in memory of
  // product_floats() from y on: of int8 in i32. finish(FinishedRows) is called for every row and
  // group. Steps in words.
  template <bool INT8 = false, class Finish>
  void multiply_rows(const Word* a, std::int64_t a_step, std::int64_t rows,
                     const PanelWeight& weight, std::int64_t first, std::int64_t last,
                     std::int64_t group_panels, float* y, const Finish& finish) {
    const Product product(a, a_step, rows, weight, c_step(group_panels));
    RowsBehind<Finish> behind(finish);
    std::int64_t groups = 0;
    for (std::int64_t panel = first; panel < last; panel += group_panels, ++groups) {
      const std::int64_t end = std::min(last, panel + group_panels);
      if (group_panels <= 2) {
        multiply_pair<INT8>(product, panel, end, groups, y, behind);
      } else if (group_panels <= kTwofoldPanels) {
        multiply_group<INT8>(product, panel, end,
                             y + groups % 2 * round_up(rows, kUnitRows) * product.c_step, behind);
      } else {
        multiply_group<INT8>(product, panel, end, y, behind);
        behind.drain();
      }
    }
    behind.drain();
  }

  // For products of whole tiles alone.
  void use_whole_tiles() { configure(kTileRows, kTileWords); }

 private:
  // What multiply_rows() was given. Units of rows have nearly one height, and their tiles one, so
  // that one configuration serves nearly all.
  struct Product {
    Product(const Word* a_, std::int64_t a_step_, std::int64_t rows_, const PanelWeight& weight_,
            std::int64_t c_step_)
        : a(a_), a_step(a_step_), rows(rows_), weight(weight_), c_step(c_step_) {}

    const Word* a;
    std::int64_t a_step;
    std::int64_t rows;
    const PanelWeight& weight;
    std::int64_t c_step;
    std::int64_t words = weight.panel_words() / kPanelColumns;
    std::int64_t units = ceil_div(rows, kUnitRows);
    std::int64_t height = ceil_div(rows, units);
    std::int64_t tile_height = ceil_div(height, ceil_div(height, kTileRows));

    std::int64_t begin(std::int64_t unit) const { return unit * height; }
    std::int64_t unit_rows(std::int64_t unit) const { return std::min(height, rows - begin(unit)); }
    // Words of k that are multiplied in one go from k on. A last step of fewer words has a
    // configuration of its own.
    std::int64_t block_words(std::int64_t k) const {
      const std::int64_t left = std::min(k_block_words(words), words - k);
      return left < kTileWords ? left : left / kTileWords * kTileWords;
    }
  };

  // Up to two panels. Each unit of rows is finished behind the next.
  template <bool INT8, class Finish>
  void multiply_pair(const Product& product, std::int64_t first, std::int64_t last,
                     std::int64_t group, float* y, RowsBehind<Finish>& behind) {
    const bool whole = product.block_words(0) == product.words;
    for (std::int64_t k = 0; k < product.words; k += product.block_words(k)) {
      const std::int64_t block_words = product.block_words(k);
      for (std::int64_t unit = 0; unit < product.units; ++unit) {
        // In one of two places in turn if it is complete at once, so that C stays in the
        // first-level cache; else in a place of its own until all of k has passed, and the places
        // of two groups in turn.
        const std::int64_t place =
            whole ? (group * product.units + unit) % 2 : group % 2 * product.units + unit;
        float* c = y + place * kUnitRows * product.c_step;
        multiply_unit<INT8>(product, unit, first, last - first, k, c, [&behind] { behind(); });
        if (k + block_words < product.words) continue;
        behind.drain();
        behind.set({product.begin(unit), product.unit_rows(unit), first, last, c, product.c_step},
                   ceil_div(block_words, kTileWords));
      }
    }
  }

  // More of them: pairs of panels for all rows, which are finished behind the next group.
  template <bool INT8, class Finish>
  void multiply_group(const Product& product, std::int64_t first, std::int64_t last, float* y,
                      RowsBehind<Finish>& behind) {
    for (std::int64_t k = 0; k < product.words; k += product.block_words(k)) {
      for (std::int64_t panel = first; panel < last; panel += 2) {
        for (std::int64_t unit = 0; unit < product.units; ++unit) {
          float* c = y + product.begin(unit) * product.c_step + (panel - first) * kPanelColumns;
          multiply_unit<INT8>(product, unit, panel, std::min<std::int64_t>(2, last - panel), k, c,
                              [&behind] { behind(); });
        }
      }
    }
    behind.drain();
    const std::int64_t steps = ceil_div(product.words, kTileWords) * ceil_div(last - first, 2);
    behind.set({0, product.rows, first, last, y, product.c_step}, steps * product.units);
  }

  // C of a unit's rows and up to two panels, over one block of k.
  template <bool INT8, class Between>
  void multiply_unit(const Product& product, std::int64_t unit, std::int64_t panel,
                     std::int64_t panels, std::int64_t k, float* c, const Between& between) {
    const std::int64_t rows = product.unit_rows(unit);
    const RowTiles tiles{rows, std::min(product.tile_height, rows)};
    const std::int64_t block_words = product.block_words(k);
    const std::int64_t step_words = std::min(block_words, kTileWords);
    configure(tiles.height, step_words);
    TileBlock block;
    block.a_stride = product.a_step * std::int64_t{sizeof(Word)};
    block.b_stride = kPanelColumns * std::int64_t{sizeof(Word)};
    block.c_stride = product.c_step * std::int64_t{sizeof(float)};
    block.steps = block_words / step_words;
    block.accumulate = k > 0;
    for (std::int64_t i = 0; i < 2; ++i) {
      const std::int64_t row = tiles.begin(std::min(i, tiles.count - 1));
      block.a[i] = product.a + (product.begin(unit) + row) * product.a_step + k;
      block.b[i] = product.weight.panel(panel + std::min(i, panels - 1)) + k * kPanelColumns;
      block.c[i] = c + row * product.c_step;
    }
    prefetch_next(block, product, unit, panel, k);
    multiply<INT8>(block, tiles.count, panels, between);
  }

  // What this unit fetches of the panels that are multiplied when these are through.
  static void prefetch_next(TileBlock& block, const Product& product, std::int64_t unit,
                            std::int64_t panel, std::int64_t k) {
    const std::int64_t after = k + product.block_words(k);
    const bool end = after == product.words;
    const std::int64_t next = end ? panel + 2 : panel;
    if (next + 2 > product.weight.panels()) return;
    const std::int64_t from = end ? 0 : after;
    const std::int64_t lines = product.block_words(from);
    const std::int64_t share = ceil_div(lines, product.units);
    const std::int64_t skipped = unit * share;
    block.prefetch_lines = std::clamp<std::int64_t>(lines - skipped, 0, share);
    for (std::int64_t i = 0; i < 2; ++i) {
      block.prefetch[i] = reinterpret_cast<const std::byte*>(product.weight.panel(next + i) +
                                                             (from + skipped) * kPanelColumns);
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

// Unsigned by signed, as avx512::vnni multiplies.
struct Int8Tiles : avx512::Int8Bytes {
  struct Scope : TileScope {
    template <class Finish>
    void multiply_rows(const Word* a, std::int64_t a_step, std::int64_t rows,
                       const PanelWeight& weight, std::int64_t first, std::int64_t last,
                       std::int64_t group_panels, float* y, const Finish& finish) {
      const Word* row_ends = a + scale_word(weight.width(), kOperandBytes);
      TileScope::multiply_rows<true>(a, a_step, rows, weight, first, last, group_panels, y,
                                     [&](const FinishedRows& done) {
                                       scale(done, row_ends + done.row * a_step, a_step, weight);
                                       finish(done);
                                     });
    }

   private:
    // Sums in i32, in place: plus what the row's least number adds, times the scale of the row (its
    // end row_step words after the last) and of the column. As avx512::vnni does, to the bit.
    static void scale(const FinishedRows& done, const Word* row_ends, std::int64_t row_step,
                      const PanelWeight& weight) {
      const std::int64_t first = done.first_panel * kPanelColumns;
      const std::int64_t columns = done.last_panel * kPanelColumns - first;
      for (std::int64_t row = 0; row < done.rows; ++row) {
        const auto end = load_unaligned<Int8RowEnd>(row_ends + row * row_step, 0);
        const avx512::Vector row_scale = avx512::broadcast(end.scale);
        const __m512i least = _mm512_set1_epi32(end.least);
        for (std::int64_t i = 0; i < columns; i += kPanelColumns) {
          float* sums = done.y + row * done.step + i;
          const __m512i column_sums = _mm512_loadu_si512(weight.sums() + first + i);
          const __m512i exact = _mm512_add_epi32(_mm512_castps_si512(avx512::load(sums)),
                                                 _mm512_mullo_epi32(least, column_sums));
          const avx512::Vector scales = row_scale * avx512::load(weight.scales() + first + i);
          avx512::store(sums, _mm512_cvtepi32_ps(exact) * scales);
        }
      }
    }
  };
  static constexpr bool kAmx = true;
};

// Products in int8, sensitive ones in bf16.
struct Int8Products : TileProducts {
  using Int8 = Int8Tiles;
};

#include "terse/ops/vector/tile_attention.inl"

// By tiles where a head fills them, which is a matter of the model, never of the batch.
template <class = void>
void attention(Context& context, const Batch& batch, const AttentionInputs& inputs,
               const AttentionRule& rule, const RowSelection* selection, Operand out) {
  const bool whole_tiles = inputs.shape.head_dim % (2 * kTileWords) == 0;
  const auto run = whole_tiles ? &avx512::pairs::Attention<TileProducts, TileAttention>::run
                               : &avx512::pairs::Attention<avx512::pairs::PairProducts>::run;
  run(context, batch, inputs, rule, selection, out);
}

// Base-sized models, of 256 to 2,048: shares of the probe rise from 22 to 25 % and fall to 21 %.
inline constexpr std::int64_t kEvenTokens = 640;

// The table for products in bf16.
template <class = void>
const Backend& backend() {
  static const Backend bf16 = [] {
    using Ops = avx512::pairs::Ops<TileProducts>;
    Backend table = avx512::pairs::backend();
    table.name = "amx bf16";
    table.isa = Isa::amx;
    table.even_tokens = kEvenTokens;
    table.project_qkv = avx512::pairs::Projection<TileProducts>::run;
    table.attention = attention<>;
    table.linear_add = Ops::linear_add;
    table.linear_activation = Ops::linear_activation;
    table.linear_gated = Ops::linear_gated;
    return table;
  }();
  return bf16;
}

// The table for products in int8, sensitive ones in bf16.
template <class = void>
const Backend& int8_backend() {
  static const Backend int8 = [] {
    Backend table = avx512::pairs::Ops<Int8Products>::table("amx int8, bf16", Isa::amx, DType::i8);
    table.attention = attention<>;
    table.attend_selected = avx512::pairs::backend().attend_selected;
    table.even_tokens = kEvenTokens;
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
