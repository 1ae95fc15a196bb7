// Element types: their sizes and names, bf16 and f16, conversions that are exact where a value is
// representable and round to nearest even where not.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "terse/error.h"

namespace terse {

// The types a safetensors file may hold. Weights are read from f64, f32, f16 and bf16; the others
// are recognised so that files which carry them (position_ids, say) load.
enum class DType : std::uint8_t {
  f64,
  f32,
  f16,
  bf16,
  i64,
  i32,
  i16,
  i8,
  u64,
  u32,
  u16,
  u8,
  f8_e4m3,
  f8_e5m2,
  boolean,
};

struct DTypeInfo {
  const char* name;         // as in results and messages
  const char* safetensors;  // as in a safetensors header
  std::size_t size_bytes;
};

inline constexpr DTypeInfo kDTypes[] = {
    {"f64", "F64", 8},         {"f32", "F32", 4},         {"f16", "F16", 2},   {"bf16", "BF16", 2},
    {"i64", "I64", 8},         {"i32", "I32", 4},         {"i16", "I16", 2},   {"i8", "I8", 1},
    {"u64", "U64", 8},         {"u32", "U32", 4},         {"u16", "U16", 2},   {"u8", "U8", 1},
    {"f8_e4m3", "F8_E4M3", 1}, {"f8_e5m2", "F8_E5M2", 1}, {"bool", "BOOL", 1},
};

constexpr const char* dtype_name(DType dtype) {
  return kDTypes[static_cast<std::size_t>(dtype)].name;
}
constexpr std::size_t dtype_size(DType dtype) {
  return kDTypes[static_cast<std::size_t>(dtype)].size_bytes;
}
constexpr bool is_floating(DType dtype) {
  return dtype == DType::f64 || dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
}

// The type that a safetensors header calls `name`, or false.
constexpr bool dtype_from_safetensors(std::string_view name, DType* dtype) {
  for (std::size_t i = 0; i < std::size(kDTypes); ++i) {
    if (name == kDTypes[i].safetensors) {
      *dtype = static_cast<DType>(i);
      return true;
    }
  }
  return false;
}

// Upper half of an IEEE single: 8 exponent bits, 7 fraction bits.
struct bf16 {
  std::uint16_t bits = 0;
  bool operator==(const bf16&) const = default;
};

// IEEE half precision: 5 exponent bits, 10 fraction bits.
struct f16 {
  std::uint16_t bits = 0;
  bool operator==(const f16&) const = default;
};

constexpr float to_f32(bf16 value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
}

// Round to nearest even; a NaN stays a NaN (quiet, sign and upper payload kept).
constexpr bf16 to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) {
    return {static_cast<std::uint16_t>(bits >> 16 | 0x40U)};
  }
  return {static_cast<std::uint16_t>((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16)};
}

constexpr float to_f32(f16 value) {
  const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x8000U) << 16;
  const std::uint32_t exponent = value.bits >> 10 & 0x1fU;
  const std::uint32_t fraction = value.bits & 0x3ffU;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000U | fraction << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  // Zero and subnormals are multiples of 2^-24, exact in f32.
  const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
}

// Round to nearest even; past 65504 + half a step becomes infinity; a NaN stays a NaN.
constexpr f16 to_f16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = bits >> 16 & 0x8000U;
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  const auto pack = [sign](std::uint32_t rest) {
    return f16{static_cast<std::uint16_t>(sign | rest)};
  };
  if (magnitude > 0x7f800000U) return pack(0x7e00U | (magnitude >> 13 & 0x3ffU));
  if (magnitude >= 0x477ff000U) return pack(0x7c00U);
  if (magnitude >= 0x38800000U) {  // normal: re-bias the exponent by 112 and round 13 bits away
    return pack((magnitude - 0x38000000U + 0xfffU + (magnitude >> 13 & 1U)) >> 13);
  }
  // Subnormal: adding 0.5 puts the f16 unit 2^-24 at the last place of the sum, so that the
  // addition itself rounds to nearest even.
  const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
  return pack(std::bit_cast<std::uint32_t>(shifted) - 0x3f000000U);
}

// Any of the four floating types to float or double (Real).
template <class Real, class T>
constexpr Real to_real(T value) {
  if constexpr (std::is_same_v<T, bf16> || std::is_same_v<T, f16>) {
    return static_cast<Real>(to_f32(value));
  } else {
    return static_cast<Real>(value);
  }
}

// Calls f.template operator()<T>() with the C++ type of a floating dtype, as in
// dispatch_floating(x.dtype, [&]<class T>() {...}). Throws Error(dtype) for the other types.
template <class F>
decltype(auto) dispatch_floating(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f64:
      return f.template operator()<double>();
    case DType::f32:
      return f.template operator()<float>();
    case DType::f16:
      return f.template operator()<f16>();
    case DType::bf16:
      return f.template operator()<bf16>();
    default:
      fail(ErrorClass::dtype, "weights of type ", dtype_name(dtype),
           ", expected f64, f32, f16 or bf16");
  }
}

// Reads element `index` of an array that may lie at any address (safetensors data can start at any
// byte).
template <class T>
T load_unaligned(const void* data, std::size_t index) {
  T value;
  std::memcpy(&value, static_cast<const std::byte*>(data) + index * sizeof(T), sizeof(T));
  return value;
}

// Converts count elements of a floating dtype, at any address, to Real (float or double).
template <class Real>
void convert_to(Real* out, const void* data, DType dtype, std::size_t count) {
  dispatch_floating(dtype, [&]<class T>() {
    for (std::size_t i = 0; i < count; ++i) out[i] = to_real<Real>(load_unaligned<T>(data, i));
  });
}

}  // namespace terse
