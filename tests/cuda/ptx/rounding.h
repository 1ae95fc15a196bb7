// Rounding, flush-to-zero and saturation modifiers of floating-point instructions. The files that
// include this are compiled with -frounding-math and without contraction.
#pragma once

#include <cfenv>
#include <cmath>
#include <cstdint>

#include "decoder.h"

namespace terse::ptx {

enum RealFlags : std::uint32_t {
  kFlushToZero = 1,
  kSaturate = 2,
  kRelu = 4,      // cvt: negative values and NaN become 0
  kNaN = 8,       // min, max: a NaN operand gives NaN
  kRoundUp = 16,  // toward positive infinity; no rounding flag: to nearest even
  kRoundDown = 32,
  kRoundToZero = 64,
};
inline constexpr std::uint32_t kDirected = kRoundUp | kRoundDown | kRoundToZero;

// Sets the processor's rounding for its life, where flags ask for a directed one.
class RoundingScope {
 public:
  explicit RoundingScope(std::uint32_t flags) : directed_((flags & kDirected) != 0) {
    if (!directed_) return;
    std::fesetround((flags & kRoundUp) != 0     ? FE_UPWARD
                    : (flags & kRoundDown) != 0 ? FE_DOWNWARD
                                                : FE_TOWARDZERO);
  }
  ~RoundingScope() {
    if (directed_) std::fesetround(FE_TONEAREST);
  }
  RoundingScope(const RoundingScope&) = delete;
  RoundingScope& operator=(const RoundingScope&) = delete;

 private:
  bool directed_;
};

// A subnormal f32 as a zero of its sign where flags ask for it; f64 has no such modifier.
template <class T>
T flushed(T value, std::uint32_t flags) {
  if ((flags & kFlushToZero) != 0 && std::fpclassify(value) == FP_SUBNORMAL) {
    return std::copysign(T{0}, value);
  }
  return value;
}

// Clamped to [0, 1], NaN to +0, where flags ask for it.
template <class T>
T saturated(T value, std::uint32_t flags) {
  if ((flags & kSaturate) == 0) return value;
  if (!(value > 0)) return 0;
  return value > 1 ? T{1} : value;
}

// Takes .rn, .rz, .rm or .rp if one comes next; none means .rn.
inline std::uint32_t take_rounding(Decoder& decoder) {
  if (decoder.take("rn")) return 0;
  if (decoder.take("rz")) return kRoundToZero;
  if (decoder.take("rm")) return kRoundDown;
  if (decoder.take("rp")) return kRoundUp;
  return 0;
}

}  // namespace terse::ptx
