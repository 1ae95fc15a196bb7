// Weights and operands in int8: what panels.h says of them, definition in reference_math.h,
// quantize. Included once per instruction set, see ops/avx512.h.
//
// A way of multiplying int8, the parameter Int8 below, says how operands are stored:
//   kOperandBytes  of an element
//   kFromLeast     elements are counted from the row's least, else from zero
//   store(row, i, x, n, least)  elements i .. i + n of a row: x, rounded to nearest even, - least
//   element(row, i)             the number that was stored

// A column of a weight.
struct Int8Scale {
  float scale;    // of a row whose largest magnitude is `most`
  float inverse;  // 1 / scale; zero of a row of zeros

  explicit Int8Scale(float most) {
    constexpr auto kMost = static_cast<float>(reference::kInt8Most);
    const bool zeros = most < reference::kInt8Least;  // false of a NaN, which then is the scale
    scale = zeros ? 0 : most / kMost;
    inverse = zeros ? 0 : kMost / most;
  }
};

// From the least to the largest element of a row, zero among them, lane by lane. A NaN lies beyond
// all numbers on one of the sides.
struct Int8Range {
  Vector least, most;

  static Int8Range of_zeros() { return {broadcast(-0.0f), zero()}; }
  void add(Vector x) {
    least = lower(least, x);
    most = higher(most, x);
  }
  void add(const Int8Range& other) {
    least = lower(least, other.least);
    most = higher(most, other.most);
  }
};

template <class Element>
inline Int8Range range_of(const Element* x, std::int64_t width) {
  Int8Range ranges[4] = {Int8Range::of_zeros(), Int8Range::of_zeros(), Int8Range::of_zeros(),
                         Int8Range::of_zeros()};
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= width; i += 4 * kLanes) {
    for (int v = 0; v < 4; ++v) ranges[v].add(load_element(x + i + v * kLanes, kLanes));
  }
  for (; i < width; i += kLanes) {
    ranges[0].add(load_element(x + i, std::min<std::int64_t>(kLanes, width - i)));
  }
  for (int v = 1; v < 4; ++v) ranges[0].add(ranges[v]);
  return ranges[0];
}

// Where row `row` of an int8 operand lies.
template <class Int8>
inline std::byte* int8_row(const Operand& x, std::int64_t row) {
  return static_cast<std::byte*>(x.data) + row * Int8::stride(x.width) * std::int64_t{sizeof(Word)};
}

template <class Int8, class Element>
inline void quantize_row(const Element* x, std::int64_t width, std::byte* out) {
  constexpr auto kSteps = static_cast<float>(reference::kInt8Steps);
  const Int8Range range = range_of(x, width);
  const float least = lowest(range.least);
  const float scale = highest(range.most) / kSteps - least / kSteps;
  const bool zeros = scale < reference::kInt8Least / kSteps;  // false of a NaN
  const float inverse = zeros ? 0 : 1 / scale;
  const Int8RowEnd row_end(zeros ? 0 : scale,
                           Int8::kFromLeast ? _mm_cvtss_si32(_mm_set_ss(least * inverse)) : 0);
  const Vector factor = broadcast(inverse);
  each_group(width, [&](std::int64_t i, std::int64_t n) {
    Int8::store(out, i, load_element(x + i, n) * factor, n, row_end.least);
  });
  const auto used = width * static_cast<std::int64_t>(Int8::kOperandBytes);
  const std::int64_t end = scale_word(width, Int8::kOperandBytes) * std::int64_t{sizeof(Word)};
  std::memset(out + used, 0, static_cast<std::size_t>(end - used));
  std::memcpy(out + end, &row_end, sizeof(row_end));
}

// The numbers that a row of an int8 operand stands for.
template <class Int8>
inline void read_int8_row(const std::byte* row, std::int64_t width, double* out) {
  Int8RowEnd end;
  std::memcpy(&end, row + scale_word(width, Int8::kOperandBytes) * std::int64_t{sizeof(Word)},
              sizeof(end));
  for (std::int64_t i = 0; i < width; ++i) {
    out[i] = static_cast<double>(end.scale) *
             (static_cast<double>(end.least) + static_cast<double>(Int8::element(row, i)));
  }
}

// What the sums of a tile become with the last steps of k, where they count from zero: the scales
// of row and column.
template <int VECTORS>
struct Int8Finish {
  explicit Int8Finish(const TileArguments& tile)
      : scales(tile.column_scales), row_end(tile.row_end), row_step(tile.a_step) {}
  Vector operator()(int row, int v, Vector sum) const {
    if (scales == nullptr) return sum;
    const float row_scale = load_unaligned<float>(row_end + row * row_step, 0);
    return whole_numbers(sum) * (broadcast(row_scale) * load(scales + v * kLanes));
  }
  const float* scales;
  const Word* row_end;
  std::int64_t row_step;
};
