// The products' inner loop: C (rows, columns) = or += A (rows, k) B (k, columns), where C stays in
// registers. Included once per way of multiplying, see ops/avx512.h.
//
// Every element is one chain of multiply-adds in rising k that starts from C, so that its bits
// depend neither on the shape of the tile nor on where k is interrupted. Of int8 sums are i32, in
// the bits of a Vector, until Finish scales them.

// Rows are words apart by `a_step` if they are the rows of a row-major matrix (then k is
// contiguous); if ADJACENT, rows are neighbours and steps of k are a_step apart.
template <int ROWS, int VECTORS, bool ADJACENT>
inline void multiply_tile(const TileArguments& arguments) {
  const Word* a[static_cast<std::size_t>((ROWS + 2) / 3)];
  const std::int64_t row_step = ADJACENT ? 1 : arguments.a_step;
  const std::int64_t k_step = ADJACENT ? arguments.a_step : 1;
  // Three rows per pointer: base, base + step, base + 2 step are one addressing mode each.
  // One after the other: g++ makes scattered stores of products with `row`.
  a[0] = arguments.a;
#pragma GCC unroll 16
  for (int i = 1; 3 * i < ROWS; ++i) a[i] = a[i - 1] + 3 * row_step;
  const Word* b = arguments.b;
  const std::int64_t second = VECTORS == 1 ? 0 : arguments.b_second;
  // A copy: for all the compiler knows, storing a sum might change the arguments. And rows of C one
  // after the other, else it computes all their addresses first and runs out of registers.
  const std::int64_t c_step = arguments.c_step;
  Vector sums[static_cast<std::size_t>(ROWS)][static_cast<std::size_t>(VECTORS)];
  const float* from = arguments.c;
#pragma GCC unroll 16
  for (int row = 0; row < ROWS; ++row) {
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) {
      sums[row][v] = arguments.accumulate ? load(from + v * kLanes) : zero();
    }
    from += c_step;
  }
  const std::byte* prefetch = arguments.prefetch;
  const std::int64_t prefetch_step = arguments.prefetch_step;
  for (std::int64_t k = 0; k < arguments.k; ++k) {
    _mm_prefetch(prefetch, _MM_HINT_T1);
    prefetch += prefetch_step;
    Vector columns[static_cast<std::size_t>(VECTORS)];
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) columns[v] = load_words(b + v * second);
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; ++row) {
      const Vector element = broadcast_word(a[row / 3] + row % 3 * row_step);
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) {
        sums[row][v] = multiply_words(element, columns[v], sums[row][v]);
      }
    }
    for (int row = 0; row < ROWS; row += 3) a[row / 3] += k_step;
    b += arguments.b_step;
  }
  const Finish<VECTORS> finish(arguments);
  float* to = arguments.c;
#pragma GCC unroll 16
  for (int row = 0; row < ROWS; ++row) {
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) store(to + v * kLanes, finish(row, v, sums[row][v]));
    to += c_step;
  }
}

template <int VECTORS, bool ADJACENT, int... ROWS>
constexpr std::array<TileFunction, sizeof...(ROWS)> tile_functions(
    std::integer_sequence<int, ROWS...>) {
  return {&multiply_tile<ROWS + 1, VECTORS, ADJACENT>...};
}

// [vectors - 1][adjacent][rows - 1]
inline constexpr std::array<std::array<TileFunction, kTileRows>, 4> kTiles = {
    tile_functions<1, false>(std::make_integer_sequence<int, kTileRows>()),
    tile_functions<1, true>(std::make_integer_sequence<int, kTileRows>()),
    tile_functions<2, false>(std::make_integer_sequence<int, kTileRows>()),
    tile_functions<2, true>(std::make_integer_sequence<int, kTileRows>()),
};
