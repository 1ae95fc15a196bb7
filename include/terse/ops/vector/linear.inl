// Products with prepared weights. Included once per instruction set, see ops/avx512.h.
//
// A worker takes a range of rows through the whole weight in blocks that stay in its second-level
// cache, panels of the weight streaming past; K is never split.

inline constexpr std::int64_t kUnitPanels = 2 * kLanes / kPanelColumns;  // of one tile

// Products, the parameter of the templates below, says how elements are stored and multiplied:
//   Element        type of attention inputs, and of operands but for int8 ones
//   Int8           the products that Linears prepared for int8 take, or void
//   kOperandBytes  of an operand element
//   kWeightBytes   of a weight element in its panel
//   kWidened       widen(from, steps, to) brings panels to the operands' type, piece by piece
//   stride(width)  words from one operand row to the next
//   Scope          what a worker holds while it multiplies: a ComputeScope at least
//   kAmx           Scope multiplies, and finishes rows behind its products, see ops/amx.h; else
//   tiles()        inner loops on words of operands
//   probability(x) 2^x as exact as attention keeps it
// Int8 itself has no Element and says in addition what int8.inl needs.

// Where row `lane` of a panel lies in the checkpoint; data nullptr past the last.
struct SourceRow {
  const std::byte* data = nullptr;
  DType dtype = DType::f32;

  Vector load_at(std::int64_t k, std::int64_t count) const {
    if (data == nullptr) return zero();
    const std::byte* from = data + k * static_cast<std::int64_t>(dtype_size(dtype));
    if (dtype == DType::f32) return load_f32(from, count);
    if (dtype == DType::bf16) return load_bf16(from, count);
    float values[kLanes] = {};
    convert_to(values, from, dtype, static_cast<std::size_t>(count));
    return load(values);
  }
};

inline SourceRow source_row(const PanelWeight& weight, std::int64_t panel, std::int64_t lane) {
  const PanelWeight::Row row = weight.row(panel, lane);
  if (row.part == nullptr) return {};
  const TensorView& view = row.part->weight;
  const auto row_bytes = weight.width() * static_cast<std::int64_t>(dtype_size(view.dtype));
  return {static_cast<const std::byte*>(view.data) + row.row * row_bytes, view.dtype};
}

// Fills one int8 panel from the checkpoint: a column's scale, then squares of kLanes columns by
// kLanes k, transposed, four neighbouring k in a word.
inline void convert_int8_panel(const PanelWeight& weight, std::int64_t panel) {
  Word* to = weight.panel_storage(panel);
  for (std::int64_t lane = 0; lane < kPanelColumns; lane += kLanes) {
    const std::int64_t column = panel * kPanelColumns + lane;
    SourceRow rows[kLanes];
    float inverses[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      rows[i] = source_row(weight, panel, lane + i);
      Vector most = zero();
      each_group(weight.width(), [&](std::int64_t k, std::int64_t count) {
        most = larger_magnitude(most, rows[i].load_at(k, count));
      });
      const Int8Scale by(highest(most));
      weight.scale_storage()[column + i] = by.scale;
      inverses[i] = by.inverse;
    }
    const Vector inverse = load(inverses);
    Vector sums = zero();
    each_group(weight.width(), [&](std::int64_t k, std::int64_t count) {
      Vector values[kLanes];
      for (int i = 0; i < kLanes; ++i) values[i] = rows[i].load_at(k, count);
      transpose(values);
      for (std::int64_t i = 0; i < count; i += 4) {
        Vector four[4];
        for (int j = 0; j < 4; ++j) four[j] = nearest_integer(values[i + j] * inverse);
        // Whole numbers below 2^24: exact.
        sums = sums + ((four[0] + four[1]) + (four[2] + four[3]));
        store_words(to + (k + i) / 4 * kPanelColumns + lane, int8_words(four));
      }
    });
    alignas(64) float exact[kLanes];
    store(exact, sums);
    for (int i = 0; i < kLanes; ++i) {
      // Of a column that is not finite the sum is one of nothing, like its elements.
      const bool finite = std::isfinite(weight.scales()[column + i]);
      weight.sum_storage()[column + i] = finite ? static_cast<std::int32_t>(exact[i]) : 0;
    }
  }
}

