// The interpreter against C++ semantics: each instruction on edge values and random ones, a thread
// for each tuple of operands.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "../../support.h"
#include "snippet.h"
#include "terse/dtype.h"

using namespace terse::ptx::test;

namespace {

// The letters of a register and of an untyped load of as many bytes as T has.
template <class T>
std::string width() {
  return std::to_string(8 * sizeof(T));
}
template <class T>
std::string register_name(int index) {
  const std::string number = std::to_string(index);
  if (std::is_same_v<T, float>) return "%f" + number;
  if (std::is_same_v<T, double>) return "%fd" + number;
  if (sizeof(T) == 8) return "%rd" + number;
  if (sizeof(T) == 4) return "%r" + number;
  return "%h" + number;
}

template <class T>
std::vector<T> edge_values() {
  std::vector<T> values;
  std::mt19937_64 random(7);
  if constexpr (std::is_floating_point_v<T>) {
    const auto infinity = std::numeric_limits<T>::infinity();
    values = {T{0},
              -T{0},
              T{1},
              T{-1},
              T{0.5},
              T{-1.5},
              T{2.5},
              T{3.5},
              infinity,
              -infinity,
              std::numeric_limits<T>::quiet_NaN(),
              std::numeric_limits<T>::denorm_min(),
              -std::numeric_limits<T>::min() / 2,
              std::numeric_limits<T>::max(),
              T{1} / 3};
    for (int i = 0; i < 12; ++i) {
      values.push_back(static_cast<T>(std::ldexp(static_cast<double>(random() % 100000) - 5e4,
                                                 static_cast<int>(random() % 40) - 30)));
    }
  } else {
    values = {0,
              1,
              2,
              3,
              7,
              31,
              33,
              static_cast<T>(-1),
              static_cast<T>(-2),
              static_cast<T>(-31),
              std::numeric_limits<T>::min(),
              std::numeric_limits<T>::max()};
    for (int i = 0; i < 12; ++i) values.push_back(static_cast<T>(random() >> (random() % 48)));
  }
  return values;
}

bool same(float a, float b) {
  return std::isnan(a) ? std::isnan(b)
                       : std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}
bool same(double a, double b) {
  return std::isnan(a) ? std::isnan(b)
                       : std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b);
}
template <class T>
bool same(T a, T b) {
  return a == b;
}

// Tuples of operands laid one array after another; thread t gets the t-th of each.
template <class Out, class... In>
std::vector<Out> run_tuples(const std::string& instruction, const std::vector<In>&... in) {
  std::vector<std::byte> input;
  std::string body;
  std::string sources;
  int index = 1;
  const auto add = [&]<class T>(const std::vector<T>& values) {
    body += "mul.wide.u32 %rd31, %t, " + std::to_string(sizeof(T)) + ";\n" +
            "add.s64 %rd31, %rd31, %in;\nld.global.b" + width<T>() + " " + register_name<T>(index) +
            ", [%rd31+" + std::to_string(input.size()) + "];\n";
    sources += ", " + register_name<T>(index++);
    const std::vector<std::byte> bytes = bytes_of(values);
    input.insert(input.end(), bytes.begin(), bytes.end());
    input.resize((input.size() + 15) / 16 * 16);
  };
  (add(in), ...);
  const std::string d = register_name<Out>(0);
  body += instruction + " " + d + sources + ";\nmul.wide.u32 %rd31, %t, " +
          std::to_string(sizeof(Out)) + ";\nadd.s64 %rd31, %rd31, %out;\nst.global.b" +
          width<Out>() + " [%rd31], " + d + ";";
  const std::size_t count = std::min({in.size()...});
  return values_of<Out>(
      run_bytes(kernel_text(body), input, count * sizeof(Out), static_cast<unsigned>(count)));
}

template <class Out, class A, class F>
void check_unary(const std::string& instruction, F expected) {
  const std::vector<A> a = edge_values<A>();
  const std::vector<Out> got = run_tuples<Out>(instruction, a);
  for (std::size_t i = 0; i < a.size(); ++i) {
    CAPTURE(instruction);
    CAPTURE(a[i]);
    CAPTURE(got[i]);
    CHECK(same(got[i], static_cast<Out>(expected(a[i]))));
  }
}

