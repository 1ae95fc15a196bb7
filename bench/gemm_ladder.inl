// The steps of bench_gemm_ladder.cpp for one type of word. Included once per instruction set,
// inside its namespace and target region, where Vector, load_words, broadcast_word and
// multiply_words are what the fast table itself uses.
//
//   a  (rows, width) words, `width` apart      one f32, or two neighbouring bf16
//   w  (columns, width) words                  the weight as a checkpoint holds it
//   p  (columns / 16, width, 16) words         the same in panels
//   c  (rows, columns) f32

struct Product {
  std::int64_t rows, columns, width;
  const Word* a;
  const Word* w;
  const Word* p;
  float* c;
};

// 1. The definition: one sum after another, element by element.
inline void step_naive(const Product& x) {
  for (std::int64_t row = 0; row < x.rows; ++row) {
    for (std::int64_t column = 0; column < x.columns; ++column) {
      float sum = 0;
      for (std::int64_t k = 0; k < x.width; ++k) {
        sum = multiply_word(x.a[row * x.width + k], x.w[column * x.width + k], sum);
      }
      x.c[row * x.columns + column] = sum;
    }
  }
}

// 2. A vector of words of one dot product at a time: both operands lie side by side in memory, but
// every product needs two loads, and every sum is one chain that waits for the last addition.
inline void step_dot(const Product& x) {
  for (std::int64_t row = 0; row < x.rows; ++row) {
    for (std::int64_t column = 0; column < x.columns; ++column) {
      Vector sums = zero();
      for (std::int64_t k = 0; k < x.width; k += kLanes) {
        sums = multiply_words(load_words(x.a + row * x.width + k),
                              load_words(x.w + column * x.width + k), sums);
      }
      x.c[row * x.columns + column] = sum(sums);
    }
  }
}

// ROWS x 2 vectors of sums stay in registers while k runs: each loaded vector serves ROWS products,
// each broadcast element two. 3 to 5 differ in ROWS and in the order of tiles.
template <int ROWS>
inline void tile(const Product& x, std::int64_t row, std::int64_t column) {
  constexpr std::int64_t kSecond = kLanes == 16 ? 0 : kLanes;
  const Word* first = x.p + column / 16 * x.width * 16;
  // Two vectors are one panel of 16 columns, or, of 16 lanes, two panels.
  const Word* second = kLanes == 16 ? first + x.width * 16 : first + kSecond;
  Vector sums[static_cast<std::size_t>(ROWS)][2];
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i) sums[i][0] = sums[i][1] = zero();
  for (std::int64_t k = 0; k < x.width; ++k) {
    const Vector left = load_words(first + k * 16);
    const Vector right = load_words(second + k * 16);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) {
      const Vector element = broadcast_word(x.a + (row + i) * x.width + k);
      sums[i][0] = multiply_words(element, left, sums[i][0]);
      sums[i][1] = multiply_words(element, right, sums[i][1]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i) {
    store(x.c + (row + i) * x.columns + column, sums[i][0]);
    store(x.c + (row + i) * x.columns + column + kLanes, sums[i][1]);
  }
}

inline constexpr std::int64_t kTileColumns = 2 * kLanes;

// 3. Panels: a vector holds neighbouring columns, one element of a serves all of them, and no sum
// is added across lanes. One row at a time: two chains of sums, and each panel is read for every
// row.
inline void step_panels(const Product& x) {
  for (std::int64_t row = 0; row < x.rows; ++row) {
    for (std::int64_t column = 0; column < x.columns; column += kTileColumns) {
      tile<1>(x, row, column);
    }
  }
}

// 4. As many rows as there are registers: enough independent chains to hide the latency of an
// addition, and the loads now feed ROWS products each. Panels are read for every tile of rows.
inline void step_registers(const Product& x) {
  for (std::int64_t row = 0; row < x.rows; row += kTileRows) {
    for (std::int64_t column = 0; column < x.columns; column += kTileColumns) {
      tile<kTileRows>(x, row, column);
    }
  }
}

// 5. Blocks of rows that fit the second-level cache: a panel comes in once for a block and stays in
// the first-level cache while all its rows are multiplied.
inline void step_blocks(const Product& x) {
  constexpr std::int64_t kRows = 192;
  for (std::int64_t begin = 0; begin < x.rows; begin += kRows) {
    const std::int64_t end = std::min(x.rows, begin + kRows);
    for (std::int64_t column = 0; column < x.columns; column += kTileColumns) {
      for (std::int64_t row = begin; row < end; row += kTileRows) tile<kTileRows>(x, row, column);
    }
  }
}

inline constexpr Step kSteps[] = {{"1 naive", step_naive},
                                  {"2 vectors along k", step_dot},
                                  {"3 panels", step_panels},
                                  {"4 tiles in registers", step_registers},
                                  {"5 blocks of rows", step_blocks}};
