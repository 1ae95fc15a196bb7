// Weights and operands in int8: what panels.h says of them, definition in reference_math.h,
// quantize. Included once per instruction set, see ops/avx512.h.
//
// A way of multiplying int8, the parameter Int8 below, says how operands are stored:
//   kOperandBytes  of an element
//   store(row, i, x, n)  elements i .. i + n of a row: x, rounded to nearest even
//   element(row, i)      the number that was stored

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

// The largest |x| of a row in some lane; a NaN counts as larger than any number.
template <class Element>
inline Vector largest_magnitude(const Element* x, std::int64_t width) {
  Vector most[4] = {zero(), zero(), zero(), zero()};
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= width; i += 4 * kLanes) {
    for (int v = 0; v < 4; ++v) {
      most[v] = larger_magnitude(most[v], load_element(x + i + v * kLanes, kLanes));
    }
  }
  for (; i < width; i += kLanes) {
    const std::int64_t count = std::min<std::int64_t>(kLanes, width - i);
    most[0] = larger_magnitude(most[0], load_element(x + i, count));
  }
  return larger_magnitude(larger_magnitude(most[0], most[1]), larger_magnitude(most[2], most[3]));
}

// Where row `row` of an int8 operand lies.
template <class Int8>
inline std::byte* int8_row(const Operand& x, std::int64_t row) {
  return static_cast<std::byte*>(x.data) + row * Int8::stride(x.width) * std::int64_t{sizeof(Word)};
}

// Quantises a row whose largest magnitude is known.
template <class Int8, class Element>
inline void quantize_row(const Element* x, std::int64_t width, Vector most, std::byte* out) {
  const Int8Scale by(highest(most));
  const Vector inverse = broadcast(by.inverse);
  each_group(width, [&](std::int64_t i, std::int64_t n) {
    Int8::store(out, i, load_element(x + i, n) * inverse, n);
  });
  const auto used = width * static_cast<std::int64_t>(Int8::kOperandBytes);
  const std::int64_t end = scale_word(width, Int8::kOperandBytes) * std::int64_t{sizeof(Word)};
  std::memset(out + used, 0, static_cast<std::size_t>(end - used));
  std::memcpy(out + end, &by.scale, sizeof(by.scale));
}

template <class Int8, class Element>
inline void quantize_row(const Element* x, std::int64_t width, std::byte* out) {
  quantize_row<Int8>(x, width, largest_magnitude(x, width), out);
}

// The numbers that a row of an int8 operand stands for.
template <class Int8>
inline void read_int8_row(const std::byte* row, std::int64_t width, double* out) {
  float scale = 0;
  std::memcpy(&scale, row + scale_word(width, Int8::kOperandBytes) * std::int64_t{sizeof(Word)},
              sizeof(scale));
  for (std::int64_t i = 0; i < width; ++i) {
    out[i] = static_cast<double>(scale) * static_cast<double>(Int8::element(row, i));
  }
}