template <class Out, class A, class B, class F>
void check_binary(const std::string& instruction, F expected) {
  std::vector<A> a;
  std::vector<B> b;
  for (const A x : edge_values<A>()) {
    for (const B y : edge_values<B>()) {
      a.push_back(x);
      b.push_back(y);
    }
  }
  const std::vector<Out> got = run_tuples<Out>(instruction, a, b);
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (same(got[i], static_cast<Out>(expected(a[i], b[i])))) continue;
    CAPTURE(instruction);
    CAPTURE(a[i]);
    CAPTURE(b[i]);
    CAPTURE(got[i]);
    CHECK(same(got[i], static_cast<Out>(expected(a[i], b[i]))));
  }
  CHECK(!got.empty());
}

template <class Out, class A, class B, class C, class F>
void check_ternary(const std::string& instruction, F expected) {
  const std::vector<A> edges_a = edge_values<A>();
  const std::vector<B> edges_b = edge_values<B>();
  const std::vector<C> edges_c = edge_values<C>();
  std::mt19937 random(11);
  std::vector<A> a;
  std::vector<B> b;
  std::vector<C> c;
  for (int i = 0; i < 1024; ++i) {
    a.push_back(edges_a[random() % edges_a.size()]);
    b.push_back(edges_b[random() % edges_b.size()]);
    c.push_back(edges_c[random() % edges_c.size()]);
  }
  const std::vector<Out> got = run_tuples<Out>(instruction, a, b, c);
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (same(got[i], static_cast<Out>(expected(a[i], b[i], c[i])))) continue;
    CAPTURE(instruction);
    CAPTURE(a[i]);
    CAPTURE(b[i]);
    CAPTURE(c[i]);
    CAPTURE(got[i]);
    CHECK(same(got[i], static_cast<Out>(expected(a[i], b[i], c[i]))));
  }
  CHECK(got.size() == 1024);
}

enum class Round { nearest, zero, down, up };

// The exact value x as a float, rounded as asked.
float rounded(long double x, Round round) {
  const auto nearest = static_cast<float>(x);
  if (std::isnan(nearest) || std::isinf(x)) return nearest;
  const long double back = nearest;
  const bool want_down = round == Round::down || (round == Round::zero && x > 0);
  const bool want_up = round == Round::up || (round == Round::zero && x < 0);
  if (want_down && back > x) return std::nextafter(nearest, -INFINITY);
  if (want_up && back < x) return std::nextafter(nearest, INFINITY);
  return nearest;
}

using u16 = std::uint16_t;
using s16 = std::int16_t;
using u32 = std::uint32_t;
using s32 = std::int32_t;
using u64 = std::uint64_t;
using s64 = std::int64_t;
using s128 = __int128;
using u128 = unsigned __int128;

float ftz(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0F, x) : x; }

}  // namespace

