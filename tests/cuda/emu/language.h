// CUDA C++ as kernels use it, for a host compiler: built-in variables, barriers, warp functions,
// atomics and math. Included by the stand-in <cuda_runtime.h>.
#pragma once

#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "emu.h"

#define threadIdx (::emu::current->thread)
#define blockIdx (::emu::current->block)
#define blockDim (::emu::current->block_dim)
#define gridDim (::emu::current->grid_dim)
inline constexpr int warpSize = 32;

#define __syncthreads() ::emu::block_barrier(EMU_SITE)
#define __syncthreads_and(predicate) ::emu::block_vote(EMU_SITE, ::emu::Vote::all, (predicate) != 0)
#define __syncthreads_or(predicate) ::emu::block_vote(EMU_SITE, ::emu::Vote::any, (predicate) != 0)
#define __syncthreads_count(predicate) \
  ::emu::block_vote(EMU_SITE, ::emu::Vote::count, (predicate) != 0)
#define __syncwarp(...) ::emu::language::syncwarp(EMU_SITE __VA_OPT__(, ) __VA_ARGS__)
#define __shfl_sync(mask, ...) \
  ::emu::language::shuffle(EMU_SITE, ::emu::Shuffle::index, mask, __VA_ARGS__)
#define __shfl_up_sync(mask, ...) \
  ::emu::language::shuffle(EMU_SITE, ::emu::Shuffle::up, mask, __VA_ARGS__)
#define __shfl_down_sync(mask, ...) \
  ::emu::language::shuffle(EMU_SITE, ::emu::Shuffle::down, mask, __VA_ARGS__)
#define __shfl_xor_sync(mask, ...) \
  ::emu::language::shuffle(EMU_SITE, ::emu::Shuffle::exclusive_or, mask, __VA_ARGS__)
#define __ballot_sync(mask, predicate) ::emu::ballot(EMU_SITE, mask, (predicate) != 0)
#define __any_sync(mask, predicate) \
  static_cast<int>(::emu::ballot(EMU_SITE, mask, (predicate) != 0) != 0)
#define __all_sync(mask, predicate) \
  static_cast<int>(::emu::ballot(EMU_SITE, mask, (predicate) == 0) == 0)
#define __reduce_add_sync(mask, value) ::emu::language::reduce_add(EMU_SITE, mask, value)
#define __reduce_max_sync(mask, value) ::emu::language::reduce_max(EMU_SITE, mask, value)
#define __reduce_min_sync(mask, value) ::emu::language::reduce_min(EMU_SITE, mask, value)
#define __activemask() \
  (::emu::fault("__activemask: which lanes happen to run together is not a promise"), 0U)
#define __trap() ::emu::fault("__trap")

namespace emu::language {

inline void syncwarp(Site site, std::uint32_t mask = 0xffffffffU) { warp_barrier(site, mask); }

template <class T>
T shuffle(Site site, Shuffle kind, std::uint32_t mask, T value, unsigned operand, int width = 32) {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = ::emu::shuffle(site, kind, mask, bits, operand, width);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
template <class T>
T shuffle(Site site, Shuffle kind, std::uint32_t mask, T value, int operand, int width = 32) {
  return shuffle(site, kind, mask, value, static_cast<unsigned>(operand), width);
}

template <class T>
T reduced(Site site, Reduce kind, std::uint32_t mask, T value) {
  static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned>);
  return static_cast<T>(reduce(site, kind, mask, static_cast<std::uint32_t>(value)));
}
template <class T>
T reduce_add(Site site, std::uint32_t mask, T value) {
  return reduced(site, Reduce::add, mask, value);
}
template <class T>
T reduce_max(Site site, std::uint32_t mask, T value) {
  return reduced(site, std::is_signed_v<T> ? Reduce::max_signed : Reduce::max, mask, value);
}
template <class T>
T reduce_min(Site site, std::uint32_t mask, T value) {
  return reduced(site, std::is_signed_v<T> ? Reduce::min_signed : Reduce::min, mask, value);
}

}  // namespace emu::language

// ThreadSanitizer knows no fences: what they order is ordered by barriers and atomics too.
inline void __threadfence() {}
inline void __threadfence_block() {}

// Relaxed, as on the device. Each returns what was there before.
template <class T>
T atomicAdd(T* address, T value) {
  if constexpr (std::is_floating_point_v<T>) {
    using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
    static_assert(sizeof(T) == sizeof(Bits));
    auto* const word = reinterpret_cast<Bits*>(address);
    Bits expected = __atomic_load_n(word, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(word, &expected,
                                        std::bit_cast<Bits>(std::bit_cast<T>(expected) + value),
                                        false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return std::bit_cast<T>(expected);
  } else {
    return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
  }
}
template <class T>
T atomicCAS(T* address, T expected, T value) {
  __atomic_compare_exchange_n(address, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
template <class T>
T atomicExch(T* address, T value) {
  T before;
  __atomic_exchange(address, &value, &before, __ATOMIC_RELAXED);
  return before;
}
template <class T>
T atomicMax(T* address, T value) {
  T seen = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (seen < value && !__atomic_compare_exchange_n(address, &seen, value, false,
                                                      __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return seen;
}
template <class T>
T atomicMin(T* address, T value) {
  T seen = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (value < seen && !__atomic_compare_exchange_n(address, &seen, value, false,
                                                      __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return seen;
}

template <class T>
T __ldg(const T* address) {
  return *address;
}
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline float __int_as_float(int bits) { return std::bit_cast<float>(bits); }
inline int __float_as_int(float value) { return std::bit_cast<int>(value); }
inline int __popc(unsigned value) { return std::popcount(value); }
inline int __clz(int value) { return std::countl_zero(static_cast<unsigned>(value)); }
inline int __ffs(int value) {
  return value == 0 ? 0 : std::countr_zero(static_cast<unsigned>(value)) + 1;
}

// nvcc has these for device code without a header.
constexpr int min(int a, int b) { return b < a ? b : a; }
constexpr int max(int a, int b) { return a < b ? b : a; }
constexpr unsigned min(unsigned a, unsigned b) { return b < a ? b : a; }
constexpr unsigned max(unsigned a, unsigned b) { return a < b ? b : a; }
constexpr long min(long a, long b) { return b < a ? b : a; }
constexpr long max(long a, long b) { return a < b ? b : a; }
constexpr unsigned long min(unsigned long a, unsigned long b) { return b < a ? b : a; }
constexpr unsigned long max(unsigned long a, unsigned long b) { return a < b ? b : a; }

inline float rsqrtf(float x) { return emu::approximate(1.0f / std::sqrt(x)); }
inline float __fdividef(float x, float y) { return emu::approximate(x / y); }
inline float __frcp_rn(float x) { return 1.0f / x; }
// The C library declares a function of this name.
#define __expf(x) ::emu::approximate(std::exp(x))