// Fills one panel from the checkpoint: squares of kLanes columns by kLanes k, transposed.
template <std::size_t WEIGHT_BYTES>
inline void convert_panel(const PanelWeight& weight, std::int64_t panel) {
  if constexpr (WEIGHT_BYTES == 1) return convert_int8_panel(weight, panel);
  Word* to = weight.panel_storage(panel);
  for (std::int64_t lane = 0; lane < kPanelColumns; lane += kLanes) {
    SourceRow rows[kLanes];
    for (int i = 0; i < kLanes; ++i) rows[i] = source_row(weight, panel, lane + i);
    each_group(weight.width(), [&](std::int64_t k, std::int64_t count) {
      Vector values[kLanes];
      for (int i = 0; i < kLanes; ++i) values[i] = rows[i].load_at(k, count);
      transpose(values);
      if constexpr (WEIGHT_BYTES == 4) {
        for (std::int64_t i = 0; i < count; ++i) {
          store_words(to + (k + i) * kPanelColumns + lane, values[i]);
        }
      } else {
        for (std::int64_t i = 0; i < count; i += 2) {
          store_words(to + (k + i) / 2 * kPanelColumns + lane,
                      pair_words(values[i], values[i + 1]));
        }
      }
    });
  }
}

// Rows of C that are tiles of nearly equal height: `count` of them cover `rows` rows.
struct RowTiles {
  std::int64_t rows;
  std::int64_t count = ceil_div(rows, kTileRows);
  std::int64_t begin(std::int64_t tile) const { return rows * tile / count; }
};

// All rows of one product: `arguments` for row 0 and `vectors` columns of vectors.
template <class Products, bool ADJACENT = false>
inline void multiply_rows(TileArguments arguments, std::int64_t rows, std::int64_t vectors) {
  const auto& tiles = Products::tiles()[static_cast<std::size_t>((vectors - 1) * 2 + ADJACENT)];
  const RowTiles split{rows};
  const Word* a = arguments.a;
  float* c = arguments.c;
  const Word* row_end = arguments.row_end;
  const std::byte* prefetch = arguments.prefetch;
  for (std::int64_t tile = 0; tile < split.count; ++tile) {
    const std::int64_t begin = split.begin(tile);
    arguments.a = a + begin * (ADJACENT ? 1 : arguments.a_step);
    arguments.c = c + begin * arguments.c_step;
    if (row_end != nullptr) arguments.row_end = row_end + begin * arguments.a_step;
    arguments.prefetch = prefetch + tile * arguments.k * arguments.prefetch_step;
    tiles[static_cast<std::size_t>(split.begin(tile + 1) - begin - 1)](arguments);
  }
}

// Scales and sums of the columns from `panel` on, for the products that finish their sums.
template <class Products>
inline void take_column_scales(TileArguments& arguments, const PanelWeight& weight,
                               std::int64_t panel) {
  if constexpr (Products::kWeightBytes == 1) {
    arguments.column_scales = weight.scales() + panel * kPanelColumns;
    arguments.column_sums = weight.sums() + panel * kPanelColumns;
  }
}

// Of k at a time: all of it in most layers, since every piece starts the reading of its rows anew.
inline constexpr std::int64_t kWidenedSteps = 4096;
inline constexpr std::int64_t kWidenedWords = kWidenedSteps * 2 * kLanes;

// The tile of panels [panel, panel + panels), read where they lie. The next panels come from the
// third-level cache or from memory while these are multiplied.
template <class Products>
inline void multiply_in_place(TileArguments arguments, std::int64_t rows, const PanelWeight& weight,
                              std::int64_t panel, std::int64_t vectors) {
  const bool more = panel + 2 * kUnitPanels <= weight.panels();
  const std::int64_t unit_bytes = kUnitPanels * kPanelColumns * std::int64_t{sizeof(Word)};
  arguments.b = weight.panel(panel);
  arguments.b_second = kUnitPanels == 2 ? weight.panel_words() : kLanes;
  arguments.k = weight.panel_words() / kPanelColumns;
  arguments.prefetch =
      reinterpret_cast<const std::byte*>(weight.panel(more ? panel + kUnitPanels : panel));
  arguments.prefetch_step = more ? ceil_div(unit_bytes, RowTiles{rows}.count) : 0;
  take_column_scales<Products>(arguments, weight, panel);
  multiply_rows<Products>(arguments, rows, vectors);
}