TEST_CASE("integer arithmetic wraps, widens and divides as in C++") {
  check_binary<u32, u32, u32>("add.u32", [](u32 a, u32 b) { return a + b; });
  check_binary<s32, s32, s32>("add.s32", [](s32 a, s32 b) { return s64{a} + b; });
  check_binary<s64, s64, s64>("add.s64", [](s64 a, s64 b) { return u64(a) + u64(b); });
  check_binary<s16, s16, s16>("add.s16", [](s16 a, s16 b) { return a + b; });
  check_binary<s32, s32, s32>("sub.s32", [](s32 a, s32 b) { return s64{a} - b; });
  check_binary<u64, u64, u64>("sub.u64", [](u64 a, u64 b) { return a - b; });
  check_binary<s32, s32, s32>("mul.lo.s32", [](s32 a, s32 b) { return s64{a} * b; });
  check_binary<s32, s32, s32>("mul.hi.s32", [](s32 a, s32 b) { return (s64{a} * b) >> 32; });
  check_binary<u32, u32, u32>("mul.hi.u32", [](u32 a, u32 b) { return (u64{a} * b) >> 32; });
  check_binary<s64, s64, s64>("mul.hi.s64", [](s64 a, s64 b) { return (s128{a} * b) >> 64; });
  check_binary<u64, u64, u64>("mul.hi.u64", [](u64 a, u64 b) { return (u128{a} * b) >> 64; });
  check_binary<s64, s64, s64>("mul.lo.s64", [](s64 a, s64 b) { return u64(a) * u64(b); });
  check_binary<s64, s32, s32>("mul.wide.s32", [](s32 a, s32 b) { return s64{a} * b; });
  check_binary<u64, u32, u32>("mul.wide.u32", [](u32 a, u32 b) { return u64{a} * b; });
  check_binary<s32, s16, s16>("mul.wide.s16", [](s16 a, s16 b) { return s32{a} * b; });
  check_binary<u32, u16, u16>("mul.wide.u16", [](u16 a, u16 b) { return u32{a} * b; });
  check_ternary<s32, s32, s32, s32>("mad.lo.s32",
                                    [](s32 a, s32 b, s32 c) { return s128{a} * b + c; });
  check_ternary<u32, u32, u32, u32>("mad.hi.u32",
                                    [](u32 a, u32 b, u32 c) { return ((u64{a} * b) >> 32) + c; });
  check_ternary<s64, s32, s32, s64>("mad.wide.s32",
                                    [](s32 a, s32 b, s64 c) { return u64(s64{a} * b) + u64(c); });
  check_binary<u32, u32, u32>("div.u32", [](u32 a, u32 b) { return b == 0 ? ~0U : a / b; });
  check_binary<u32, u32, u32>("rem.u32", [](u32 a, u32 b) { return b == 0 ? a : a % b; });
  check_binary<s32, s32, s32>("div.s32", [](s32 a, s32 b) { return b == 0 ? -1 : s64{a} / b; });
  check_binary<s32, s32, s32>("rem.s32", [](s32 a, s32 b) { return b == 0 ? a : s64{a} % b; });
  check_binary<s64, s64, s64>("div.s64", [](s64 a, s64 b) { return b == 0 ? -1 : s128{a} / b; });
  check_binary<s32, s32, s32>("min.s32", [](s32 a, s32 b) { return std::min(a, b); });
  check_binary<u32, u32, u32>("min.u32", [](u32 a, u32 b) { return std::min(a, b); });
  check_binary<s64, s64, s64>("max.s64", [](s64 a, s64 b) { return std::max(a, b); });
  check_binary<u16, u16, u16>("max.u16", [](u16 a, u16 b) { return std::max(a, b); });
  check_unary<s32, s32>("neg.s32", [](s32 a) { return -s64{a}; });
  check_unary<s64, s64>("abs.s64", [](s64 a) { return a < 0 ? 0 - u64(a) : u64(a); });
}

