// Products with prepared weights. Included once per instruction set, see ops/avx512.h.
//
// A worker takes a range of rows through the whole weight in blocks that stay in its second-level
// cache, panels of the weight streaming past; K is never split.

inline constexpr std::int64_t kUnitPanels = 2 * kLanes / kPanelColumns;  // of one tile

// Products, the parameter of the templates below, says how elements are stored and multiplied:
//   Element       type of operands and of attention inputs
//   kWeightBytes  of a weight element in its panel
//   kWidened      weights are bf16, multiplied as f32
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

// C (rows, 16 panels) = A W^T for panels [first, last) of the weight.
template <class Products>
inline void multiply_panels(const Word* a, std::int64_t a_step, std::int64_t rows,
                            const PanelWeight& weight, std::int64_t first, std::int64_t last,
                            float* c, std::int64_t c_step, float* widened) {
  TileArguments arguments;
  arguments.a_step = a_step;
  arguments.b_step = kPanelColumns;
  arguments.c_step = c_step;
  for (std::int64_t panel = first; panel < last; panel += kUnitPanels) {
    const std::int64_t panels = std::min(kUnitPanels, last - panel);
    const std::int64_t vectors = panels * kPanelColumns / kLanes;
    arguments.a = a;
    arguments.c = c + (panel - first) * kPanelColumns;
    if constexpr (!Products::kWidened) {
      arguments.b = weight.panel(panel);
      arguments.b_second = kUnitPanels == 2 ? weight.panel_words() : kLanes;
      arguments.k = weight.panel_words() / kPanelColumns;
      // The next panels come from memory or the third-level cache while these are multiplied.
      const bool more = panel + 2 * kUnitPanels <= weight.panels();
      arguments.prefetch =
          reinterpret_cast<const std::byte*>(weight.panel(more ? panel + kUnitPanels : panel));
      arguments.prefetch_step =
          more ? ceil_div(kUnitPanels * kPanelColumns * static_cast<std::int64_t>(sizeof(Word)),
                          RowTiles{rows}.count)
               : 0;
      multiply_rows<Products>(arguments, rows, vectors);
    } else {
      for (std::int64_t k = 0; k < weight.width(); k += kWidenedSteps) {
        const std::int64_t steps = std::min(kWidenedSteps, weight.width() - k);
        for (std::int64_t i = 0; i < panels; ++i) {
          widen_panel(weight.panel(panel + i) + k / 2 * kPanelColumns, steps,
                      widened + i * kWidenedSteps * kPanelColumns);
        }
        arguments.a = a + k;
        arguments.b = reinterpret_cast<const Word*>(widened);
        arguments.b_second = kUnitPanels == 2 ? kWidenedSteps * kPanelColumns : kLanes;
        arguments.k = steps;
        arguments.accumulate = k > 0;
        arguments.prefetch = reinterpret_cast<const std::byte*>(widened);
        multiply_rows<Products>(arguments, rows, vectors);
      }
    }
  }
}

// Which part of a product a caller wants at once, and of which rows.
struct ProductRange {
  std::int64_t first_panel = 0;
  std::int64_t last_panel = 0;
  std::int64_t group_panels = 0;            // handed to `finish` together
  const RowSelection* selection = nullptr;  // rows of the operand; all if null
};

// What `finish` gets: rows [row, row + rows) of the product (numbered as the range's rows) in
// columns from 16 first_panel on; y (rows, step), bias not yet added.
struct ProductBlock {
  std::int64_t row;
  std::int64_t rows;
  std::int64_t first_panel;
  std::int64_t last_panel;
  float* y;
  std::int64_t step;
};

inline constexpr std::int64_t kBlockRows = 192;         // of operand, at most; measured
inline constexpr std::int64_t kBlockBytes = 512 << 10;  // of the product, about

// finish(block) for all rows and panels of the range, rows shared among the workers.
template <class Products, class Finish>
inline void each_product_block(Context& context, const Operand& in, const PanelWeight& weight,
                               const ProductRange& range, const Finish& finish) {
  using Element = typename Products::Element;
  const std::int64_t in_step = operand_stride(in.width, sizeof(Element));
  const std::int64_t rows = range.selection == nullptr
                                ? in.rows
                                : static_cast<std::int64_t>(range.selection->rows.size());
  const std::int64_t step = range.group_panels * kPanelColumns;
  const std::int64_t block_rows = std::clamp<std::int64_t>(
      kBlockBytes / static_cast<std::int64_t>(sizeof(float)) / step, kTileRows, kBlockRows);
  const std::int64_t gathered = range.selection == nullptr ? 0 : block_rows * in_step;
  context.scratch.reserve(
      context.threads,
      static_cast<std::size_t>(block_rows * step + gathered + kWidenedFloats) * sizeof(float));
  parallel_ranges(context.threads, rows, [&](std::int64_t begin, std::int64_t end, int worker) {
    const FloatMode mode;
    weight.prepare(
        [&](std::int64_t panel) { convert_panel<Products::kWeightBytes>(weight, panel); });
    float* y = context.scratch.of<float>(worker);
    float* widened = y + block_rows * step;
    auto* copies = reinterpret_cast<Word*>(widened + kWidenedFloats);
    const std::int64_t blocks = ceil_div(end - begin, block_rows);
    for (std::int64_t block = 0; block < blocks; ++block) {
      const std::int64_t row = begin + (end - begin) * block / blocks;
      const std::int64_t count = begin + (end - begin) * (block + 1) / blocks - row;
      const Word* a = static_cast<const Word*>(in.data) + row * in_step;
      if (range.selection != nullptr) {
        for (std::int64_t i = 0; i < count; ++i) {
          const std::int64_t from = range.selection->rows[static_cast<std::size_t>(row + i)];
          std::memcpy(copies + i * in_step, static_cast<const Word*>(in.data) + from * in_step,
                      static_cast<std::size_t>(in_step) * sizeof(Word));
        }
        a = copies;
      }
      for (std::int64_t first = range.first_panel; first < range.last_panel;
           first += range.group_panels) {
        const std::int64_t last = std::min(range.last_panel, first + range.group_panels);
        multiply_panels<Products>(a, in_step, count, weight, first, last, y, step, widened);
        finish(ProductBlock{row, count, first, last, y, step});
      }
    }
  });
}
