// Everything a kernel may need that depends on the compiler: launching, shared memory, the 16-bit
// storage types' conversions and the inline PTX, one instruction a wrapper. Kernels include this
// header and nothing of CUDA. Compiled by nvcc it is what follows; compiled by a host compiler
// against the stand-in toolkit of tests/cuda/emu the same names are models of the instructions that
// run on the CPU (tests/cuda/emu/device_model.h).
//
// Rules for kernels: bf16 and f16 are storage, arithmetic is float; what a barrier orders is
// ordered by a barrier (a shuffle orders no memory); an early return is uniform over the block; no
// sin and cos; no tensor cores but by the mma wrappers.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

#include "terse/dtype.h"
#include "terse/error.h"

namespace terse::cuda {

// Throws Error(device) unless status is success; `what` names the call.
inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) [[likely]]
    return;
  fail(ErrorClass::device, what, ": ", std::string(cudaGetErrorName(status)), ", ",
       std::string(cudaGetErrorString(status)));
}

}  // namespace terse::cuda

#ifndef __CUDACC__
#ifndef TERSE_CUDA_EMULATION
#error "kernels are compiled by nvcc, or against the stand-in toolkit of tests/cuda/emu/include"
#endif
#include "device_model.h"
#else

// T* name: N elements of T of the block's static shared memory, 16-byte aligned, uninitialised.
#define KSHARED(T, name, N)                                             \
  __shared__ __align__(16) unsigned char name##_bytes[sizeof(T) * (N)]; \
  T* const name = reinterpret_cast<T*>(name##_bytes)

// T* name: the start of the block's dynamic shared memory (the launch says how much), 16-byte
// aligned, uninitialised. Every use within one kernel names the same bytes.
#define KSHARED_DYN(T, name)                                            \
  extern __shared__ __align__(16) unsigned char terse_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(terse_dynamic_shared)

namespace terse::cuda {

// Puts kernel(args...) on the stream with dynamic_smem bytes of dynamic shared memory. Throws
// Error(device) if the launch is refused; the kernel itself may fail later.
template <class... Params, class... Args>
void klaunch(void (*kernel)(Params...), dim3 grid, dim3 block, std::size_t dynamic_smem,
             cudaStream_t stream, Args&&... args) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = dynamic_smem;
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...), "kernel launch");
}

// Lets a kernel be launched with up to bytes of dynamic shared memory; needed beyond 48 KiB. Throws
// Error(device) on devices that have less.
template <class... Params>
void allow_dynamic_smem(void (*kernel)(Params...), std::size_t bytes) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(bytes)),
        "dynamic shared memory");
}

// The address of a shared object as PTX instructions take it.
__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

// Storage types to float and back: exact, and round to nearest even.
__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(bf16 value) {
  return __uint_as_float(static_cast<std::uint32_t>(value.bits) << 16);
}
__device__ __forceinline__ float to_float(f16 value) {
  float out;
  asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(value.bits));
  return out;
}

// T is float, bf16 or f16.
template <class T>
__device__ __forceinline__ T from_float(float value) {
  if constexpr (std::is_same_v<T, float>) {
    return value;
  } else {
    std::uint16_t bits;
    if constexpr (std::is_same_v<T, bf16>) {
      asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    } else {
      static_assert(std::is_same_v<T, f16>);
      asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    }
    return T{bits};
  }
}

// Two values of T (bf16 or f16) in one register: low in bits 0-15, high in bits 16-31.
template <class T>
__device__ __forceinline__ std::uint32_t pack2(float low, float high) {
  std::uint32_t out;
  if constexpr (std::is_same_v<T, bf16>) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  } else {
    static_assert(std::is_same_v<T, f16>);
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  }
  return out;
}

// Copies 16 bytes from global to shared memory behind the thread's back; both addresses are
// 16-byte aligned. Done when a cp_async_wait of this thread covers its group; other threads see it
// after a barrier on top.
__device__ __forceinline__ void cp_async16(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)),
               "l"(global)
               : "memory");
}

// The same, but writes 16 zero bytes and reads nothing if not valid. `global` must be an address
// inside the allocation even then.
__device__ __forceinline__ void cp_async16_zfill(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(valid ? 16 : 0)
               : "memory");
}

// Closes the group of the copies issued since the last commit.
__device__ __forceinline__ void cp_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most the latest NEWEST groups of this thread are unfinished.
template <int NEWEST>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(NEWEST) : "memory");
}

// Loads 8x8 matrices of 16-bit elements from shared memory, by the whole warp. Lane l gives the
// address of a row of 16 bytes: lanes 0-7 the rows of the first matrix, 8-15 of the second, and so
// on (for x2 the addresses of lanes 16-31 are not used, but must be valid). Register i receives of
// matrix i the elements (row l/4, columns 2(l%4) and 2(l%4)+1); with _trans the elements (rows
// 2(l%4) and 2(l%4)+1, column l/4). Source: PTX ISA, ldmatrix.
__device__ __forceinline__ void ldmatrix_x2(std::uint32_t (&out)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(out[0]), "=r"(out[1])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x2_trans(std::uint32_t (&out)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(out[0]), "=r"(out[1])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4(std::uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(std::uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}

// d += a b by the whole warp, a (16, 16) row-major, b (16, 8), d (16, 8) in f32, two 16-bit
// elements a register, the even column (for b: row) in the low half. With g = lane/4, t = lane%4:
//   a[0] (g, 2t..2t+1)  a[1] (g+8, 2t..)  a[2] (g, 2t+8..)  a[3] (g+8, 2t+8..)
//   b[0] (2t..2t+1, g)  b[1] (2t+8.., g)
//   d[0] (g, 2t)  d[1] (g, 2t+1)  d[2] (g+8, 2t)  d[3] (g+8, 2t+1)
// Source: PTX ISA, matrix fragments for mma.m16n8k16 with floating point type.
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const std::uint32_t (&a)[4],
                                                  const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_m16n8k16_f16(float (&d)[4], const std::uint32_t (&a)[4],
                                                 const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// 2^x, 1/x and 1/sqrt(x) within about 2 ulp, one instruction; denormals are flushed to zero.
__device__ __forceinline__ float exp2_approx(float x) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}
__device__ __forceinline__ float rcp_approx(float x) {
  float out;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}
__device__ __forceinline__ float rsqrt_approx(float x) {
  float out;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}

// The library's exp and tanh, within 2 ulp.
__device__ __forceinline__ float exp_f32(float x) { return expf(x); }
__device__ __forceinline__ float tanh_f32(float x) { return tanhf(x); }

}  // namespace terse::cuda

#endif