TEST_CASE("logic, shifts and bit fields") {
  check_binary<u32, u32, u32>("and.b32", [](u32 a, u32 b) { return a & b; });
  check_binary<u64, u64, u64>("or.b64", [](u64 a, u64 b) { return a | b; });
  check_binary<u16, u16, u16>("xor.b16", [](u16 a, u16 b) { return a ^ b; });
  check_unary<u32, u32>("not.b32", [](u32 a) { return ~a; });
  check_binary<u32, u32, u32>("shl.b32", [](u32 a, u32 b) { return b > 31 ? 0 : a << b; });
  check_binary<u64, u64, u32>("shl.b64", [](u64 a, u32 b) { return b > 63 ? 0 : a << b; });
  check_binary<u16, u16, u32>("shl.b16", [](u16 a, u32 b) { return b > 15 ? 0 : a << b; });
  check_binary<u32, u32, u32>("shr.u32", [](u32 a, u32 b) { return b > 31 ? 0 : a >> b; });
  check_binary<s32, s32, u32>("shr.s32", [](s32 a, u32 b) { return a >> std::min(b, 31U); });
  check_binary<s64, s64, u32>("shr.s64", [](s64 a, u32 b) { return a >> std::min(b, 63U); });
  check_binary<s16, s16, u32>("shr.s16", [](s16 a, u32 b) { return a >> std::min(b, 15U); });
  check_ternary<u32, u32, u32, u32>("shf.l.wrap.b32", [](u32 a, u32 b, u32 c) {
    return (c & 31) == 0 ? b : b << (c & 31) | a >> (32 - (c & 31));
  });
  check_ternary<u32, u32, u32, u32>("shf.r.wrap.b32", [](u32 a, u32 b, u32 c) {
    return (c & 31) == 0 ? a : a >> (c & 31) | b << (32 - (c & 31));
  });
  check_ternary<u32, u32, u32, u32>("shf.l.clamp.b32", [](u32 a, u32 b, u32 c) {
    return c == 0 ? b : c >= 32 ? a : b << c | a >> (32 - c);
  });
  check_ternary<u32, u32, u32, u32>("shf.r.clamp.b32", [](u32 a, u32 b, u32 c) {
    return c == 0 ? a : c >= 32 ? b : a >> c | b << (32 - c);
  });
  check_unary<u32, u32>("popc.b32", [](u32 a) { return std::popcount(a); });
  check_unary<u32, u64>("clz.b64", [](u64 a) { return std::countl_zero(a); });
  check_unary<u32, u32>("brev.b32", [](u32 a) {
    u32 r = 0;
    for (int i = 0; i < 32; ++i) r |= ((a >> i) & 1) << (31 - i);
    return r;
  });
  check_unary<u32, u32>("bfind.u32",
                        [](u32 a) { return a == 0 ? ~0U : u32(std::bit_width(a)) - 1; });
  check_unary<u32, s32>("bfind.s32", [](s32 a) {
    const u32 x = a < 0 ? ~u32(a) : u32(a);
    return x == 0 ? ~0U : u32(std::bit_width(x)) - 1;
  });
  // Fields of positions and lengths below 256, as the instruction takes them.
  for (const u32 position : {0U, 1U, 7U, 16U, 31U, 32U, 200U}) {
    for (const u32 length : {0U, 1U, 8U, 17U, 32U, 40U}) {
      const std::string suffix = ", " + std::to_string(position) + ", " + std::to_string(length);
      const std::vector<u32> values = edge_values<u32>();
      std::string body = "mul.wide.u32 %rd1, %t, 4; add.s64 %rd2, %rd1, %in;\n";
      body += "ld.global.u32 %r1, [%rd2]; bfe.u32 %r2, %r1" + suffix + "; bfe.s32 %r3, %r1" +
              suffix + "; bfi.b32 %r4, %r1, 305419896" + suffix + ";\n";
      body += "mul.wide.u32 %rd1, %t, 16; add.s64 %rd2, %rd1, %out;\n";
      body += "st.global.v4.u32 [%rd2], {%r1, %r2, %r3, %r4};";
      const std::vector<u32> got =
          run<u32>(body, values, 4 * values.size(), static_cast<unsigned>(values.size()));
      for (std::size_t i = 0; i < values.size(); ++i) {
        const u64 kept = length == 0 ? 0 : (length >= 32 ? 0xffffffffU : (1U << length) - 1);
        const u32 field = position > 31 ? 0 : u32((values[i] >> position) & kept);
        const u32 last = std::min(position + length - 1, 31U);
        const bool negative = length != 0 && ((values[i] >> last) & 1) != 0;
        u32 extended = field;
        const u32 inside = position > 31 ? 0 : std::min(length, 32 - position);
        if (negative && inside < 32) extended |= ~u32(0) << inside;
        const u32 mask = position > 31 ? 0 : u32(kept << position);
        const u32 moved = position > 31 ? 0 : u32(u64{values[i]} << position);
        CAPTURE(suffix);
        CAPTURE(values[i]);
        CHECK(got[4 * i + 1] == field);
        CHECK(got[4 * i + 2] == extended);
        CHECK(got[4 * i + 3] == ((305419896U & ~mask) | (moved & mask)));
      }
    }
  }
}

