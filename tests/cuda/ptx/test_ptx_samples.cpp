// Kernels compiled by nvcc and interpreted, against the same source emulated and against f64.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <ctime>
#include <random>
#include <vector>

#include "cuda_test.h"
#include "launch_ptx.h"
#include "samples.cuh"

using terse::bf16;
using terse::f16;
using terse::cuda_test::DeviceBuffer;
using terse::cuda_test::PtxLaunches;
namespace samples = terse::cuda::samples;

namespace {

std::vector<float> random_values(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

template <class T>
std::vector<T> stored(const std::vector<float>& values) {
  std::vector<T> result;
  for (const float value : values) result.push_back(terse::cuda::from_float<T>(value));
  return result;
}
template <class T>
double value_of(T stored) {
  return static_cast<double>(terse::cuda::to_float(stored));
}

// What launch() leaves in `out`, emulated in every schedule and then interpreted.
template <class T, class Launch>
std::vector<std::vector<T>> run_both(std::size_t count, const Launch& launch) {
  std::vector<std::vector<T>> results;
  const auto run = [&] {
    const DeviceBuffer<T> out(std::vector<T>(count, T{}));
    launch(out.get());
    results.push_back(out.values());
  };
  std::vector<emu::NamedOptions> schedules = emu::schedules();
#ifdef EMU_TSAN
  schedules.resize(1);  // it finds a race in any order, at a hundred times the price
#endif
  for (const emu::NamedOptions& schedule : schedules) {
    const emu::ScopedOptions scoped(schedule.options);
    run();
    const PtxLaunches interpreted;
    run();
  }
  return results;
}

// Unit roundoff: half a unit in the last place of 1.
template <class T>
double roundoff() {
  return std::is_same_v<T, float> ? 0x1p-24 : std::is_same_v<T, f16> ? 0x1p-11 : 0x1p-8;
}

template <class T>
void check_rms_norm() {
  constexpr int kRows = 3;
  for (const int width : {1, 31, 32, 100}) {
    const std::size_t count = static_cast<std::size_t>(kRows * width);
    const std::vector<T> x = stored<T>(random_values(count, 1));
    const std::vector<T> weight = stored<T>(random_values(static_cast<std::size_t>(width), 2));
    const DeviceBuffer<T> device_x(x);
    const DeviceBuffer<T> device_weight(weight);
    const auto results = run_both<T>(count, [&](T* out) {
      samples::rms_norm(device_x.get(), device_weight.get(), out, kRows, width, 1e-6F);
    });
    for (const std::vector<T>& result : results) {
      for (std::size_t row = 0; row < kRows; ++row) {
        double squares = 0;
        for (std::size_t i = 0; i < static_cast<std::size_t>(width); ++i) {
          const double value = value_of(x[row * static_cast<std::size_t>(width) + i]);
          squares += value * value;
        }
        for (std::size_t i = 0; i < static_cast<std::size_t>(width); ++i) {
          const std::size_t at = row * static_cast<std::size_t>(width) + i;
          const double exact =
              value_of(x[at]) / std::sqrt(squares / width + 1e-6) * value_of(weight[i]);
          // The root halves the relative error of a sum of at most 4 + 5 roundings of its parts;
          // an approximation, two products and the storage type follow.
          const double tolerance = (std::fabs(exact)) * (roundoff<T>() + 16 * 0x1p-24) + 1e-7;
          CHECK(std::fabs(value_of(result[at]) - exact) <= tolerance);
        }
      }
    }
  }
}

template <class T>
void check_matmul() {
  constexpr int kColumns = 16;
  for (const int k : {32, 96}) {
    const auto size_k = static_cast<std::size_t>(k);
    const std::vector<T> a = stored<T>(random_values(64 * size_k, 3));
    const std::vector<T> b = stored<T>(random_values(kColumns * size_k, 4));
    const DeviceBuffer<T> device_a(a);
    const DeviceBuffer<T> device_b(b);
    const auto results = run_both<float>(64 * kColumns, [&](float* out) {
      samples::matmul(device_a.get(), device_b.get(), out, k, kColumns);
    });
    for (const std::vector<float>& result : results) {
      CHECK(result == results.front());  // no sum is reassociated, so bits agree
      for (std::size_t row = 0; row < 64; ++row) {
        for (std::size_t column = 0; column < kColumns; ++column) {
          double exact = 0;
          double magnitude = 0;
          for (std::size_t i = 0; i < size_k; ++i) {
            const double product = value_of(a[row * size_k + i]) * value_of(b[column * size_k + i]);
            exact += product;
            magnitude += std::fabs(product);
          }
          // Each of k terms is added with an error of at most one unit of its running sum.
          CHECK(std::fabs(static_cast<double>(result[row * kColumns + column]) - exact) <=
                k * 0x1p-24 * magnitude);
        }
      }
    }
  }
}

}  // namespace

TEST_CASE("a reduction over a block") {
  for (const int count : {1, 95, 96, 1000}) {
    const std::vector<float> in = random_values(static_cast<std::size_t>(5 * count), 5);
    const DeviceBuffer<float> device_in(in);
    const auto results =
        run_both<float>(5, [&](float* out) { samples::sum(device_in.get(), out, 5, count); });
    for (const std::vector<float>& result : results) {
      CHECK(result == results.front());  // additions only, in one order: bits agree
      for (std::size_t row = 0; row < 5; ++row) {
        double exact = 0;
        double magnitude = 0;
        for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
          exact += static_cast<double>(in[row * static_cast<std::size_t>(count) + i]);
          magnitude +=
              std::fabs(static_cast<double>(in[row * static_cast<std::size_t>(count) + i]));
        }
        // At most 11 additions of a thread, 5 of a warp, 3 of the block.
        CHECK(std::fabs(static_cast<double>(result[row]) - exact) <= 19 * 0x1p-24 * magnitude);
      }
    }
  }
}

