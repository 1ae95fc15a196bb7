// The layout of mma and ldmatrix, held to tables that were written down from the PTX ISA (9.7.15,
// "Matrix Fragments for mma.m16n8k16 with floating point type" and "ldmatrix") and share nothing
// with the model: which lane holds an element, in which register, in which half.
#include <array>

#include "cuda_test.h"
#include "device.cuh"

namespace {

using terse::bf16;
using terse::f16;
using terse::cuda::klaunch;
using terse::cuda_test::DeviceBuffer;
using terse::cuda_test::for_each_mode;

template <std::size_t COLUMNS>
using Rows16 = std::array<std::array<unsigned, COLUMNS>, 16>;

// A (16 rows, 16 columns): by row and pair of columns. The left column of a pair is in bits 0-15.
constexpr Rows16<8> kLaneOfA = {{{0, 1, 2, 3, 0, 1, 2, 3},
                                 {4, 5, 6, 7, 4, 5, 6, 7},
                                 {8, 9, 10, 11, 8, 9, 10, 11},
                                 {12, 13, 14, 15, 12, 13, 14, 15},
                                 {16, 17, 18, 19, 16, 17, 18, 19},
                                 {20, 21, 22, 23, 20, 21, 22, 23},
                                 {24, 25, 26, 27, 24, 25, 26, 27},
                                 {28, 29, 30, 31, 28, 29, 30, 31},
                                 {0, 1, 2, 3, 0, 1, 2, 3},
                                 {4, 5, 6, 7, 4, 5, 6, 7},
                                 {8, 9, 10, 11, 8, 9, 10, 11},
                                 {12, 13, 14, 15, 12, 13, 14, 15},
                                 {16, 17, 18, 19, 16, 17, 18, 19},
                                 {20, 21, 22, 23, 20, 21, 22, 23},
                                 {24, 25, 26, 27, 24, 25, 26, 27},
                                 {28, 29, 30, 31, 28, 29, 30, 31}}};
constexpr std::array<unsigned, 8> kRegisterOfUpperA = {0, 0, 0, 0, 2, 2, 2, 2};  // rows 0-7
constexpr std::array<unsigned, 8> kRegisterOfLowerA = {1, 1, 1, 1, 3, 3, 3, 3};  // rows 8-15

// B (16 rows, 8 columns). An even row is in bits 0-15; rows 0-7 are in register 0, 8-15 in 1.
constexpr Rows16<8> kLaneOfB = {{{0, 4, 8, 12, 16, 20, 24, 28},
                                 {0, 4, 8, 12, 16, 20, 24, 28},
                                 {1, 5, 9, 13, 17, 21, 25, 29},
                                 {1, 5, 9, 13, 17, 21, 25, 29},
                                 {2, 6, 10, 14, 18, 22, 26, 30},
                                 {2, 6, 10, 14, 18, 22, 26, 30},
                                 {3, 7, 11, 15, 19, 23, 27, 31},
                                 {3, 7, 11, 15, 19, 23, 27, 31},
                                 {0, 4, 8, 12, 16, 20, 24, 28},
                                 {0, 4, 8, 12, 16, 20, 24, 28},
                                 {1, 5, 9, 13, 17, 21, 25, 29},
                                 {1, 5, 9, 13, 17, 21, 25, 29},
                                 {2, 6, 10, 14, 18, 22, 26, 30},
                                 {2, 6, 10, 14, 18, 22, 26, 30},
                                 {3, 7, 11, 15, 19, 23, 27, 31},
                                 {3, 7, 11, 15, 19, 23, 27, 31}}};

// C and D (16 rows, 8 columns): registers 0 (even column) and 1 (odd) in rows 0-7, 2 and 3 below.
constexpr Rows16<8> kLaneOfD = {{{0, 0, 1, 1, 2, 2, 3, 3},
                                 {4, 4, 5, 5, 6, 6, 7, 7},
                                 {8, 8, 9, 9, 10, 10, 11, 11},
                                 {12, 12, 13, 13, 14, 14, 15, 15},
                                 {16, 16, 17, 17, 18, 18, 19, 19},
                                 {20, 20, 21, 21, 22, 22, 23, 23},
                                 {24, 24, 25, 25, 26, 26, 27, 27},
                                 {28, 28, 29, 29, 30, 30, 31, 31},
                                 {0, 0, 1, 1, 2, 2, 3, 3},
                                 {4, 4, 5, 5, 6, 6, 7, 7},
                                 {8, 8, 9, 9, 10, 10, 11, 11},
                                 {12, 12, 13, 13, 14, 14, 15, 15},
                                 {16, 16, 17, 17, 18, 18, 19, 19},
                                 {20, 20, 21, 21, 22, 22, 23, 23},
                                 {24, 24, 25, 25, 26, 26, 27, 27},
                                 {28, 28, 29, 29, 30, 30, 31, 31}}};

// An 8x8 matrix of ldmatrix: by row and pair of columns; the left one is in bits 0-15. Transposed,
// by column and pair of rows. Matrix i is in register i; its row r is at the address of lane
// kLaneOfAddress[i][r].
constexpr std::array<std::array<unsigned, 4>, 8> kLaneOfRow = {{{0, 1, 2, 3},
                                                                {4, 5, 6, 7},
                                                                {8, 9, 10, 11},
                                                                {12, 13, 14, 15},
                                                                {16, 17, 18, 19},
                                                                {20, 21, 22, 23},
                                                                {24, 25, 26, 27},
                                                                {28, 29, 30, 31}}};
constexpr std::array<std::array<unsigned, 8>, 4> kLaneOfAddress = {
    {{0, 1, 2, 3, 4, 5, 6, 7},
     {8, 9, 10, 11, 12, 13, 14, 15},
     {16, 17, 18, 19, 20, 21, 22, 23},
     {24, 25, 26, 27, 28, 29, 30, 31}}};

// a (32 lanes, 4 registers), b (32, 2), d (32, 4) in and out.
template <class T>
__global__ void multiply_once(const std::uint32_t* a, const std::uint32_t* b, float* d) {
  std::uint32_t a_registers[4], b_registers[2];
  float d_registers[4];
  for (unsigned i = 0; i < 4; ++i) a_registers[i] = a[threadIdx.x * 4 + i];
  for (unsigned i = 0; i < 2; ++i) b_registers[i] = b[threadIdx.x * 2 + i];
  for (unsigned i = 0; i < 4; ++i) d_registers[i] = d[threadIdx.x * 4 + i];
  if constexpr (std::is_same_v<T, bf16>) {
    terse::cuda::mma_m16n8k16_bf16(d_registers, a_registers, b_registers);
  } else {
    terse::cuda::mma_m16n8k16_f16(d_registers, a_registers, b_registers);
  }
  for (unsigned i = 0; i < 4; ++i) d[threadIdx.x * 4 + i] = d_registers[i];
}

// A small integer, exact in every type, without pattern along rows or columns.
int element(unsigned seed, unsigned row, unsigned column) {
  return static_cast<int>((row * 37 + column * 101 + seed * 7 + row * column * 13) % 23) - 11;
}

template <class T>
std::uint16_t bits_of(int value) {
  if constexpr (std::is_same_v<T, bf16>) {
    return terse::to_bf16(static_cast<float>(value)).bits;
  } else {
    return terse::to_f16(static_cast<float>(value)).bits;
  }
}

template <class T>
void check_multiply() {
  std::vector<std::uint32_t> a(32 * 4), b(32 * 2);
  std::vector<float> d(32 * 4);
  const auto d_register = [](unsigned row, unsigned column) {
    return (row < 8 ? 0U : 2U) + column % 2;
  };
  for (unsigned row = 0; row < 16; ++row) {
    for (unsigned column = 0; column < 16; ++column) {
      const unsigned pair = column / 2;
      const unsigned index = row < 8 ? kRegisterOfUpperA[pair] : kRegisterOfLowerA[pair];
      a[kLaneOfA[row][pair] * 4 + index] |=
          static_cast<std::uint32_t>(bits_of<T>(element(1, row, column))) << column % 2 * 16;
    }
    for (unsigned column = 0; column < 8; ++column) {
      b[kLaneOfB[row][column] * 2 + (row < 8 ? 0U : 1U)] |=
          static_cast<std::uint32_t>(bits_of<T>(element(2, row, column))) << row % 2 * 16;
      d[kLaneOfD[row][column] * 4 + d_register(row, column)] =
          static_cast<float>(element(3, row, column));
    }
  }
  for_each_mode([&] {
    const DeviceBuffer<std::uint32_t> a_device(a), b_device(b);
    const DeviceBuffer<float> d_device(d);
    klaunch(multiply_once<T>, 1, 32, 0, nullptr, a_device.get(), b_device.get(), d_device.get());
    const std::vector<float> result = d_device.values();
    for (unsigned row = 0; row < 16; ++row) {
      for (unsigned column = 0; column < 8; ++column) {
        int expected = element(3, row, column);
        for (unsigned k = 0; k < 16; ++k) expected += element(1, row, k) * element(2, k, column);
        CAPTURE(row);
        CAPTURE(column);
        CHECK(result[kLaneOfD[row][column] * 4 + d_register(row, column)] ==
              static_cast<float>(expected));
      }
    }
  });
}

TEST_CASE("mma multiplies fragments laid out as the PTX ISA says") {
  check_multiply<bf16>();
  check_multiply<f16>();
}

// matrices (4, 8 rows, 8) go to shared memory with rows 16 elements apart; out (4 loads, 32, 4).
__global__ void load_matrices(const std::uint16_t* matrices, const std::uint32_t* row_of_lane,
                              std::uint32_t* out) {
  KSHARED(std::uint16_t, tile, 32 * 16);
  for (unsigned i = 0; i < 8; ++i) tile[threadIdx.x * 16 + i] = matrices[threadIdx.x * 8 + i];
  __syncthreads();
  const std::uint16_t* const row = tile + row_of_lane[threadIdx.x] * 16;
  std::uint32_t four[4], two[2];
  const auto store = [&](unsigned load, const std::uint32_t* registers, unsigned count) {
    for (unsigned i = 0; i < count; ++i) out[(load * 32 + threadIdx.x) * 4 + i] = registers[i];
  };
  terse::cuda::ldmatrix_x4(four, row);
  store(0, four, 4);
  terse::cuda::ldmatrix_x4_trans(four, row);
  store(1, four, 4);
  terse::cuda::ldmatrix_x2(two, row);
  store(2, two, 2);
  terse::cuda::ldmatrix_x2_trans(two, row);
  store(3, two, 2);
}

TEST_CASE("ldmatrix distributes matrices as the PTX ISA says") {
  std::vector<std::uint16_t> matrices(4 * 8 * 8);
  for (std::size_t i = 0; i < matrices.size(); ++i) matrices[i] = static_cast<std::uint16_t>(i + 1);
  std::vector<std::uint32_t> row_of_lane(32);
  for (unsigned matrix = 0; matrix < 4; ++matrix) {
    for (unsigned row = 0; row < 8; ++row)
      row_of_lane[kLaneOfAddress[matrix][row]] = matrix * 8 + row;
  }
  for_each_mode([&] {
    const DeviceBuffer<std::uint16_t> in(matrices);
    const DeviceBuffer<std::uint32_t> rows(row_of_lane), out(4 * 32 * 4);
    klaunch(load_matrices, 1, 32, 0, nullptr, in.get(), rows.get(), out.get());
    const std::vector<std::uint32_t> loaded = out.values();
    const auto half = [&](unsigned load, unsigned lane, unsigned index, unsigned which) {
      return loaded[(load * 32 + lane) * 4 + index] >> which * 16 & 0xffffU;
    };
    for (unsigned load = 0; load < 4; ++load) {
      const bool transposed = load % 2 == 1;
      for (unsigned matrix = 0; matrix < (load < 2 ? 4U : 2U); ++matrix) {
        for (unsigned major = 0; major < 8; ++major) {
          for (unsigned minor = 0; minor < 8; ++minor) {
            const unsigned row = transposed ? minor : major;
            const unsigned column = transposed ? major : minor;
            CAPTURE(load);
            CAPTURE(matrix);
            CHECK(half(load, kLaneOfRow[major][minor / 2], matrix, minor % 2) ==
                  matrices[matrix * 64 + row * 8 + column]);
          }
        }
      }
    }
  });
}

}  // namespace