TEST_CASE("byte permutation and three-way logic") {
  const std::vector<u32> in = {0x83828180U, 0x07060584U, 0xf0f0f0f0U};
  const auto got = run<u32>(
      "ld.global.u32 %r1, [%in]; ld.global.u32 %r2, [%in+4]; ld.global.u32 %r3, [%in+8];\n"
      "prmt.b32 %r4, %r1, %r2, 0x7610; prmt.b32 %r5, %r1, %r2, 0xc5b4;\n"
      "lop3.b32 %r6, %r1, %r2, %r3, 0x96; lop3.b32 %r7, %r1, %r2, %r3, 0xe8;\n"
      "st.global.v4.u32 [%out], {%r4, %r5, %r6, %r7};",
      in, 4);
  CHECK(got[0] == 0x07068180U);
  CHECK(got[1] == 0xff05ff84U);  // sign of byte 4 (0x84), byte 5, sign of byte 3 (0x83), byte 4
  CHECK(got[2] == (in[0] ^ in[1] ^ in[2]));
  CHECK(got[3] == ((in[0] & in[1]) | (in[0] & in[2]) | (in[1] & in[2])));
}

TEST_CASE("f32 and f64 arithmetic, to nearest") {
  check_binary<float, float, float>("add.f32", [](float a, float b) { return a + b; });
  check_binary<float, float, float>("add.rn.f32", [](float a, float b) { return a + b; });
  check_binary<float, float, float>("sub.f32", [](float a, float b) { return a - b; });
  check_binary<float, float, float>("mul.f32", [](float a, float b) { return a * b; });
  check_binary<float, float, float>("div.rn.f32", [](float a, float b) { return a / b; });
  check_binary<double, double, double>("add.f64", [](double a, double b) { return a + b; });
  check_binary<double, double, double>("mul.rn.f64", [](double a, double b) { return a * b; });
  check_ternary<float, float, float, float>(
      "fma.rn.f32", [](float a, float b, float c) { return std::fma(a, b, c); });
  check_ternary<double, double, double, double>(
      "fma.rn.f64", [](double a, double b, double c) { return std::fma(a, b, c); });
  check_unary<float, float>("neg.f32", [](float a) { return -a; });
  check_unary<float, float>("abs.f32", [](float a) { return std::fabs(a); });
  check_unary<float, float>("sqrt.rn.f32", [](float a) { return std::sqrt(a); });
  check_unary<float, float>("rcp.rn.f32", [](float a) { return 1.0F / a; });
  check_unary<double, double>("sqrt.rn.f64", [](double a) { return std::sqrt(a); });
  check_binary<float, float, float>("copysign.f32",
                                    [](float a, float b) { return std::copysign(b, a); });
}

TEST_CASE("directed rounding, flush to zero and saturation") {
  // 24-bit factors have exact products in long double; sums of values this close too.
  check_binary<float, float, float>("mul.rz.f32", [](float a, float b) {
    return rounded(static_cast<long double>(a) * b, Round::zero);
  });
  check_binary<float, float, float>("mul.rm.f32", [](float a, float b) {
    return rounded(static_cast<long double>(a) * b, Round::down);
  });
  check_binary<float, float, float>("mul.rp.f32", [](float a, float b) {
    return rounded(static_cast<long double>(a) * b, Round::up);
  });
  std::vector<float> a;
  std::vector<float> b;
  std::vector<float> c;
  std::mt19937 random(5);
  for (int i = 0; i < 512; ++i) {
    a.push_back(std::ldexp(static_cast<float>(random() % 16777216), -20) - 8);
    b.push_back(std::ldexp(static_cast<float>(random() % 16777216), -22) - 2);
    c.push_back(std::ldexp(static_cast<float>(random() % 16777216), -19) - 16);
  }
  const std::vector<std::pair<std::string, Round>> modes = {
      {"rn", Round::nearest}, {"rz", Round::zero}, {"rm", Round::down}, {"rp", Round::up}};
  for (const auto& [name, mode] : modes) {
    const auto sums = run_tuples<float>("add." + name + ".f32", a, c);
    const auto fused = run_tuples<float>("fma." + name + ".f32", a, b, c);
    for (std::size_t i = 0; i < a.size(); ++i) {
      CHECK(sums[i] == rounded(static_cast<long double>(a[i]) + c[i], mode));
      CHECK(fused[i] == rounded(static_cast<long double>(a[i]) * b[i] + c[i], mode));
    }
  }
  check_binary<float, float, float>("add.ftz.f32",
                                    [](float x, float y) { return ftz(ftz(x) + ftz(y)); });
  check_binary<float, float, float>("mul.ftz.f32",
                                    [](float x, float y) { return ftz(ftz(x) * ftz(y)); });
  check_binary<float, float, float>("add.sat.f32", [](float x, float y) {
    const float sum = x + y;
    return std::isnan(sum) || sum <= 0 ? 0.0F : std::min(sum, 1.0F);
  });
  check_ternary<float, float, float, float>("fma.rn.ftz.sat.f32", [](float x, float y, float z) {
    const float r = ftz(std::fma(ftz(x), ftz(y), ftz(z)));
    return std::isnan(r) || r <= 0 ? 0.0F : std::min(r, 1.0F);
  });
}