TEST_CASE("a norm in each storage type") {
  check_rms_norm<float>();
  check_rms_norm<bf16>();
  check_rms_norm<f16>();
}

TEST_CASE("a tiled product with asynchronous copies and tensor cores") {
  check_matmul<bf16>();
  check_matmul<f16>();
}

TEST_CASE("atomics of several blocks") {
  std::vector<int> values(500);
  std::vector<int> expected(16);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<int>(i * i % 97);
    ++expected[static_cast<std::size_t>(values[i] & 15)];
  }
  const DeviceBuffer<int> device_values(values);
  const auto results =
      run_both<int>(16, [&](int* out) { samples::histogram(device_values.get(), out, 500); });
  for (const std::vector<int>& result : results) CHECK(result == expected);
}

TEST_CASE("the compilers must agree about parameters, and the kernel must be known") {
  const PtxLaunches interpreted;
  CHECK_THROWS_AS(terse::cuda::klaunch(
                      +[](int) {}, dim3(1), dim3(1), 0, nullptr, 1),
                  emu::Fault);
  emu::Launch launch;
  launch.name = "_ZN5terse4cuda7samples10sum_kernelEPKfPfi";
  CHECK_THROWS_AS(PtxLaunches::module().body(launch), emu::Fault);
}

#ifndef EMU_TSAN
TEST_CASE("speed of the interpreter") {
  const DeviceBuffer<float> in(random_values(96 * 2000, 6));
  const DeviceBuffer<float> out(std::vector<float>(16));
  const PtxLaunches interpreted;
  const std::uint64_t before = terse::ptx::work_done().instructions;
  const auto start = std::clock();
  samples::sum(in.get(), out.get(), 16, 12000);
  const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  const auto instructions = static_cast<double>(terse::ptx::work_done().instructions - before);
  MESSAGE((instructions / seconds / 1e6), " million instructions a second of processor time");
  CHECK(instructions > 16 * 12000 * 5);  // a loop of five instructions a value at least
}
#endif