// The same of panels that are widened piece by piece.
template <class Products>
inline void multiply_widened(TileArguments arguments, std::int64_t rows, const PanelWeight& weight,
                             std::int64_t panel, std::int64_t panels, Word* widened) {
  const Word* a = arguments.a;
  arguments.b = widened;
  arguments.b_second = kUnitPanels == 2 ? kWidenedSteps * kPanelColumns : kLanes;
  arguments.prefetch = reinterpret_cast<const std::byte*>(widened);
  for (std::int64_t k = 0; k < weight.width(); k += kWidenedSteps) {
    const std::int64_t steps = std::min(kWidenedSteps, weight.width() - k);
    for (std::int64_t i = 0; i < panels; ++i) {
      Products::widen(weight.panel(panel + i) + words_of(k, Products::kWeightBytes) * kPanelColumns,
                      steps, widened + i * kWidenedSteps * kPanelColumns);
    }
    arguments.a = a + words_of(k, Products::kOperandBytes);
    arguments.k = words_of(steps, Products::kOperandBytes);
    arguments.accumulate = k > 0;
    if (k + steps == weight.width()) take_column_scales<Products>(arguments, weight, panel);
    multiply_rows<Products>(arguments, rows, panels * kPanelColumns / kLanes);
  }
}

// C (rows, 16 panels) = A W^T for panels [first, last) of the weight.
template <class Products>
inline void multiply_panels(const Word* a, std::int64_t a_step, std::int64_t rows,
                            const PanelWeight& weight, std::int64_t first, std::int64_t last,
                            float* c, std::int64_t c_step, Word* widened) {
  TileArguments arguments;
  arguments.a = a;
  arguments.a_step = a_step;
  if constexpr (Products::kWeightBytes == 1) {
    arguments.row_end = a + scale_word(weight.width(), Products::kOperandBytes);
  }
  arguments.b_step = kPanelColumns;
  arguments.c_step = c_step;
  for (std::int64_t panel = first; panel < last; panel += kUnitPanels) {
    const std::int64_t panels = std::min(kUnitPanels, last - panel);
    arguments.c = c + (panel - first) * kPanelColumns;
    if constexpr (Products::kWidened) {
      multiply_widened<Products>(arguments, rows, weight, panel, panels, widened);
    } else {
      multiply_in_place<Products>(arguments, rows, weight, panel, panels * kPanelColumns / kLanes);
    }
  }
}

// Which part of a product a caller wants at once, and of which rows.
struct ProductRange {
  std::int64_t first_panel = 0;
  std::int64_t last_panel = 0;
  std::int64_t group_panels = 0;            // handed to `finish` together
  const RowSelection* selection = nullptr;  // rows of the operand; all if null
  std::int64_t kept_floats = 0;             // of a row that `finish` keeps from group to group

  std::int64_t rows(const Operand& in) const {
    return selection == nullptr ? in.rows : static_cast<std::int64_t>(selection->rows.size());
  }
};

// What `finish` gets: rows [row, row + rows) of the range's rows, panels [first_panel, last_panel),
// y (rows, step), bias not yet added; kept (rows, the range's kept_floats).
struct ProductBlock {
  std::int64_t row;
  std::int64_t rows;
  std::int64_t first_panel;
  std::int64_t last_panel;
  float* y;
  std::int64_t step;
  float* kept;
};

// Rows [row, row + count) of a range, Products::stride apart: where they lie, or copied together,
// or quantised from rows of Source.
template <class Products, class Source>
inline const Word* operand_rows(const Operand& in, const ProductRange& range, std::int64_t row,
                                std::int64_t count, Word* copies) {
  const std::int64_t step = Products::stride(in.width);
  const std::int64_t in_step = Source::stride(in.width);
  const Word* data = static_cast<const Word*>(in.data);
  if (std::is_same_v<Products, Source> && range.selection == nullptr) return data + row * in_step;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t index = range.selection == nullptr
                                   ? row + i
                                   : range.selection->rows[static_cast<std::size_t>(row + i)];
    const Word* from = data + index * in_step;
    Word* to = copies + i * step;
    if constexpr (std::is_same_v<Products, Source>) {
      std::memcpy(to, from, static_cast<std::size_t>(step) * sizeof(Word));
    } else {
      quantize_row<Products>(reinterpret_cast<const typename Source::Element*>(from), in.width,
                             reinterpret_cast<std::byte*>(to));
    }
  }
  return copies;
}

inline constexpr std::int64_t kMostBlockRows = 192;