TEST_CASE("minimum and maximum with NaN and signed zeros") {
  const auto extreme = [](float a, float b, bool max, bool nan) {
    if (std::isnan(a) || std::isnan(b)) {
      return nan || (std::isnan(a) && std::isnan(b)) ? NAN : std::isnan(a) ? b : a;
    }
    if (a == b) return std::signbit(a) == max ? b : a;
    return max ? std::max(a, b) : std::min(a, b);
  };
  check_binary<float, float, float>("min.f32",
                                    [&](float a, float b) { return extreme(a, b, false, false); });
  check_binary<float, float, float>("max.f32",
                                    [&](float a, float b) { return extreme(a, b, true, false); });
  check_binary<float, float, float>("max.NaN.f32",
                                    [&](float a, float b) { return extreme(a, b, true, true); });
  check_binary<float, float, float>(
      "min.ftz.f32", [&](float a, float b) { return extreme(ftz(a), ftz(b), false, false); });
}

TEST_CASE("approximate functions are the host's") {
  check_unary<float, float>("ex2.approx.f32", [](float a) { return std::exp2(a); });
  check_unary<float, float>("ex2.approx.ftz.f32", [](float a) { return ftz(std::exp2(ftz(a))); });
  check_unary<float, float>("lg2.approx.f32", [](float a) { return std::log2(a); });
  check_unary<float, float>("rcp.approx.ftz.f32", [](float a) { return ftz(1.0F / ftz(a)); });
  check_unary<float, float>("rsqrt.approx.f32", [](float a) { return 1.0F / std::sqrt(a); });
  check_unary<float, float>("sqrt.approx.f32", [](float a) { return std::sqrt(a); });
  check_unary<float, float>("tanh.approx.f32", [](float a) { return std::tanh(a); });
  check_binary<float, float, float>("div.full.f32", [](float a, float b) { return a / b; });
  check_binary<float, float, float>("div.approx.ftz.f32",
                                    [](float a, float b) { return ftz(ftz(a) / ftz(b)); });
}

TEST_CASE("conversions between integers") {
  check_unary<u64, u32>("cvt.u64.u32", [](u32 a) { return a; });
  check_unary<s64, s32>("cvt.s64.s32", [](s32 a) { return a; });
  check_unary<u32, u64>("cvt.u32.u64", [](u64 a) { return static_cast<u32>(a); });
  check_unary<u32, u16>("cvt.u32.u16", [](u16 a) { return a; });
  check_unary<s32, s16>("cvt.s32.s16", [](s16 a) { return a; });
  check_unary<u16, u32>("cvt.u16.u32", [](u32 a) { return static_cast<u16>(a); });
  check_unary<s32, u32>("cvt.s32.s8", [](u32 a) { return static_cast<std::int8_t>(a); });
  check_unary<s16, s32>("cvt.sat.s16.s32", [](s32 a) { return std::clamp<s32>(a, -32768, 32767); });
  check_unary<u32, s32>("cvt.sat.u32.s32", [](s32 a) { return std::max(a, 0); });
}

