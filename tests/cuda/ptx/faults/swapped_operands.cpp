// Bug: the inline PTX of a wrapper names two fragments of a in the wrong order; its host model is
// right, so only what nvcc emitted shows it. To be found by layer PTX: a wrong product.
#include "device.cuh"

namespace faults {

template <bool BUG>
__device__ void multiply(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
#ifdef __CUDACC__
  if constexpr (BUG) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %6, %5, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    return;
  }
#endif
  terse::cuda::mma_m16n8k16_bf16(d, a, b);
}

// d (16, 8) = a (16, 16) b (16, 8), b column by column.
template <bool BUG>
__global__ void product_kernel(const terse::bf16* a, const terse::bf16* b, float* d) {
  const int row = static_cast<int>(threadIdx.x) / 4;
  const int column = static_cast<int>(threadIdx.x) % 4 * 2;
  const auto pair = [](const terse::bf16* at) {
    return *reinterpret_cast<const std::uint32_t*>(at);
  };
  const std::uint32_t fragment_a[4] = {
      pair(a + 16 * row + column), pair(a + 16 * (row + 8) + column),
      pair(a + 16 * row + column + 8), pair(a + 16 * (row + 8) + column + 8)};
  const std::uint32_t fragment_b[2] = {pair(b + 16 * row + column),
                                       pair(b + 16 * row + column + 8)};
  float sum[4] = {};
  multiply<BUG>(sum, fragment_a, fragment_b);
  for (int i = 0; i < 4; ++i) d[8 * (row + i / 2 * 8) + column + i % 2] = sum[i];
}

}  // namespace faults

#ifdef __CUDACC__
template __global__ void faults::product_kernel<false>(const terse::bf16*, const terse::bf16*,
                                                       float*);
template __global__ void faults::product_kernel<true>(const terse::bf16*, const terse::bf16*,
                                                      float*);
#else
#include "fault_ptx.h"

namespace faults {

template <bool BUG>
bool right_product() {
  std::vector<terse::bf16> a(256);
  std::vector<terse::bf16> b(128);
  for (std::size_t i = 0; i < 256; ++i) a[i] = terse::to_bf16(static_cast<float>(i * 7 % 13) - 6);
  for (std::size_t i = 0; i < 128; ++i) b[i] = terse::to_bf16(static_cast<float>(i * 5 % 11) - 5);
  const DeviceBuffer<terse::bf16> device_a(a);
  const DeviceBuffer<terse::bf16> device_b(b);
  const DeviceBuffer<float> d(128);
  klaunch(product_kernel<BUG>, dim3(1), dim3(32), 0, nullptr, device_a.get(), device_b.get(),
          d.get());
  const std::vector<float> values = d.values();
  for (std::size_t row = 0; row < 16; ++row) {
    for (std::size_t column = 0; column < 8; ++column) {
      float sum = 0;
      for (std::size_t k = 0; k < 16; ++k) {
        sum += terse::to_f32(a[16 * row + k]) * terse::to_f32(b[16 * column + k]);
      }
      if (values[8 * row + column] != sum) return false;
    }
  }
  return true;
}

}  // namespace faults

int main(int argc, char** argv) {
  return faults::run_ptx(argc, argv, faults::right_product<false>, faults::right_product<true>);
}
#endif