// Rows that a worker takes through the panels of a range at once, in_step words apart: so many that
// what they give and what `finish` keeps of them stays in the second-level cache while the panels
// pass, or 1 MiB of it: twice as many rows gained nothing. Where panels are widened, every block of
// rows does that again, and more rows are worth more than the cache. The operand may be larger than
// it: rows are read in order, and blocks small enough to keep them there lost more, measured in
// f32, to panels that pass more often.
template <class Products>
inline std::int64_t block_rows(const ProductRange& range, [[maybe_unused]] std::int64_t in_step) {
  const std::int64_t cache = std::min<std::int64_t>(second_level_words(), 256 << 10);
  std::int64_t rows = cache / 2 / (range.group_panels * kPanelColumns);
  if (range.kept_floats > 0) {
    const std::int64_t kept = Products::kWidened ? 2 * cache : cache / 4 * 3;
    rows = std::min(rows, kept / range.kept_floats);
  }
  std::int64_t most = kMostBlockRows;
  if constexpr (Products::kAmx) most = Products::Scope::block_rows(in_step);
  return std::clamp<std::int64_t>(rows, kTileRows, most);
}

// finish(block) for all rows and panels of the range, rows shared among the workers. Source: how
// the operand is stored, Products themselves or what they quantise.
template <class Products, class Source, class Finish>
inline void each_product_block(Context& context, const Operand& in, const PanelWeight& weight,
                               const ProductRange& range, const Finish& finish) {
  const std::int64_t in_step = Products::stride(in.width);
  const std::int64_t step = range.group_panels * kPanelColumns;
  const std::int64_t rows_at_once = block_rows<Products>(range, in_step);
  const bool copies_rows = range.selection != nullptr || !std::is_same_v<Products, Source>;
  const std::int64_t copied_words = copies_rows ? rows_at_once * in_step : 0;
  std::int64_t y_floats = rows_at_once * step;
  if constexpr (Products::kAmx) {
    y_floats = Products::Scope::product_floats(rows_at_once, range.group_panels);
  }
  const std::int64_t words =
      y_floats + rows_at_once * range.kept_floats + kWidenedWords + copied_words;
  context.scratch.reserve(context.threads, static_cast<std::size_t>(words) * sizeof(Word));
  const auto run = [&](std::int64_t begin, std::int64_t end, int worker) {
    [[maybe_unused]] typename Products::Scope scope;
    weight.prepare(
        [&](std::int64_t panel) { convert_panel<Products::kWeightBytes>(weight, panel); });
    float* y = context.scratch.of<float>(worker);
    float* kept = y + y_floats;
    auto* widened = reinterpret_cast<Word*>(kept + rows_at_once * range.kept_floats);
    Word* copies = widened + kWidenedWords;
    const std::int64_t blocks = ceil_div(end - begin, rows_at_once);
    for (std::int64_t block = 0; block < blocks; ++block) {
      const std::int64_t row = begin + (end - begin) * block / blocks;
      const std::int64_t rows = begin + (end - begin) * (block + 1) / blocks - row;
      const Word* a = operand_rows<Products, Source>(in, range, row, rows, copies);
      if constexpr (Products::kAmx) {
        scope.multiply_rows(
            a, in_step, rows, weight, range.first_panel, range.last_panel, range.group_panels, y,
            [&](const auto& done) {
              finish(ProductBlock{row + done.row, done.rows, done.first_panel, done.last_panel,
                                  done.y, done.step, kept + done.row * range.kept_floats});
            });
      } else {
        for (std::int64_t first = range.first_panel; first < range.last_panel;
             first += range.group_panels) {
          const std::int64_t last = std::min(range.last_panel, first + range.group_panels);
          multiply_panels<Products>(a, in_step, rows, weight, first, last, y, step, widened);
          finish(ProductBlock{row, rows, first, last, y, step, kept});
        }
      }
    }
  };
  parallel_ranges(context.threads, range.rows(in), run);
}

// The same for a Linear and whatever types it and its operand have.
template <class Products, class Finish>
inline void each_linear_block(Context& context, const Operand& in, const Linear& linear,
                              const ProductRange& range, const Finish& finish) {
  const auto& weight = *static_cast<const PanelWeight*>(linear.handle.get());
  if constexpr (!std::is_void_v<typename Products::Int8>) {
    using Int8 = typename Products::Int8;
    if (linear.compute == DType::i8 && in.dtype == DType::i8) {
      return each_product_block<Int8, Int8>(context, in, weight, range, finish);
    }
    if (linear.compute == DType::i8) {
      return each_product_block<Int8, Products>(context, in, weight, range, finish);
    }
  }
  each_product_block<Products, Products>(context, in, weight, range, finish);
}