TEST_CASE("conversions between reals and integers") {
  const auto to_s32 = [](float a, float (*round)(float)) -> s32 {
    if (std::isnan(a)) return 0;
    const double r = static_cast<double>(round(a));
    return static_cast<s32>(std::clamp(r, -2147483648.0, 2147483647.0));
  };
  check_unary<s32, float>("cvt.rni.s32.f32", [&](float a) { return to_s32(a, std::nearbyint); });
  check_unary<s32, float>("cvt.rzi.s32.f32", [&](float a) { return to_s32(a, std::trunc); });
  check_unary<s32, float>("cvt.rmi.s32.f32", [&](float a) { return to_s32(a, std::floor); });
  check_unary<s32, float>("cvt.rpi.s32.f32", [&](float a) { return to_s32(a, std::ceil); });
  check_unary<u32, float>("cvt.rzi.u32.f32", [](float a) {
    return std::isnan(a) ? 0U
                         : static_cast<u32>(std::clamp<double>(std::trunc(a), 0, 4294967295.0));
  });
  check_unary<float, s32>("cvt.rn.f32.s32", [](s32 a) { return static_cast<float>(a); });
  check_unary<float, u64>("cvt.rn.f32.u64", [](u64 a) { return static_cast<float>(a); });
  check_unary<float, u32>("cvt.rz.f32.u32", [](u32 a) { return rounded(a, Round::zero); });
  check_unary<double, s32>("cvt.rn.f64.s32", [](s32 a) { return static_cast<double>(a); });
  check_unary<double, float>("cvt.f64.f32", [](float a) { return static_cast<double>(a); });
  check_unary<float, double>("cvt.rn.f32.f64", [](double a) { return static_cast<float>(a); });
  check_unary<float, double>("cvt.rm.f32.f64", [](double a) { return rounded(a, Round::down); });
  check_unary<float, float>("cvt.rni.f32.f32", [](float a) { return std::nearbyint(a); });
  check_unary<float, float>("cvt.rmi.f32.f32", [](float a) { return std::floor(a); });
  check_unary<float, float>("cvt.sat.f32.f32", [](float a) {
    return std::isnan(a) || a <= 0 ? 0.0F : std::min(a, 1.0F);
  });
  check_unary<float, float>("cvt.ftz.f32.f32", [](float a) { return ftz(a); });
}

TEST_CASE("16-bit storage types: all patterns to f32, and rounding back") {
  std::vector<u16> patterns(1024);
  for (u32 first = 0; first < 65536; first += 1024) {
    for (u32 i = 0; i < 1024; ++i) patterns[i] = static_cast<u16>(first + i);
    const auto f16 = run_tuples<float>("cvt.f32.f16", patterns);
    const auto bf16 = run_tuples<float>("cvt.f32.bf16", patterns);
    std::size_t wrong = 0;
    for (u32 i = 0; i < 1024; ++i) {
      const int exponent = (patterns[i] >> 10) & 31;
      const int fraction = patterns[i] & 1023;
      double value =
          exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
      if (exponent == 31) value = fraction == 0 ? INFINITY : NAN;
      if (patterns[i] >> 15 != 0) value = -value;
      wrong += !same(f16[i], static_cast<float>(value));
      wrong += !same(bf16[i], std::bit_cast<float>(u32{patterns[i]} << 16));
    }
    CHECK(wrong == 0);
  }
  // Rounding to nearest even, by the neighbours on either side.
  check_unary<u16, float>("cvt.rn.bf16.f32", [](float a) -> u16 {
    if (std::isnan(a)) return 0x7fff;
    const u32 bits = std::bit_cast<u32>(a);
    const u32 rest = bits & 0xffff;
    const u32 up = rest > 0x8000 || (rest == 0x8000 && (bits >> 16 & 1) != 0);
    return static_cast<u16>((bits >> 16) + up);
  });
  check_unary<u16, float>("cvt.rn.f16.f32", [](float a) -> u16 {
    if (std::isnan(a)) return 0x7fff;
    const auto sign = static_cast<u16>(std::signbit(a) ? 0x8000 : 0);
    const double magnitude = std::fabs(static_cast<double>(a));
    if (magnitude >= 65520) return sign | 0x7c00;
    const int exponent = std::max(magnitude == 0 ? -14 : std::ilogb(magnitude), -14);
    const double unit = std::ldexp(1, exponent - 10);
    const auto steps = static_cast<int>(std::nearbyint(magnitude / unit));  // up to 2048
    return static_cast<u16>(sign | (steps + ((exponent + 14) << 10)));
  });
  check_binary<u32, float, float>("cvt.rn.bf16x2.f32", [](float a, float b) -> u32 {
    const auto one = [](float x) -> u32 { return std::isnan(x) ? 0x7fff : terse::to_bf16(x).bits; };
    return one(a) << 16 | one(b);
  });
}

