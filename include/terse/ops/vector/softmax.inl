// The softmax of attention, of scores that come block by block: a running maximum and sum, lanes
// being queries (Milakov and Gimelshein 2018, arXiv:1805.02867). Included once per instruction set,
// see ops/avx512.h.

inline constexpr std::int64_t kTileQueries = 2 * kLanes;
inline constexpr std::int64_t kKeyBlock = 128;  // even: pairs of bf16 never cross blocks
inline constexpr float kLowest = -1e30f;        // stands for the maximum of nothing, finite

template <class Products>
class RunningSoftmax {
 public:
  RunningSoftmax() : maximum_(broadcast(kLowest * kLog2E)), sum_(zero()) {}

  // Turns scores (count, kTileQueries), of which this reads one vector a row, into powers of two
  // that keep(key, even, odd) gets for two keys at a time; behind an odd last key stand zeros, for
  // which a block has room. Returns what all that was summed before is to be multiplied by.
  template <class Keep>
  Vector add(const float* scores, std::int64_t count, const Keep& keep) {
    const Vector raised = maximum(block_maximum(scores, count) * broadcast(kLog2E), maximum_);
    const Vector factor = exp2(maximum_ - raised);
    maximum_ = raised;
    sum_ = multiply_add(sum_, factor, exponentiate(scores, count, keep));
    return factor;
  }

  // 1 / sum; zero where nothing was seen.
  Vector inverse() const {
    return select_less(zero(), sum_, broadcast(1.0f) / sum_, sum_);  // a zero or a NaN
  }

 private:
  static Vector block_maximum(const float* scores, std::int64_t count) {
    Vector most[2] = {broadcast(kLowest), broadcast(kLowest)};
    for (std::int64_t key = 0; key < count; ++key) {
      most[key % 2] = maximum(load(scores + key * kTileQueries), most[key % 2]);
    }
    return maximum(most[0], most[1]);
  }

  template <class Keep>
  Vector exponentiate(const float* scores, std::int64_t count, const Keep& keep) const {
    const Vector minus = zero() - maximum_;
    const auto power = [&](std::int64_t key) {
      return Products::probability(
          multiply_add(load(scores + key * kTileQueries), broadcast(kLog2E), minus));
    };
    Vector sums[2] = {zero(), zero()};
    std::int64_t key = 0;
    for (; key + 2 <= count; key += 2) {
      const Vector even = power(key);
      const Vector odd = power(key + 1);
      sums[0] = sums[0] + even;
      sums[1] = sums[1] + odd;
      keep(key, even, odd);
    }
    if (key < count) {
      const Vector even = power(key);
      sums[0] = sums[0] + even;
      keep(key, even, zero());
    }
    return sums[0] + sums[1];
  }

  Vector maximum_;  // of exponents, which are kept times log2(e)
  Vector sum_;
};
