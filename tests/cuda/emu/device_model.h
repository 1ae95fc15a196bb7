// The names of kernels/device.cuh for a host compiler: launches go to the emulator, instructions to
// their models. What each does is said in device.cuh. Included by device.cuh alone.
#pragma once

#include <cstring>
#include <memory>
#include <source_location>
#include <tuple>

#include "emu.h"

#define KSHARED(T, name, N)         \
  static const char name##_key = 0; \
  T* const name = static_cast<T*>(::emu::shared_array(&name##_key, sizeof(T) * (N), 16, #name))
#define KSHARED_DYN(T, name) T* const name = static_cast<T*>(::emu::dynamic_shared())

namespace terse::cuda {

namespace detail {

// A kernel and its arguments, copied as a launch copies them.
template <class... Params>
class KernelCall final : public emu::Call {
 public:
  template <class... Args>
  explicit KernelCall(void (*kernel)(Params...), Args&&... args)
      : kernel_(kernel), arguments_(std::forward<Args>(args)...) {
    // Bytes between fields are zero, as the search for pointers reads them too.
    std::apply([](auto&... argument) { (__builtin_clear_padding(&argument), ...); }, arguments_);
    std::apply(
        [&](const auto&... argument) {
          (params.push_back({&argument, sizeof(argument), alignof(decltype(argument)),
                             std::is_pointer_v<std::remove_cvref_t<decltype(argument)>>}),
           ...);
        },
        arguments_);
  }
  void run() const override { std::apply(kernel_, arguments_); }

 private:
  void (*kernel_)(Params...);
  std::tuple<std::remove_cv_t<Params>...> arguments_;
};

inline emu::Site here(const std::source_location& place) {
  return {place.file_name(), static_cast<int>(place.line()), place.column()};
}

}  // namespace detail

template <class... Params, class... Args>
void klaunch(void (*kernel)(Params...), dim3 grid, dim3 block, std::size_t dynamic_smem,
             cudaStream_t stream, Args&&... args) {
  check(emu::launch(
            reinterpret_cast<const void*>(kernel), grid, block, dynamic_smem, stream,
            std::make_shared<detail::KernelCall<Params...>>(kernel, std::forward<Args>(args)...)),
        "kernel launch");
}

template <class... Params>
void allow_dynamic_smem(void (*kernel)(Params...), std::size_t bytes) {
  check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
        "dynamic shared memory");
}

inline float to_float(float value) { return value; }
inline float to_float(bf16 value) { return to_f32(value); }
inline float to_float(f16 value) { return to_f32(value); }

template <class T>
T from_float(float value) {
  if constexpr (std::is_same_v<T, float>) {
    return value;
  } else if constexpr (std::is_same_v<T, bf16>) {
    return to_bf16(value);
  } else {
    static_assert(std::is_same_v<T, f16>);
    return to_f16(value);
  }
}

template <class T>
std::uint32_t pack2(float low, float high) {
  return from_float<T>(low).bits | static_cast<std::uint32_t>(from_float<T>(high).bits) << 16;
}

inline void cp_async16(void* shared, const void* global) {
  emu::async_copy(shared, global, 16, 16);
}
inline void cp_async16_zfill(void* shared, const void* global, bool valid) {
  emu::async_copy(shared, global, 16, valid ? 16 : 0);
}
inline void cp_async_commit() { emu::async_commit(); }
template <int NEWEST>
void cp_async_wait() {
  emu::async_wait(NEWEST);
}

inline void ldmatrix_x2(std::uint32_t (&out)[2], const void* row,
                        std::source_location place = std::source_location::current()) {
  emu::load_matrix(detail::here(place), 2, false, out, row);
}
inline void ldmatrix_x2_trans(std::uint32_t (&out)[2], const void* row,
                              std::source_location place = std::source_location::current()) {
  emu::load_matrix(detail::here(place), 2, true, out, row);
}
inline void ldmatrix_x4(std::uint32_t (&out)[4], const void* row,
                        std::source_location place = std::source_location::current()) {
  emu::load_matrix(detail::here(place), 4, false, out, row);
}
inline void ldmatrix_x4_trans(std::uint32_t (&out)[4], const void* row,
                              std::source_location place = std::source_location::current()) {
  emu::load_matrix(detail::here(place), 4, true, out, row);
}

inline void mma_m16n8k16_bf16(float (&d)[4], const std::uint32_t (&a)[4],
                              const std::uint32_t (&b)[2],
                              std::source_location place = std::source_location::current()) {
  emu::multiply(detail::here(place), emu::Element::bf16, d, a, b);
}
inline void mma_m16n8k16_f16(float (&d)[4], const std::uint32_t (&a)[4],
                             const std::uint32_t (&b)[2],
                             std::source_location place = std::source_location::current()) {
  emu::multiply(detail::here(place), emu::Element::f16, d, a, b);
}

inline float exp2_approx(float x) { return emu::approximate(std::exp2(x)); }
inline float rcp_approx(float x) { return emu::approximate(1.0f / x); }
inline float rsqrt_approx(float x) { return emu::approximate(1.0f / std::sqrt(x)); }
inline float exp_f32(float x) { return emu::approximate(std::exp(x)); }
inline float tanh_f32(float x) { return emu::approximate(std::tanh(x)); }

}  // namespace terse::cuda