TEST_CASE("comparisons, their combinations and selection") {
  const auto check = [](const std::string& name, auto expected) {
    const auto values = edge_values<float>();
    std::vector<float> in;
    for (const float a : values) {
      for (const float b : values) {
        in.push_back(a);
        in.push_back(b);
      }
    }
    const auto got = run<u32>(
        "mul.wide.u32 %rd1, %t, 8; add.s64 %rd2, %rd1, %in; ld.global.v2.f32 {%f1, %f2}, [%rd2];\n"
        "setp." +
            name +
            ".f32 %p1, %f1, %f2; selp.u32 %r1, 5, 9, %p1;\n"
            "setp." +
            name +
            ".and.f32 %p2|%p3, %f1, %f2, !%p1; selp.u32 %r2, 1, 0, %p2;\n"
            "selp.u32 %r3, 2, 0, %p3; or.b32 %r2, %r2, %r3;\n"
            "add.s64 %rd3, %rd1, %out; st.global.v2.u32 [%rd3], {%r1, %r2};",
        in, in.size(), static_cast<unsigned>(in.size() / 2));
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < in.size(); i += 2) {
      const bool truth = expected(in[i], in[i + 1]);
      wrong += got[i] != (truth ? 5U : 9U);
      // p2 = truth and not truth, p3 = not truth and not truth
      wrong += got[i + 1] != (truth ? 0U : 2U);
    }
    CAPTURE(name);
    CHECK(wrong == 0);
  };
  const auto unordered = [](float a, float b) { return std::isnan(a) || std::isnan(b); };
  check("eq", [](float a, float b) { return a == b; });
  check("ne", [&](float a, float b) { return !unordered(a, b) && a != b; });
  check("lt", [](float a, float b) { return a < b; });
  check("le", [](float a, float b) { return a <= b; });
  check("gt", [](float a, float b) { return a > b; });
  check("ge", [](float a, float b) { return a >= b; });
  check("equ", [&](float a, float b) { return unordered(a, b) || a == b; });
  check("neu", [](float a, float b) { return a != b; });
  check("ltu", [](float a, float b) { return !(a >= b); });
  check("leu", [](float a, float b) { return !(a > b); });
  check("gtu", [](float a, float b) { return !(a <= b); });
  check("geu", [](float a, float b) { return !(a < b); });
  check("num", [&](float a, float b) { return !unordered(a, b); });
  check("nan", [&](float a, float b) { return unordered(a, b); });
  const auto got = run<u32>(
      "setp.lt.s32 %p1, -1, 1; setp.lt.u32 %p2, -1, 1; setp.hi.u32 %p3, -1, 1;\n"
      "setp.ge.or.s64 %p4, -5, 7, %p1; setp.eq.xor.b32 %p5, 3, 3, %p1;\n"
      "selp.u32 %r1, 1, 0, %p1; selp.u32 %r2, 1, 0, %p2; selp.u32 %r3, 1, 0, %p3;\n"
      "selp.u32 %r4, 1, 0, %p4; selp.u32 %r5, 1, 0, %p5;\n"
      "and.pred %p6, %p1, %p2; or.pred %p6, %p6, %p3; not.pred %p7, %p6;\n"
      "selp.u32 %r6, 1, 0, %p6; selp.u32 %r7, 1, 0, %p7;\n"
      "st.global.v4.u32 [%out], {%r1, %r2, %r3, %r4};\n"
      "st.global.v4.u32 [%out+16], {%r5, %r6, %r7, 0};",
      std::vector<u32>{0}, 8);
  CHECK(got == std::vector<u32>{1, 0, 1, 1, 0, 1, 0, 0});
}
