// Products of f32 words. Included once per instruction set, see ops/avx512.h.

struct FloatProducts {
  using Element = float;
  using Scope = ComputeScope;
  static constexpr std::size_t kWeightBytes = 4;
  static constexpr bool kWidened = false;
  static constexpr bool kAmx = false;
  static const auto& tiles() { return kTiles; }
};

// bf16 weights, widened to f32 on the way into the product, where no instruction multiplies bf16;
// operands stay f32, so that nothing is rounded but the weights.
struct WidenedProducts {
  using Element = float;
  using Scope = ComputeScope;
  static constexpr std::size_t kWeightBytes = 2;
  static constexpr bool kWidened = true;
  static constexpr bool kAmx = false;
  static const auto& tiles() { return kTiles; }
};
