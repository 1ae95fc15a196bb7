// Products of f32 words. Included once per instruction set, see ops/avx512.h.

struct FloatProducts {
  using Element = float;
  using Int8 = void;
  using Scope = ComputeScope;
  static constexpr std::size_t kOperandBytes = 4;
  static constexpr std::size_t kWeightBytes = 4;
  static constexpr bool kWidened = false;
  static constexpr bool kAmx = false;
  static std::int64_t stride(std::int64_t width) { return operand_stride(width, kOperandBytes); }
  static const auto& tiles() { return kTiles; }
  static Vector probability(Vector exponent) { return exp2(exponent); }
};

// bf16 pairs [steps / 2][16][2] -> f32 [steps][16].
inline void widen_pairs(const Word* from, std::int64_t steps, float* to) {
  for (std::int64_t k = 0; k < steps; k += 2) {
    for (std::int64_t lane = 0; lane < kPanelColumns; lane += kLanes) {
      const Vector words = load_words(from + k / 2 * kPanelColumns + lane);
      store(to + k * kPanelColumns + lane, first_of_pair(words));
      store(to + (k + 1) * kPanelColumns + lane, second_of_pair(words));
    }
  }
}

// bf16 weights, widened to f32 on the way into the product, where no instruction multiplies bf16;
// operands stay f32, so that nothing is rounded but the weights.
struct WidenedProducts : FloatProducts {
  static constexpr std::size_t kWeightBytes = 2;
  static constexpr bool kWidened = true;
  static void widen(const Word* from, std::int64_t steps, Word* to) {
    widen_pairs(from, steps, reinterpret_cast<float*>(to));
  }
};
