// Loops over one row: norms, rotation, sums. Included once per instruction set, see ops/avx512.h.

// f(index, count) for consecutive groups of at most kLanes elements of [0, width).
template <class F>
inline void each_group(std::int64_t width, const F& f) {
  std::int64_t index = 0;
  for (; index + kLanes <= width; index += kLanes) f(index, std::int64_t{kLanes});
  if (index < width) f(index, width - index);
}

// Sum of term(index, count) over the groups of [0, width) and over lanes; lanes past count must be
// zero. Four sums hide the latency of an addition; their order is fixed.
template <class F>
inline float sum_groups(std::int64_t width, const F& term) {
  Vector sums[4] = {zero(), zero(), zero(), zero()};
  std::int64_t index = 0;
  for (; index + 4 * kLanes <= width; index += 4 * kLanes) {
    for (int i = 0; i < 4; ++i) sums[i] = sums[i] + term(index + i * kLanes, std::int64_t{kLanes});
  }
  for (; index < width; index += kLanes) {
    sums[0] = sums[0] + term(index, std::min<std::int64_t>(kLanes, width - index));
  }
  return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

inline const float* vector_data(const Handle& handle) {
  return static_cast<const AlignedBuffer*>(handle.get())->as<float>();
}

// emit(index, count, values) for the groups of norm(x); norm null: of x itself. Formulas: see
// reference_math.h. Mean, then variance, so that nothing cancels.
template <class Emit>
inline void normed_groups(const Norm* norm, const float* x, std::int64_t width, const Emit& emit) {
  if (norm == nullptr) {
    each_group(width,
               [&](std::int64_t i, std::int64_t count) { emit(i, count, load(x + i, count)); });
    return;
  }
  const float* weight = vector_data(norm->weight);
  const auto length = static_cast<float>(width);
  if (norm->kind == NormKind::layer) {
    const float* bias = vector_data(norm->bias);
    const Vector mean = broadcast(
        sum_groups(width, [&](std::int64_t i, std::int64_t n) { return load(x + i, n); }) / length);
    const float squares = sum_groups(width, [&](std::int64_t i, std::int64_t n) {
      const Vector centered = load(x + i, n) - first_lanes_of(mean, n);
      return centered * centered;
    });
    const Vector inverse = broadcast(1.0f / std::sqrt(squares / length + norm->eps));
    each_group(width, [&](std::int64_t i, std::int64_t n) {
      const Vector scaled = (load(x + i, n) - mean) * inverse;
      emit(i, n, multiply_add(scaled, load(weight + i, n), load(bias + i, n)));
    });
    return;
  }
  const Vector offset = broadcast(norm->kind == NormKind::rms_plus_one ? 1.0f : 0.0f);
  const float squares = sum_groups(width, [&](std::int64_t i, std::int64_t n) {
    const Vector values = load(x + i, n);
    return values * values;
  });
  const Vector inverse = broadcast(1.0f / std::sqrt(squares / length + norm->eps));
  each_group(width, [&](std::int64_t i, std::int64_t n) {
    emit(i, n, load(x + i, n) * inverse * (offset + load(weight + i, n)));
  });
}

// x = norm(x) in place.
inline void norm_row(const Norm* norm, float* x, std::int64_t width) {
  if (norm == nullptr) return;
  normed_groups(norm, x, width,
                [&](std::int64_t i, std::int64_t n, Vector y) { store(x + i, y, n); });
}

// Writes one row of an operand and the zero that completes its last word.
template <class Element>
inline void end_operand_row(Element* row, std::int64_t width) {
  if constexpr (std::is_same_v<Element, bf16>) {
    if (width % 2 != 0) std::memset(static_cast<void*>(row + width), 0, sizeof(bf16));
  }
}

// out = norm(x) in the operand's type.
template <class Element>
inline void write_operand_row(const Norm* norm, const float* x, std::int64_t width, Element* out) {
  normed_groups(norm, x, width,
                [&](std::int64_t i, std::int64_t n, Vector y) { store(out + i, y, n); });
  end_operand_row(out, width);
}

// Half-split rotation of one head in place, see reference_math.h.
inline void rotate(float* x, const float* cos, const float* sin, std::int64_t head_dim) {
  const std::int64_t half = head_dim / 2;
  each_group(half, [&](std::int64_t k, std::int64_t n) {
    const Vector first = load(x + k, n);
    const Vector second = load(x + half + k, n);
    const Vector c = load(cos + k, n);
    const Vector s = load(sin + k, n);
    store(x + k, first * c - second * s, n);
    store(x + half + k, multiply_add(second, c, first * s), n);
  });
}

inline void scale_row(float* x, std::int64_t width, float factor) {
  each_group(width, [&](std::int64_t i, std::int64_t n) {
    store(x + i, load(x + i, n) * broadcast(factor), n);
  });
}

inline void add_row(float* x, const float* y, std::int64_t width) {
  each_group(width, [&](std::int64_t i, std::int64_t n) {
    store(x + i, load(x + i, n) + load(y + i, n), n);
  });
}
