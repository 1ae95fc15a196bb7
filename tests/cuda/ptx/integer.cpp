// Integer, logic, shift and bit instructions.
// Source: PTX ISA, sections 9.7.1 (integer arithmetic) and 9.7.8 (logic and shift).
#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "decoder.h"

namespace terse::ptx {
namespace {

template <class T>
using Unsigned = std::make_unsigned_t<T>;

// Twice as wide, of the same signedness.
template <class T>
using Wide = std::conditional_t<
    sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, std::int32_t, std::uint32_t>,
    std::conditional_t<sizeof(T) == 4,
                       std::conditional_t<std::is_signed_v<T>, std::int64_t, std::uint64_t>,
                       std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>>>;

// Sums and products wrap, as on the device.
struct Add {
  template <class T>
  static T apply(T a, T b) {
    return static_cast<T>(static_cast<Unsigned<T>>(a) + static_cast<Unsigned<T>>(b));
  }
};
struct Subtract {
  template <class T>
  static T apply(T a, T b) {
    return static_cast<T>(static_cast<Unsigned<T>>(a) - static_cast<Unsigned<T>>(b));
  }
};
template <class T>
Wide<T> full_product(T a, T b) {
  using U = std::conditional_t<sizeof(T) == 8, unsigned __int128, Wide<Unsigned<T>>>;
  return static_cast<Wide<T>>(static_cast<U>(static_cast<Wide<T>>(a)) *
                              static_cast<U>(static_cast<Wide<T>>(b)));
}
struct MultiplyLow {
  template <class T>
  static T apply(T a, T b) {
    return static_cast<T>(full_product(a, b));
  }
};
struct MultiplyHigh {
  template <class T>
  static T apply(T a, T b) {
    return static_cast<T>(full_product(a, b) >> (8 * sizeof(T)));
  }
};
// A division by zero gives all ones and the remainder the dividend: PTX leaves it open, and this is
// what the device's code does. The most negative number divided by -1 wraps.
struct Divide {
  template <class T>
  static T apply(T a, T b) {
    if (b == 0) return static_cast<T>(-1);
    if constexpr (std::is_signed_v<T>) {
      if (b == -1) return Subtract::apply(T{0}, a);
    }
    return static_cast<T>(a / b);
  }
};
struct Remainder {
  template <class T>
  static T apply(T a, T b) {
    if (b == 0) return a;
    if constexpr (std::is_signed_v<T>) {
      if (b == -1) return 0;
    }
    return static_cast<T>(a % b);
  }
};
struct Minimum {
  template <class T>
  static T apply(T a, T b) {
    return std::min(a, b);
  }
};
struct Maximum {
  template <class T>
  static T apply(T a, T b) {
    return std::max(a, b);
  }
};
struct And {
  template <class T>
  static T apply(T a, T b) {
    return static_cast<T>(a & b);
  }
};
struct Or {
  template <class T>
  static T apply(T a, T b) {
    return static_cast<T>(a | b);
  }
};
struct Xor {
  template <class T>
  static T apply(T a, T b) {
    return static_cast<T>(a ^ b);
  }
};
struct Negate {
  template <class T>
  static T apply(T a) {
    return Subtract::apply(T{0}, a);
  }
};
struct Absolute {
  template <class T>
  static T apply(T a) {
    return a < 0 ? Negate::apply(a) : a;
  }
};
struct Not {
  template <class T>
  static T apply(T a) {
    return static_cast<T>(~a);
  }
};

template <class T, class F>
void run_binary(Thread& thread, const Op& op) {
  put<T>(thread, op.d, F::apply(get<T>(thread, op.a), get<T>(thread, op.b)));
}
template <class T, class F>
void run_unary(Thread& thread, const Op& op) {
  put<T>(thread, op.d, F::apply(get<T>(thread, op.a)));
}
// d = F(a, b) + c
template <class T, class F>
void run_multiply_add(Thread& thread, const Op& op) {
  put<T>(thread, op.d,
         Add::apply(F::apply(get<T>(thread, op.a), get<T>(thread, op.b)), get<T>(thread, op.c)));
}
template <class T>
void run_multiply_wide(Thread& thread, const Op& op) {
  put<Wide<T>>(thread, op.d, full_product(get<T>(thread, op.a), get<T>(thread, op.b)));
}
template <class T>
void run_multiply_add_wide(Thread& thread, const Op& op) {
  put<Wide<T>>(thread, op.d,
               Add::apply(full_product(get<T>(thread, op.a), get<T>(thread, op.b)),
                          get<Wide<T>>(thread, op.c)));
}
// The amount is unsigned 32-bit; amounts beyond the width shift everything out.
template <class T>
void run_shift_left(Thread& thread, const Op& op) {
  const auto amount = get<std::uint32_t>(thread, op.b);
  const auto value = get<Unsigned<T>>(thread, op.a);
  put<T>(thread, op.d, static_cast<T>(amount < 8 * sizeof(T) ? value << amount : 0));
}
template <class T>
void run_shift_right(Thread& thread, const Op& op) {
  constexpr std::uint32_t kBits = 8 * sizeof(T);
  const auto amount = get<std::uint32_t>(thread, op.b);
  const auto value = get<T>(thread, op.a);
  if constexpr (std::is_signed_v<T>) {
    put<T>(thread, op.d, static_cast<T>(value >> std::min(amount, kBits - 1)));
  } else {
    put<T>(thread, op.d, static_cast<T>(amount < kBits ? value >> amount : 0));
  }
}

// {b, a} shifted as 64 bits: the high word of a left shift, the low word of a right shift.
template <bool LEFT, bool WRAP>
void run_funnel_shift(Thread& thread, const Op& op) {
  const std::uint32_t count = get<std::uint32_t>(thread, op.c);
  const std::uint32_t amount = WRAP ? count & 31 : std::min(count, 32U);
  const std::uint64_t both =
      (std::uint64_t{get<std::uint32_t>(thread, op.b)} << 32) | get<std::uint32_t>(thread, op.a);
  put(thread, op.d, static_cast<std::uint32_t>(LEFT ? (both << amount) >> 32 : both >> amount));
}

template <class T>
void run_extract_field(Thread& thread, const Op& op) {
  constexpr std::uint32_t kBits = 8 * sizeof(T);
  const auto value = get<T>(thread, op.a);
  const std::uint32_t position = get<std::uint32_t>(thread, op.b) & 0xff;
  const std::uint32_t length = get<std::uint32_t>(thread, op.c) & 0xff;
  const std::uint32_t last = std::min(position + length - 1, kBits - 1);
  const bool fill =
      std::is_signed_v<T> && length != 0 && ((static_cast<Unsigned<T>>(value) >> last) & 1) != 0;
  Unsigned<T> result = 0;
  for (std::uint32_t bit = 0; bit < kBits; ++bit) {
    const std::uint32_t from = position + bit;
    const bool inside = bit < length && from < kBits;
    const bool set = inside ? ((static_cast<Unsigned<T>>(value) >> from) & 1) != 0 : fill;
    if (set) result |= Unsigned<T>{1} << bit;
  }
  put<T>(thread, op.d, static_cast<T>(result));
}

template <class T>
void run_insert_field(Thread& thread, const Op& op) {
  constexpr std::uint32_t kBits = 8 * sizeof(T);
  const auto field = get<T>(thread, op.a);
  auto result = get<T>(thread, op.b);
  const std::uint32_t position = get<std::uint32_t>(thread, op.c) & 0xff;
  const std::uint32_t length = get<std::uint32_t>(thread, thread.program->lists[op.list]) & 0xff;
  for (std::uint32_t bit = 0; bit < length && position + bit < kBits; ++bit) {
    const T mask = T{1} << (position + bit);
    result = ((field >> bit) & 1) != 0 ? result | mask : result & ~mask;
  }
  put<T>(thread, op.d, result);
}

// Each of four selectors picks one of the eight bytes of {b, a}, or copies of its sign bit.
void run_permute(Thread& thread, const Op& op) {
  const std::uint64_t bytes =
      (std::uint64_t{get<std::uint32_t>(thread, op.b)} << 32) | get<std::uint32_t>(thread, op.a);
  const auto selectors = get<std::uint32_t>(thread, op.c);
  std::uint32_t result = 0;
  for (std::uint32_t index = 0; index < 4; ++index) {
    const std::uint32_t selector = (selectors >> (4 * index)) & 15;
    auto byte = static_cast<std::uint32_t>(bytes >> (8 * (selector & 7))) & 0xff;
    if ((selector & 8) != 0) byte = (byte & 0x80) != 0 ? 0xff : 0;
    result |= byte << (8 * index);
  }
  put(thread, op.d, result);
}

void run_logic3(Thread& thread, const Op& op) {
  const auto a = get<std::uint32_t>(thread, op.a);
  const auto b = get<std::uint32_t>(thread, op.b);
  const auto c = get<std::uint32_t>(thread, op.c);
  std::uint32_t result = 0;
  for (std::uint32_t row = 0; row < 8; ++row) {
    if (((op.flags >> row) & 1) == 0) continue;
    result |= ((row & 4) != 0 ? a : ~a) & ((row & 2) != 0 ? b : ~b) & ((row & 1) != 0 ? c : ~c);
  }
  put(thread, op.d, result);
}

template <class T>
void run_count_ones(Thread& thread, const Op& op) {
  put(thread, op.d, static_cast<std::uint32_t>(std::popcount(get<T>(thread, op.a))));
}
template <class T>
void run_leading_zeros(Thread& thread, const Op& op) {
  put(thread, op.d, static_cast<std::uint32_t>(std::countl_zero(get<T>(thread, op.a))));
}
template <class T>
void run_reverse(Thread& thread, const Op& op) {
  const auto value = get<T>(thread, op.a);
  T result = 0;
  for (std::size_t bit = 0; bit < 8 * sizeof(T); ++bit) {
    result = static_cast<T>((result << 1) | ((value >> bit) & 1));
  }
  put(thread, op.d, result);
}
// Place of the most significant bit that is not a copy of the sign, or all ones.
template <class T>
void run_find_bit(Thread& thread, const Op& op) {
  auto value = get<T>(thread, op.a);
  if constexpr (std::is_signed_v<T>) {
    if (value < 0) value = static_cast<T>(~value);
  }
  const auto width = static_cast<int>(std::bit_width(static_cast<Unsigned<T>>(value)));
  put(thread, op.d, static_cast<std::uint32_t>(width - 1));
}
template <class F>
void run_predicate(Thread& thread, const Op& op) {
  thread.slots[op.d] = F::apply(thread.slots[op.a], thread.slots[op.b]) & 1;
}
void run_predicate_not(Thread& thread, const Op& op) {
  thread.slots[op.d] = ~thread.slots[op.a] & 1;
}

// --- decoding ------------------------------------------------------------------------------------

Op operands(Decoder& decoder, std::size_t num_sources) {
  decoder.finish(1 + num_sources);
  Op op;
  op.d = decoder.destination(0);
  op.a = decoder.source(1);
  if (num_sources > 1) op.b = decoder.source(2);
  if (num_sources > 2) op.c = decoder.source(3);
  return op;
}

bool is_integer_type(std::string_view type) {
  return type.size() >= 2 &&
         (type[0] == 'u' || type[0] == 's' || (type[0] == 'b' && type[1] != 'f'));
}

template <class F>
void emit_binary(Decoder& decoder, const std::string& type) {
  Op op = operands(decoder, 2);
  if (!with_integer(type, [&]<class T>() { op.run = run_binary<T, F>; })) decoder.unknown();
  decoder.emit(op);
}
template <class F>
void emit_unary(Decoder& decoder, const std::string& type) {
  Op op = operands(decoder, 1);
  if (!with_integer(type, [&]<class T>() { op.run = run_unary<T, F>; })) decoder.unknown();
  decoder.emit(op);
}

// mul and mad carry .lo, .hi or .wide exactly when they are of integers.
bool decode_multiply(Decoder& decoder) {
  const bool add = decoder.opcode() == "mad";
  if (!add && decoder.opcode() != "mul") return false;
  enum { kLow, kHigh, kWide, kNone } part = kNone;
  if (decoder.take("lo")) part = kLow;
  if (part == kNone && decoder.take("hi")) part = kHigh;
  if (part == kNone && decoder.take("wide")) part = kWide;
  if (part == kNone) return false;
  const std::string type = decoder.take_any();
  Op op = operands(decoder, add ? 3 : 2);
  const bool known = with_integer(type, [&]<class T>() {
    if (part == kLow) op.run = add ? run_multiply_add<T, MultiplyLow> : run_binary<T, MultiplyLow>;
    if (part == kHigh) {
      op.run = add ? run_multiply_add<T, MultiplyHigh> : run_binary<T, MultiplyHigh>;
    }
    if constexpr (sizeof(T) < 8) {
      if (part == kWide) op.run = add ? run_multiply_add_wide<T> : run_multiply_wide<T>;
    }
  });
  if (!known || op.run == nullptr) decoder.unknown();
  decoder.emit(op);
  return true;
}

bool decode_logic(Decoder& decoder) {
  const std::string& opcode = decoder.opcode();
  if (opcode != "and" && opcode != "or" && opcode != "xor" && opcode != "not") return false;
  if (decoder.take("pred")) {
    Op op = operands(decoder, opcode == "not" ? 1 : 2);
    op.run = opcode == "and"   ? run_predicate<And>
             : opcode == "or"  ? run_predicate<Or>
             : opcode == "xor" ? run_predicate<Xor>
                               : run_predicate_not;
    decoder.emit(op);
    return true;
  }
  const std::string type = decoder.take_any();
  if (!type.starts_with('b')) decoder.unknown();
  if (opcode == "and") emit_binary<And>(decoder, type);
  if (opcode == "or") emit_binary<Or>(decoder, type);
  if (opcode == "xor") emit_binary<Xor>(decoder, type);
  if (opcode == "not") emit_unary<Not>(decoder, type);
  return true;
}

bool decode_shift(Decoder& decoder) {
  const std::string& opcode = decoder.opcode();
  if (opcode == "shl" || opcode == "shr") {
    const std::string type = decoder.take_any();
    Op op = operands(decoder, 2);
    const bool known = with_integer(type, [&]<class T>() {
      op.run = opcode == "shl" ? run_shift_left<T> : run_shift_right<T>;
    });
    if (!known) decoder.unknown();
    decoder.emit(op);
    return true;
  }
  if (opcode != "shf") return false;
  const bool left = decoder.take_one_of({"l", "r"}) == 0;
  const bool wrap = decoder.take_one_of({"wrap", "clamp"}) == 0;
  decoder.require("b32");
  Op op = operands(decoder, 3);
  op.run = left ? (wrap ? run_funnel_shift<true, true> : run_funnel_shift<true, false>)
                : (wrap ? run_funnel_shift<false, true> : run_funnel_shift<false, false>);
  decoder.emit(op);
  return true;
}

bool decode_bits(Decoder& decoder) {
  const std::string& opcode = decoder.opcode();
  Op op;
  if (opcode == "bfe") {
    const std::string type = decoder.take_any();
    op = operands(decoder, 3);
    with_integer(type, [&]<class T>() {
      if constexpr (sizeof(T) > 2) op.run = run_extract_field<T>;
    });
  } else if (opcode == "bfi") {
    const std::size_t wide = decoder.take_one_of({"b32", "b64"});
    decoder.finish(5);
    op.d = decoder.destination(0);
    op.a = decoder.source(1);
    op.b = decoder.source(2);
    op.c = decoder.source(3);
    op.list = decoder.list(decoder.operand(4), 1, false);
    op.run = wide == 0 ? run_insert_field<std::uint32_t> : run_insert_field<std::uint64_t>;
  } else if (opcode == "prmt") {
    decoder.require("b32");
    op = operands(decoder, 3);
    op.run = run_permute;
  } else if (opcode == "lop3") {
    decoder.require("b32");
    decoder.finish(5);
    op.d = decoder.destination(0);
    op.a = decoder.source(1);
    op.b = decoder.source(2);
    op.c = decoder.source(3);
    op.flags = static_cast<std::uint32_t>(decoder.immediate(4));
    op.run = run_logic3;
  } else if (opcode == "popc" || opcode == "clz" || opcode == "brev") {
    const bool wide = decoder.take_one_of({"b32", "b64"}) == 1;
    op = operands(decoder, 1);
    if (opcode == "popc")
      op.run = wide ? run_count_ones<std::uint64_t> : run_count_ones<std::uint32_t>;
    if (opcode == "clz") {
      op.run = wide ? run_leading_zeros<std::uint64_t> : run_leading_zeros<std::uint32_t>;
    }
    if (opcode == "brev") op.run = wide ? run_reverse<std::uint64_t> : run_reverse<std::uint32_t>;
  } else if (opcode == "bfind") {
    const std::string type = decoder.take_any();
    op = operands(decoder, 1);
    with_integer(type, [&]<class T>() {
      if constexpr (sizeof(T) > 2) op.run = run_find_bit<T>;
    });
  } else {
    return false;
  }
  if (op.run == nullptr) decoder.unknown();
  decoder.emit(op);
  return true;
}

}  // namespace

bool decode_integer(Decoder& decoder) {
  if (decode_multiply(decoder) || decode_logic(decoder) || decode_shift(decoder) ||
      decode_bits(decoder)) {
    return true;
  }
  const std::string& opcode = decoder.opcode();
  if (opcode == "rem") {
    emit_binary<Remainder>(decoder, decoder.take_any());
    return true;
  }
  // These are of integers or of reals; the type comes last.
  if (!is_integer_type(decoder.type())) return false;
  if (opcode == "add") {
    emit_binary<Add>(decoder, decoder.take_any());
  } else if (opcode == "sub") {
    emit_binary<Subtract>(decoder, decoder.take_any());
  } else if (opcode == "div") {
    emit_binary<Divide>(decoder, decoder.take_any());
  } else if (opcode == "min") {
    emit_binary<Minimum>(decoder, decoder.take_any());
  } else if (opcode == "max") {
    emit_binary<Maximum>(decoder, decoder.take_any());
  } else if (opcode == "neg") {
    emit_unary<Negate>(decoder, decoder.take_any());
  } else if (opcode == "abs") {
    emit_unary<Absolute>(decoder, decoder.take_any());
  } else {
    return false;
  }
  return true;
}

}  // namespace terse::ptx
