// setp and selp.
// Source: PTX ISA, section 9.7.6 (comparison and selection).
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "rounding.h"

namespace terse::ptx {
namespace {

enum class Comparison : std::uint8_t { eq, ne, lt, le, gt, ge };

// Of reals, an ordered comparison with NaN is false and an unordered one true.
template <class T, Comparison C, bool UNORDERED>
void run_compare(Thread& thread, const Op& op) {
  T a = get<T>(thread, op.a);
  T b = get<T>(thread, op.b);
  bool result = false;
  if constexpr (std::is_floating_point_v<T>) {
    a = flushed(a, op.flags);
    b = flushed(b, op.flags);
    if (std::isnan(a) || std::isnan(b)) {
      thread.slots[op.d] = UNORDERED ? 1 : 0;
      return;
    }
  }
  if constexpr (C == Comparison::eq) result = a == b;
  if constexpr (C == Comparison::ne) result = a != b;
  if constexpr (C == Comparison::lt) result = a < b;
  if constexpr (C == Comparison::le) result = a <= b;
  if constexpr (C == Comparison::gt) result = a > b;
  if constexpr (C == Comparison::ge) result = a >= b;
  thread.slots[op.d] = result ? 1 : 0;
}
// num: neither is NaN; nan: one is.
template <class T, bool NAN_WANTED>
void run_ordered(Thread& thread, const Op& op) {
  const bool is_nan = std::isnan(get<T>(thread, op.a)) || std::isnan(get<T>(thread, op.b));
  thread.slots[op.d] = is_nan == NAN_WANTED ? 1 : 0;
}

// d = (a, negated if flags has bit 2) and / or / xor c.
enum CombineFlags : std::uint32_t { kAnd = 0, kOr = 1, kXor = 2, kNegated = 4 };
void run_combine(Thread& thread, const Op& op) {
  const bool a = get_predicate(thread, op.a) != ((op.flags & kNegated) != 0);
  const bool c = get_predicate(thread, op.c);
  const std::uint32_t kind = op.flags & 3;
  thread.slots[op.d] = kind == kAnd ? a && c : kind == kOr ? a || c : a != c;
}

void run_copy_predicate(Thread& thread, const Op& op) { thread.slots[op.d] = thread.slots[op.a]; }

template <class T>
void run_select(Thread& thread, const Op& op) {
  put(thread, op.d, get<T>(thread, get_predicate(thread, op.c) ? op.a : op.b));
}

// --- decoding ------------------------------------------------------------------------------------

template <class T, bool UNORDERED>
auto comparison_of(Comparison comparison) -> void (*)(Thread&, const Op&) {
  switch (comparison) {
    case Comparison::eq:
      return run_compare<T, Comparison::eq, UNORDERED>;
    case Comparison::ne:
      return run_compare<T, Comparison::ne, UNORDERED>;
    case Comparison::lt:
      return run_compare<T, Comparison::lt, UNORDERED>;
    case Comparison::le:
      return run_compare<T, Comparison::le, UNORDERED>;
    case Comparison::gt:
      return run_compare<T, Comparison::gt, UNORDERED>;
    default:
      return run_compare<T, Comparison::ge, UNORDERED>;
  }
}

struct Test {
  Comparison comparison = Comparison::eq;
  bool unordered = false;
  bool is_nan_test = false;
  bool nan_wanted = false;
};

Test take_test(Decoder& decoder) {
  static constexpr Comparison kPlain[] = {Comparison::eq, Comparison::ne, Comparison::lt,
                                          Comparison::le, Comparison::gt, Comparison::ge};
  const std::size_t place =
      decoder.take_one_of({"eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu",
                           "geu", "lo", "ls", "hi", "hs", "num", "nan"});
  if (place < 6) return {kPlain[place], false, false, false};
  if (place < 12) return {kPlain[place - 6], true, false, false};
  if (place < 16) return {kPlain[place - 12 + 2], false, false, false};
  return {Comparison::eq, false, true, place == 17};
}

// Integers have no unordered comparisons, reals no lo, ls, hi, hs; nvcc writes neither.
auto choose_compare(const Test& test, std::string_view type) -> void (*)(Thread&, const Op&) {
  void (*run)(Thread&, const Op&) = nullptr;
  const auto real = [&]<class T>() {
    if (test.is_nan_test) {
      run = test.nan_wanted ? run_ordered<T, true> : run_ordered<T, false>;
    } else {
      run = test.unordered ? comparison_of<T, true>(test.comparison)
                           : comparison_of<T, false>(test.comparison);
    }
  };
  if (type == "f32") {
    real.template operator()<float>();
  } else if (type == "f64") {
    real.template operator()<double>();
  } else if (!test.unordered && !test.is_nan_test) {
    with_integer(type, [&]<class T>() { run = comparison_of<T, false>(test.comparison); });
  }
  return run;
}

void decode_set_predicate(Decoder& decoder) {
  const Test test = take_test(decoder);
  std::uint32_t combine = kAnd;
  bool combines = true;
  if (decoder.take("or")) {
    combine = kOr;
  } else if (decoder.take("xor")) {
    combine = kXor;
  } else {
    combines = decoder.take("and");
  }
  Op op;
  if (decoder.take("ftz")) op.flags |= kFlushToZero;
  const std::string type = decoder.take_any();
  decoder.finish(combines ? 4 : 3);
  op.run = choose_compare(test, type);
  if (op.run == nullptr) decoder.unknown();
  op.a = decoder.source(1);
  op.b = decoder.source(2);
  const Operand& target = decoder.operand(0);
  const bool is_pair = target.kind == Operand::Kind::pair;
  if (!combines && !is_pair) {
    op.d = decoder.destination(target);
    decoder.emit(op);
    return;
  }
  // p|q: q combines the opposite of the comparison. Both are computed before either is written, as
  // the third source may be one of them.
  const std::uint32_t with = combines ? decoder.source(3) : kTrueSlot;
  op.d = decoder.temporary();
  decoder.emit(op);
  const auto emit_combined = [&](std::uint32_t flags, std::uint32_t destination) {
    Op combined;
    combined.run = run_combine;
    combined.a = op.d;
    combined.c = with;
    combined.flags = flags;
    combined.d = destination;
    decoder.emit(combined);
  };
  if (!is_pair) {
    emit_combined(combine, decoder.destination(target));
    return;
  }
  const std::uint32_t opposite = decoder.temporary();
  emit_combined(combine | kNegated, opposite);
  emit_combined(combine, decoder.destination(target.parts[0]));
  Op copy;
  copy.run = run_copy_predicate;
  copy.a = opposite;
  copy.d = decoder.destination(target.parts[1]);
  decoder.emit(copy);
}

void decode_select(Decoder& decoder) {
  const std::string type = decoder.take_any();
  decoder.finish(4);
  Op op;
  const std::size_t bytes = type_bytes(type, decoder.line());
  if (type == "pred" || bytes == 1) decoder.unknown();
  op.run = bytes == 2   ? run_select<std::uint16_t>
           : bytes == 4 ? run_select<std::uint32_t>
                        : run_select<std::uint64_t>;
  op.d = decoder.destination(0);
  op.a = decoder.source(1);
  op.b = decoder.source(2);
  op.c = decoder.source(3);
  decoder.emit(op);
}

}  // namespace

bool decode_compare(Decoder& decoder) {
  if (decoder.opcode() == "setp") {
    decode_set_predicate(decoder);
  } else if (decoder.opcode() == "selp") {
    decode_select(decoder);
  } else {
    return false;
  }
  return true;
}

}  // namespace terse::ptx
