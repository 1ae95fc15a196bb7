// cvt between integers, f64, f32, f16 and bf16.
// Source: PTX ISA, section 9.7.9.21 (cvt).
#include <cmath>
#include <cstdint>
#include <limits>

#include "rounding.h"
#include "terse/dtype.h"

namespace terse::ptx {
namespace {

// Integer to integer: truncated or extended; .sat clamps to the range of the destination.
template <class From, class To>
void run_integer(Thread& thread, const Op& op) {
  put(thread, op.d, static_cast<To>(get<From>(thread, op.a)));
}
template <class From, class To>
void run_integer_saturated(Thread& thread, const Op& op) {
  const auto value = static_cast<__int128>(get<From>(thread, op.a));
  const auto low = static_cast<__int128>(std::numeric_limits<To>::min());
  const auto high = static_cast<__int128>(std::numeric_limits<To>::max());
  put(thread, op.d, static_cast<To>(value < low ? low : value > high ? high : value));
}

// Real to integer: rounded to an integer, clamped to the range of the destination; NaN gives 0
// (for 64-bit destinations the most negative, as PTX says).
template <class From, class To>
void run_to_integer(Thread& thread, const Op& op) {
  const From value = flushed(get<From>(thread, op.a), op.flags);
  const RoundingScope rounding(op.flags);
  const From rounded = std::rint(value);
  To result = 0;
  if (std::isnan(value)) {
    if (sizeof(To) == 8) result = static_cast<To>(std::uint64_t{1} << 63);
  } else if (rounded <= static_cast<From>(std::numeric_limits<To>::min())) {
    result = std::numeric_limits<To>::min();
  } else if (rounded >= static_cast<From>(std::numeric_limits<To>::max())) {
    result = std::numeric_limits<To>::max();
  } else {
    result = static_cast<To>(rounded);
  }
  put(thread, op.d, result);
}

template <class From, class To>
void run_from_integer(Thread& thread, const Op& op) {
  const From value = get<From>(thread, op.a);
  const RoundingScope rounding(op.flags);
  put(thread, op.d, saturated(static_cast<To>(value), op.flags));
}

template <class From, class To>
void run_real(Thread& thread, const Op& op) {
  const From value = flushed(get<From>(thread, op.a), op.flags);
  const RoundingScope rounding(op.flags);
  put(thread, op.d, saturated(flushed(static_cast<To>(value), op.flags), op.flags));
}
// .rni, .rzi, .rmi, .rpi between equal types: to an integral value.
template <class T>
void run_round(Thread& thread, const Op& op) {
  const T value = flushed(get<T>(thread, op.a), op.flags);
  const RoundingScope rounding(op.flags);
  put(thread, op.d, saturated(std::rint(value), op.flags));
}

template <class Half>
std::uint16_t narrow(float value, std::uint32_t flags) {
  if ((flags & kRelu) != 0 && !(value > 0)) value = 0;
  if constexpr (std::is_same_v<Half, bf16>) {
    if (std::isnan(value)) return 0x7fff;  // the canonical NaN
    return to_bf16(value).bits;
  } else {
    if (std::isnan(value)) return 0x7fff;
    return to_f16(value).bits;
  }
}
template <class Half>
void run_narrow(Thread& thread, const Op& op) {
  put(thread, op.d, narrow<Half>(get<float>(thread, op.a), op.flags));
}
// d = {a, b}: a in the upper half.
template <class Half>
void run_narrow_pair(Thread& thread, const Op& op) {
  const std::uint32_t high = narrow<Half>(get<float>(thread, op.a), op.flags);
  const std::uint32_t low = narrow<Half>(get<float>(thread, op.b), op.flags);
  put(thread, op.d, (high << 16) | low);
}
template <class Half>
void run_widen(Thread& thread, const Op& op) {
  put(thread, op.d, to_f32(Half{get<std::uint16_t>(thread, op.a)}));
}

// --- decoding ------------------------------------------------------------------------------------

// Integer types of every width, 8 bits too.
template <class Action>
bool with_any_integer(std::string_view type, Action&& action) {
  if (type == "u8") return action.template operator()<std::uint8_t>(), true;
  if (type == "s8") return action.template operator()<std::int8_t>(), true;
  return with_integer(type, action);
}
template <class Action>
bool with_real(std::string_view type, Action&& action) {
  if (type == "f32") return action.template operator()<float>(), true;
  if (type == "f64") return action.template operator()<double>(), true;
  return false;
}

struct Rounding {
  std::uint32_t flags = 0;
  bool to_integral = false;  // .rni and its like
  bool given = false;
};

Rounding take_conversion_rounding(Decoder& decoder) {
  if (decoder.take("rni")) return {0, true, true};
  if (decoder.take("rzi")) return {kRoundToZero, true, true};
  if (decoder.take("rmi")) return {kRoundDown, true, true};
  if (decoder.take("rpi")) return {kRoundUp, true, true};
  if (decoder.take("rn")) return {0, false, true};
  const std::uint32_t flags = take_rounding(decoder);
  return {flags, false, flags != 0};
}

bool choose_half(Op& op, std::string_view from, std::string_view to, const Rounding& rounding) {
  if (to == "f32" && !rounding.given) {
    if (from == "bf16") op.run = run_widen<bf16>;
    if (from == "f16") op.run = run_widen<f16>;
  } else if (from == "f32" && rounding.given && rounding.flags == 0 && !rounding.to_integral) {
    if (to == "bf16") op.run = run_narrow<bf16>;
    if (to == "f16") op.run = run_narrow<f16>;
    if (to == "bf16x2") op.run = run_narrow_pair<bf16>;
    if (to == "f16x2") op.run = run_narrow_pair<f16>;
  }
  return op.run != nullptr;
}

void choose_integer(Op& op, std::string_view from, std::string_view to, bool saturate) {
  with_any_integer(from, [&]<class From>() {
    with_any_integer(to, [&]<class To>() {
      op.run = saturate ? run_integer_saturated<From, To> : run_integer<From, To>;
    });
    with_real(to, [&]<class To>() { op.run = run_from_integer<From, To>; });
  });
}

void choose_real(Op& op, std::string_view from, std::string_view to, bool to_integral) {
  with_real(from, [&]<class From>() {
    if (to_integral) {
      with_any_integer(to, [&]<class To>() { op.run = run_to_integer<From, To>; });
      if (from == to) op.run = run_round<From>;
    } else {
      with_real(to, [&]<class To>() { op.run = run_real<From, To>; });
    }
  });
}

}  // namespace

bool decode_convert(Decoder& decoder) {
  if (decoder.opcode() != "cvt") return false;
  const Rounding rounding = take_conversion_rounding(decoder);
  Op op;
  op.flags = rounding.flags;
  if (decoder.take("ftz")) op.flags |= kFlushToZero;
  const bool saturate = decoder.take("sat");
  if (saturate) op.flags |= kSaturate;
  if (decoder.take("relu")) op.flags |= kRelu;
  const std::string to = decoder.take_any();
  const std::string from = decoder.take_any();
  const bool is_pair = to.ends_with("x2");
  decoder.finish(is_pair ? 3 : 2);
  op.d = decoder.destination(0);
  op.a = decoder.source(1);
  if (is_pair) op.b = decoder.source(2);
  if (!choose_half(op, from, to, rounding)) {
    if (from.starts_with('f') || from.starts_with("bf")) {
      choose_real(op, from, to, rounding.to_integral);
    } else {
      choose_integer(op, from, to, saturate);
    }
    if ((op.flags & kRelu) != 0) decoder.unknown();
  } else if (saturate) {
    decoder.unknown();
  }
  if (op.run == nullptr) decoder.unknown();
  decoder.emit(op);
  return true;
}

}  // namespace terse::ptx
