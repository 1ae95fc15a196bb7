// Floating-point arithmetic in f32 and f64.
//
// .rn, .rz, .rm and .rp results are the correctly rounded ones. Approximate functions (ex2, lg2,
// rsqrt, sin, cos, tanh, and rcp, sqrt, div in their approximate forms) are the host's, the same
// that emulated kernels use; a run that perturbs math moves each by up to 2 ulp, as a device may.
// Source: PTX ISA, section 9.7.3.
#include <cmath>
#include <cstdint>

#include "../emu/emu.h"
#include "rounding.h"

namespace terse::ptx {
namespace {

struct Add {
  template <class T>
  static T apply(T a, T b) {
    return a + b;
  }
};
struct Subtract {
  template <class T>
  static T apply(T a, T b) {
    return a - b;
  }
};
struct Multiply {
  template <class T>
  static T apply(T a, T b) {
    return a * b;
  }
};
struct Divide {
  template <class T>
  static T apply(T a, T b) {
    return a / b;
  }
};
struct Reciprocal {
  template <class T>
  static T apply(T a) {
    return T{1} / a;
  }
};
struct SquareRoot {
  template <class T>
  static T apply(T a) {
    return std::sqrt(a);
  }
};
struct Negate {
  template <class T>
  static T apply(T a) {
    return -a;
  }
};
struct Absolute {
  template <class T>
  static T apply(T a) {
    return std::fabs(a);
  }
};

// Approximate functions.
struct ReciprocalRoot {
  static float apply(float a) { return 1.0F / std::sqrt(a); }
};
struct Exponential2 {
  static float apply(float a) { return std::exp2(a); }
};
struct Logarithm2 {
  static float apply(float a) { return std::log2(a); }
};
struct Sine {
  static float apply(float a) { return std::sin(a); }
};
struct Cosine {
  static float apply(float a) { return std::cos(a); }
};
struct HyperbolicTangent {
  static float apply(float a) { return std::tanh(a); }
};

// Round to nearest and no other modifier: nearly all arithmetic of nearly all kernels.
template <class T, class F>
void run_plain_binary(Thread& thread, const Op& op) {
  ++thread.work.flops;
  put(thread, op.d, F::apply(get<T>(thread, op.a), get<T>(thread, op.b)));
}
template <class T>
void run_plain_fma(Thread& thread, const Op& op) {
  thread.work.flops += 2;
  put(thread, op.d, std::fma(get<T>(thread, op.a), get<T>(thread, op.b), get<T>(thread, op.c)));
}

template <class T, class F>
void run_binary(Thread& thread, const Op& op) {
  ++thread.work.flops;
  const T a = flushed(get<T>(thread, op.a), op.flags);
  const T b = flushed(get<T>(thread, op.b), op.flags);
  const RoundingScope rounding(op.flags);
  put(thread, op.d, saturated(flushed(F::apply(a, b), op.flags), op.flags));
}
template <class T>
void run_fma(Thread& thread, const Op& op) {
  thread.work.flops += 2;
  const T a = flushed(get<T>(thread, op.a), op.flags);
  const T b = flushed(get<T>(thread, op.b), op.flags);
  const T c = flushed(get<T>(thread, op.c), op.flags);
  const RoundingScope rounding(op.flags);
  put(thread, op.d, saturated(flushed(std::fma(a, b, c), op.flags), op.flags));
}
template <class T, class F>
void run_unary(Thread& thread, const Op& op) {
  const T a = flushed(get<T>(thread, op.a), op.flags);
  const RoundingScope rounding(op.flags);
  put(thread, op.d, flushed(F::apply(a), op.flags));
}
template <class F>
void run_approximate(Thread& thread, const Op& op) {
  const float a = flushed(get<float>(thread, op.a), op.flags);
  put(thread, op.d, flushed(emu::approximate(F::apply(a)), op.flags));
}
template <class F>
void run_approximate_binary(Thread& thread, const Op& op) {
  const float a = flushed(get<float>(thread, op.a), op.flags);
  const float b = flushed(get<float>(thread, op.b), op.flags);
  put(thread, op.d, flushed(emu::approximate(F::apply(a, b)), op.flags));
}

// The number if one operand is NaN, unless .NaN; -0 is less than +0.
template <class T, bool MAX>
void run_extreme(Thread& thread, const Op& op) {
  const T a = flushed(get<T>(thread, op.a), op.flags);
  const T b = flushed(get<T>(thread, op.b), op.flags);
  T result = a;
  if (std::isnan(a) || std::isnan(b)) {
    const bool both = std::isnan(a) && std::isnan(b);
    result = both || (op.flags & kNaN) != 0 ? static_cast<T>(NAN) : (std::isnan(a) ? b : a);
  } else if (a == b) {
    result = std::signbit(a) == MAX ? b : a;
  } else {
    result = (a > b) == MAX ? a : b;
  }
  put(thread, op.d, result);
}

// The sign of a on the magnitude of b.
template <class T>
void run_copy_sign(Thread& thread, const Op& op) {
  put(thread, op.d, std::copysign(get<T>(thread, op.b), get<T>(thread, op.a)));
}

template <class T>
void run_test(Thread& thread, const Op& op) {
  const T a = get<T>(thread, op.a);
  bool result = false;
  switch (op.flags) {
    case 0:
      result = std::isfinite(a);
      break;
    case 1:
      result = std::isinf(a);
      break;
    case 2:
      result = !std::isnan(a);
      break;
    case 3:
      result = std::isnan(a);
      break;
    case 4:
      result = std::isnormal(a);
      break;
    default:
      result = std::fpclassify(a) == FP_SUBNORMAL;
  }
  thread.slots[op.d] = result ? 1 : 0;
}

// --- decoding ------------------------------------------------------------------------------------

Op operands(Decoder& decoder, std::size_t num_sources, std::uint32_t flags) {
  decoder.finish(1 + num_sources);
  Op op;
  op.flags = flags;
  op.d = decoder.destination(0);
  op.a = decoder.source(1);
  if (num_sources > 1) op.b = decoder.source(2);
  if (num_sources > 2) op.c = decoder.source(3);
  return op;
}

std::uint32_t take_flag(Decoder& decoder, std::string_view modifier, std::uint32_t flag) {
  return decoder.take(modifier) ? flag : 0;
}

// Whether the type that must come next is f64.
bool take_type(Decoder& decoder) { return decoder.take_one_of({"f32", "f64"}) == 1; }

template <class F>
void emit_binary(Decoder& decoder) {
  std::uint32_t flags = take_rounding(decoder);
  flags |= take_flag(decoder, "ftz", kFlushToZero);
  flags |= take_flag(decoder, "sat", kSaturate);
  const bool wide = take_type(decoder);
  Op op = operands(decoder, 2, flags);
  if (flags == 0) {
    op.run = wide ? run_plain_binary<double, F> : run_plain_binary<float, F>;
  } else {
    op.run = wide ? run_binary<double, F> : run_binary<float, F>;
  }
  decoder.emit(op);
}

template <class F>
void emit_unary(Decoder& decoder, bool rounds) {
  std::uint32_t flags = rounds ? take_rounding(decoder) : 0;
  flags |= take_flag(decoder, "ftz", kFlushToZero);
  const bool wide = take_type(decoder);
  Op op = operands(decoder, 1, flags);
  op.run = wide ? run_unary<double, F> : run_unary<float, F>;
  decoder.emit(op);
}

template <class F>
void emit_approximate(Decoder& decoder) {
  decoder.require("approx");
  const std::uint32_t flags = take_flag(decoder, "ftz", kFlushToZero);
  decoder.require("f32");
  Op op = operands(decoder, 1, flags);
  op.run = run_approximate<F>;
  decoder.emit(op);
}

void emit_fma(Decoder& decoder) {
  std::uint32_t flags = take_rounding(decoder);
  flags |= take_flag(decoder, "ftz", kFlushToZero);
  flags |= take_flag(decoder, "sat", kSaturate);
  const bool wide = take_type(decoder);
  Op op = operands(decoder, 3, flags);
  if (flags == 0) {
    op.run = wide ? run_plain_fma<double> : run_plain_fma<float>;
  } else {
    op.run = wide ? run_fma<double> : run_fma<float>;
  }
  decoder.emit(op);
}

template <bool MAX>
void emit_extreme(Decoder& decoder) {
  std::uint32_t flags = take_flag(decoder, "ftz", kFlushToZero);
  flags |= take_flag(decoder, "NaN", kNaN);
  const bool wide = take_type(decoder);
  Op op = operands(decoder, 2, flags);
  op.run = wide ? run_extreme<double, MAX> : run_extreme<float, MAX>;
  decoder.emit(op);
}

// rcp, sqrt and div: correctly rounded, or approximate ones of f32.
template <class F>
void emit_root(Decoder& decoder) {
  if (decoder.next() == "approx") {
    emit_approximate<F>(decoder);
  } else {
    emit_unary<F>(decoder, true);
  }
}
void emit_division(Decoder& decoder) {
  if (!decoder.take("approx") && !decoder.take("full")) {
    emit_binary<Divide>(decoder);
    return;
  }
  const std::uint32_t flags = take_flag(decoder, "ftz", kFlushToZero);
  decoder.require("f32");
  Op op = operands(decoder, 2, flags);
  op.run = run_approximate_binary<Divide>;
  decoder.emit(op);
}

}  // namespace

bool decode_real(Decoder& decoder) {
  const std::string& opcode = decoder.opcode();
  if (opcode == "testp") {
    const auto kind = static_cast<std::uint32_t>(
        decoder.take_one_of({"finite", "infinite", "number", "notanumber", "normal", "subnormal"}));
    const bool wide = take_type(decoder);
    Op op = operands(decoder, 1, kind);
    op.run = wide ? run_test<double> : run_test<float>;
    decoder.emit(op);
    return true;
  }
  if (decoder.type() != "f32" && decoder.type() != "f64") return false;
  if (opcode == "add") {
    emit_binary<Add>(decoder);
  } else if (opcode == "sub") {
    emit_binary<Subtract>(decoder);
  } else if (opcode == "mul") {
    emit_binary<Multiply>(decoder);
  } else if (opcode == "div") {
    emit_division(decoder);
  } else if (opcode == "rcp") {
    emit_root<Reciprocal>(decoder);
  } else if (opcode == "sqrt") {
    emit_root<SquareRoot>(decoder);
  } else if (opcode == "fma" || opcode == "mad") {
    emit_fma(decoder);
  } else if (opcode == "min") {
    emit_extreme<false>(decoder);
  } else if (opcode == "max") {
    emit_extreme<true>(decoder);
  } else if (opcode == "neg") {
    emit_unary<Negate>(decoder, false);
  } else if (opcode == "abs") {
    emit_unary<Absolute>(decoder, false);
  } else if (opcode == "rsqrt") {
    emit_approximate<ReciprocalRoot>(decoder);
  } else if (opcode == "ex2") {
    emit_approximate<Exponential2>(decoder);
  } else if (opcode == "lg2") {
    emit_approximate<Logarithm2>(decoder);
  } else if (opcode == "sin") {
    emit_approximate<Sine>(decoder);
  } else if (opcode == "cos") {
    emit_approximate<Cosine>(decoder);
  } else if (opcode == "tanh") {
    emit_approximate<HyperbolicTangent>(decoder);
  } else if (opcode == "copysign") {
    const bool wide = take_type(decoder);
    Op op = operands(decoder, 2, 0);
    op.run = wide ? run_copy_sign<double> : run_copy_sign<float>;
    decoder.emit(op);
  } else {
    return false;
  }
  return true;
}

}  // namespace terse::ptx
