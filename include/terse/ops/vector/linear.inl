// Products with prepared weights. Included once per instruction set, see ops/avx512.h.
//
// A worker takes a range of rows through the whole weight in blocks that stay in its second-level
// cache, panels of the weight streaming past; K is never split.

inline constexpr std::int64_t kUnitPanels = 2 * kLanes / kPanelColumns;  // of one tile

// Products, the parameter of the templates below, says how elements are stored and multiplied:
//   Element       type of operands and of attention inputs
//   kWeightBytes  of a weight element in its panel
//   kWidened      weights are bf16, multiplied as f32
//   Scope         what a worker holds while it multiplies: a ComputeScope at least
//   kAmx          Scope multiplies, see ops/amx.h; else
//   tiles()       inner loops on words of Element

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

// Fills one panel from the checkpoint: squares of kLanes columns by kLanes k, transposed.
template <std::size_t WEIGHT_BYTES>
inline void convert_panel(const PanelWeight& weight, std::int64_t panel) {
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
  const std::byte* prefetch = arguments.prefetch;
  for (std::int64_t tile = 0; tile < split.count; ++tile) {
    const std::int64_t begin = split.begin(tile);
    arguments.a = a + begin * (ADJACENT ? 1 : arguments.a_step);
    arguments.c = c + begin * arguments.c_step;
    arguments.prefetch = prefetch + tile * arguments.k * arguments.prefetch_step;
    tiles[static_cast<std::size_t>(split.begin(tile + 1) - begin - 1)](arguments);
  }
}

inline constexpr std::int64_t kWidenedSteps = 512;  // of k at a time: 64 KiB
inline constexpr std::int64_t kWidenedFloats = kWidenedSteps * 2 * kLanes;

// bf16 pairs [steps / 2][16][2] -> f32 [steps][16].
inline void widen_panel(const Word* from, std::int64_t steps, float* to) {
  for (std::int64_t k = 0; k < steps; k += 2) {
    for (std::int64_t lane = 0; lane < kPanelColumns; lane += kLanes) {
      const Vector words = load_words(from + k / 2 * kPanelColumns + lane);
      store(to + k * kPanelColumns + lane, first_of_pair(words));
      store(to + (k + 1) * kPanelColumns + lane, second_of_pair(words));
    }
  }
}

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
  multiply_rows<Products>(arguments, rows, vectors);
}

// The same of bf16 panels, widened piece by piece.
template <class Products>
inline void multiply_widened(TileArguments arguments, std::int64_t rows, const PanelWeight& weight,
                             std::int64_t panel, std::int64_t panels, float* widened) {
  const Word* a = arguments.a;
  arguments.b = reinterpret_cast<const Word*>(widened);
  arguments.b_second = kUnitPanels == 2 ? kWidenedSteps * kPanelColumns : kLanes;
  arguments.prefetch = reinterpret_cast<const std::byte*>(widened);
  for (std::int64_t k = 0; k < weight.width(); k += kWidenedSteps) {
    arguments.k = std::min(kWidenedSteps, weight.width() - k);
    for (std::int64_t i = 0; i < panels; ++i) {
      widen_panel(weight.panel(panel + i) + k / 2 * kPanelColumns, arguments.k,
                  widened + i * kWidenedSteps * kPanelColumns);
    }
    arguments.a = a + k;
    arguments.accumulate = k > 0;
    multiply_rows<Products>(arguments, rows, panels * kPanelColumns / kLanes);
  }
}

// C (rows, 16 panels) = A W^T for panels [first, last) of the weight.
template <class Products>
inline void multiply_panels(const Word* a, std::int64_t a_step, std::int64_t rows,
                            const PanelWeight& weight, std::int64_t first, std::int64_t last,
                            float* c, std::int64_t c_step, float* widened) {
  TileArguments arguments;
  arguments.a = a;
  arguments.a_step = a_step;
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

  std::int64_t rows(const Operand& in) const {
    return selection == nullptr ? in.rows : static_cast<std::int64_t>(selection->rows.size());
  }
};

// What `finish` gets: rows [row, row + rows) of the range's rows, panels [first_panel, last_panel),
// y (rows, step), bias not yet added.
struct ProductBlock {
  std::int64_t row;
  std::int64_t rows;
  std::int64_t first_panel;
  std::int64_t last_panel;
  float* y;
  std::int64_t step;
};

// Rows [row, row + count) of a range, `step` words apart: where they lie, or copied together.
inline const Word* operand_rows(const Operand& in, std::int64_t step, const ProductRange& range,
                                std::int64_t row, std::int64_t count, Word* copies) {
  const Word* data = static_cast<const Word*>(in.data);
  if (range.selection == nullptr) return data + row * step;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t from = range.selection->rows[static_cast<std::size_t>(row + i)];
    std::memcpy(copies + i * step, data + from * step,
                static_cast<std::size_t>(step) * sizeof(Word));
  }
  return copies;
}

inline constexpr std::int64_t kBlockRows = 192;          // of operand, at most; measured
inline constexpr std::int64_t kBlockFloats = 128 << 10;  // of the product, about: 512 KiB

// finish(block) for all rows and panels of the range, rows shared among the workers.
template <class Products, class Finish>
inline void each_product_block(Context& context, const Operand& in, const PanelWeight& weight,
                               const ProductRange& range, const Finish& finish) {
  const std::int64_t in_step = operand_stride(in.width, sizeof(typename Products::Element));
  const std::int64_t step = range.group_panels * kPanelColumns;
  const std::int64_t block_rows =
      std::clamp<std::int64_t>(kBlockFloats / step, kTileRows, kBlockRows);
  const std::int64_t copied_rows = range.selection == nullptr ? 0 : block_rows;
  const std::int64_t words = block_rows * step + kWidenedFloats + copied_rows * in_step;
  context.scratch.reserve(context.threads, static_cast<std::size_t>(words) * sizeof(Word));
  const auto run = [&](std::int64_t begin, std::int64_t end, int worker) {
    [[maybe_unused]] typename Products::Scope scope;
    weight.prepare(
        [&](std::int64_t panel) { convert_panel<Products::kWeightBytes>(weight, panel); });
    float* y = context.scratch.of<float>(worker);
    float* widened = y + block_rows * step;
    auto* copies = reinterpret_cast<Word*>(widened + kWidenedFloats);
    const std::int64_t blocks = ceil_div(end - begin, block_rows);
    for (std::int64_t block = 0; block < blocks; ++block) {
      const std::int64_t row = begin + (end - begin) * block / blocks;
      const std::int64_t rows = begin + (end - begin) * (block + 1) / blocks - row;
      const Word* a = operand_rows(in, in_step, range, row, rows, copies);
      for (std::int64_t first = range.first_panel; first < range.last_panel;
           first += range.group_panels) {
        const std::int64_t last = std::min(range.last_panel, first + range.group_panels);
        if constexpr (Products::kAmx) {
          scope.multiply_panels(a, in_step, rows, weight, first, last, y, step);
        } else {
          multiply_panels<Products>(a, in_step, rows, weight, first, last, y, step, widened);
        }
        finish(ProductBlock{row, rows, first, last, y, step});
      }
    }
  };
  parallel_ranges(context.threads, range.rows(in), run);
}
