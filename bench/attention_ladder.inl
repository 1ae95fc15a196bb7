// The steps of bench_attention_ladder.cpp. Included once per instruction set, inside its namespace
// and target region. One head: queries q, keys k, values v, out (rows, kHeadDim) f32, row-major;
// queries are scaled already. out = softmax(q k^T) v.

struct Head {
  std::int64_t rows;
  const float* q;
  const float* k;
  const float* v;
  float* out;
  float*
      scratch;  // (rows, rows) for the steps that keep all scores, (64, 64) + (64) for the others
};

// 1. The definition: all scores of a row, their greatest, exponentials, a weighted sum of values.
inline void step_naive(const Head& x) {
  for (std::int64_t row = 0; row < x.rows; ++row) {
    float* scores = x.scratch + row * x.rows;
    float most = -std::numeric_limits<float>::infinity();
    for (std::int64_t key = 0; key < x.rows; ++key) {
      float sum = 0;
      for (std::int64_t i = 0; i < kHeadDim; ++i) {
        sum = std::fma(x.q[row * kHeadDim + i], x.k[key * kHeadDim + i], sum);
      }
      scores[key] = sum;
      most = std::max(most, sum);
    }
    float total = 0;
    for (std::int64_t key = 0; key < x.rows; ++key)
      total += scores[key] = std::exp(scores[key] - most);
    for (std::int64_t i = 0; i < kHeadDim; ++i) {
      float sum = 0;
      for (std::int64_t key = 0; key < x.rows; ++key) {
        sum = std::fma(scores[key], x.v[key * kHeadDim + i], sum);
      }
      x.out[row * kHeadDim + i] = sum / total;
    }
  }
}

// The dot product of two rows of a head.
inline float dot(const float* a, const float* b) {
  Vector sums[2] = {zero(), zero()};
  for (std::int64_t i = 0; i < kHeadDim; i += 2 * kLanes) {
    sums[0] = multiply_add(load(a + i), load(b + i), sums[0]);
    sums[1] = multiply_add(load(a + i + kLanes), load(b + i + kLanes), sums[1]);
  }
  return sum(sums[0] + sums[1]);
}

// y += weight * x, a row of a head.
inline void add_scaled(const float* x, float weight, float* y) {
  const Vector factor = broadcast(weight);
  for (std::int64_t i = 0; i < kHeadDim; i += kLanes) {
    store(y + i, multiply_add(factor, load(x + i), load(y + i)));
  }
}

// 2. Vectors along the head, and values added row by row instead of column by column.
inline void step_vectors(const Head& x) {
  for (std::int64_t row = 0; row < x.rows; ++row) {
    float* scores = x.scratch + row * x.rows;
    float most = -std::numeric_limits<float>::infinity();
    for (std::int64_t key = 0; key < x.rows; ++key) {
      scores[key] = dot(x.q + row * kHeadDim, x.k + key * kHeadDim);
      most = std::max(most, scores[key]);
    }
    float* out = x.out + row * kHeadDim;
    std::fill_n(out, kHeadDim, 0.0f);
    float total = 0;
    for (std::int64_t key = 0; key < x.rows; ++key) {
      const float weight = std::exp(scores[key] - most);
      total += weight;
      add_scaled(x.v + key * kHeadDim, weight, out);
    }
    for (std::int64_t i = 0; i < kHeadDim; ++i) out[i] /= total;
  }
}

// exp(scores - most) of a vector at a time; returns their sum.
inline float exponentials(float* scores, std::int64_t count, float most) {
  Vector totals = zero();
  for (std::int64_t key = 0; key < count; key += kLanes) {
    const Vector weights = exp(load(scores + key) - broadcast(most));
    store(scores + key, weights);
    totals = totals + weights;
  }
  return sum(totals);
}

// 3. The exponential by a polynomial on vectors: the call of the C library for every score was the
// larger part of the time.
inline void step_exponential(const Head& x) {
  for (std::int64_t row = 0; row < x.rows; ++row) {
    float* scores = x.scratch + row * x.rows;
    float most = -std::numeric_limits<float>::infinity();
    for (std::int64_t key = 0; key < x.rows; ++key) {
      scores[key] = dot(x.q + row * kHeadDim, x.k + key * kHeadDim);
      most = std::max(most, scores[key]);
    }
    const float total = exponentials(scores, x.rows, most);
    float* out = x.out + row * kHeadDim;
    std::fill_n(out, kHeadDim, 0.0f);
    for (std::int64_t key = 0; key < x.rows; ++key) {
      add_scaled(x.v + key * kHeadDim, scores[key], out);
    }
    for (std::int64_t i = 0; i < kHeadDim; ++i) out[i] /= total;
  }
}

// 4. Blocks of keys with a running greatest score and sum (Dao et al. 2022, arXiv:2205.14135): a
// block of keys and values serves a block of queries while it is in the first-level cache, and no
// more than one block of scores exists. When the greatest score rises, what was summed shrinks.
inline void step_flash(const Head& x) {
  constexpr std::int64_t kBlock = 64;
  float* scores = x.scratch;              // (kBlock)
  float* most = x.scratch + kBlock;       // (kBlock): of a query so far
  float* total = x.scratch + 2 * kBlock;  // (kBlock)
  for (std::int64_t first = 0; first < x.rows; first += kBlock) {
    std::fill_n(most, kBlock, -std::numeric_limits<float>::infinity());
    std::fill_n(total, kBlock, 0.0f);
    std::fill_n(x.out + first * kHeadDim, kBlock * kHeadDim, 0.0f);
    for (std::int64_t begin = 0; begin < x.rows; begin += kBlock) {
      for (std::int64_t query = 0; query < kBlock; ++query) {
        const float* q = x.q + (first + query) * kHeadDim;
        float* out = x.out + (first + query) * kHeadDim;
        float block_most = most[query];
        for (std::int64_t key = 0; key < kBlock; ++key) {
          scores[key] = dot(q, x.k + (begin + key) * kHeadDim);
          block_most = std::max(block_most, scores[key]);
        }
        const float shrink = std::exp(most[query] - block_most);
        most[query] = block_most;
        total[query] = total[query] * shrink + exponentials(scores, kBlock, block_most);
        for (std::int64_t i = 0; i < kHeadDim; ++i) out[i] *= shrink;
        for (std::int64_t key = 0; key < kBlock; ++key) {
          add_scaled(x.v + (begin + key) * kHeadDim, scores[key], out);
        }
      }
    }
    for (std::int64_t query = 0; query < kBlock; ++query) {
      float* out = x.out + (first + query) * kHeadDim;
      for (std::int64_t i = 0; i < kHeadDim; ++i) out[i] /= total[query];
    }
  }
}

inline constexpr Step kSteps[] = {{"1 naive", step_naive},
                                  {"2 vectors", step_vectors},
                                  {"3 vector exponential", step_exponential},
                                  {"4 blocks of keys", step_flash}};
