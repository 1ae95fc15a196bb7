// Every step of the teaching ladders against an f64 definition, emulated in every schedule and
// interpreted from its PTX; prints what each step asks of global memory.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "cuda_test.h"
#include "ladder.cuh"
#include "launch_ptx.h"

using terse::bf16;
using terse::cuda_test::DeviceBuffer;
using terse::cuda_test::PtxLaunches;
using namespace terse::cuda;

namespace {

std::vector<float> random_values(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}
std::vector<bf16> rounded(const std::vector<float>& values) {
  std::vector<bf16> result;
  for (const float value : values) result.push_back(terse::to_bf16(value));
  return result;
}

// Launches a step emulated in every schedule, then interpreted; check() looks at each result.
template <class Step, class Check>
void climb(const ladder::Rung<Step>& rung, const Step& step, const Check& check) {
  CAPTURE(std::string(rung.name));
  for (const emu::NamedOptions& schedule : emu::schedules()) {
    const emu::ScopedOptions scoped(schedule.options);
    rung.launch(rung.kernel, step);
    check();
  }
  const terse::ptx::Work before = terse::ptx::work_done();
  const PtxLaunches launches;
  rung.launch(rung.kernel, step);
  check();
  const terse::ptx::Work after = terse::ptx::work_done();
  std::cout << "ladder\t" << rung.name << "\t" << after.global_bytes - before.global_bytes << "\t"
            << after.flops - before.flops << "\t" << after.instructions - before.instructions
            << "\n";
}

// One rounding to bf16 moves x by at most 2^-8 |x|; scores and weights of attention are rounded
// too.
bool close(bf16 result, double exact) {
  return std::fabs(static_cast<double>(terse::to_f32(result)) - exact) <=
         1e-2 * (1 + std::fabs(exact));
}

}  // namespace

TEST_CASE("the ladder of the norm") {
  constexpr std::size_t kRows = 6;
  constexpr std::size_t kWidth = 256;
  const std::vector<float> product = random_values(kRows * kWidth, 1);
  const std::vector<float> residual = random_values(kRows * kWidth, 2);
  const std::vector<float> weight = random_values(kWidth, 3);
  const std::vector<float> bias = random_values(kWidth, 4);
  const DeviceBuffer<float> device_product(product);
  const DeviceBuffer<float> device_residual(residual);
  const DeviceBuffer<float> device_weight(weight);
  const DeviceBuffer<float> device_bias(bias);
  const DeviceBuffer<float> written(kRows * kWidth);
  AddNormStep step;
  step.product = device_product.get();
  step.residual = device_residual.get();
  step.written_residual = written.get();
  step.sum_norm = {device_weight.get(), device_bias.get(), 1e-5F, 1};
  step.rows = kRows;
  step.width = kWidth;
  for (const auto& rung : ladder::kNorm) {
    const DeviceBuffer<bf16> out(kRows * kWidth);
    step.out = out.get();
    climb(rung, step, [&] {
      const std::vector<bf16> results = out.values();
      std::size_t wrong = 0;
      for (std::size_t row = 0; row < kRows; ++row) {
        const auto x = [&](std::size_t i) {
          return static_cast<double>(product[row * kWidth + i]) +
                 static_cast<double>(residual[row * kWidth + i]);
        };
        double mean = 0;
        double variance = 0;
        for (std::size_t i = 0; i < kWidth; ++i) mean += x(i) / kWidth;
        for (std::size_t i = 0; i < kWidth; ++i) variance += (x(i) - mean) * (x(i) - mean) / kWidth;
        for (std::size_t i = 0; i < kWidth; ++i) {
          const double exact =
              (x(i) - mean) / std::sqrt(variance + 1e-5) * static_cast<double>(weight[i]) +
              static_cast<double>(bias[i]);
          wrong += !close(results[row * kWidth + i], exact);
        }
      }
      CHECK(wrong == 0);
    });
  }
}

TEST_CASE("the ladder of attention") {
  constexpr std::size_t kTokens = 73;
  constexpr std::size_t kHeads = 2;
  constexpr std::size_t kDim = ladder::kHeadDim;
  const std::vector<QueryTile> tiles = {{0, 0, 64, 0}, {0, 64, 6, 0}, {1, 70, 3, 0}};
  const std::vector<KeySpan> spans = {{0, 70, 0, 0, 0, {}}, {70, 3, 0, 0, 0, {}}};
  constexpr std::size_t kWidth = 3 * kHeads * kDim;  // queries, keys and values of a token
  std::vector<float> random = random_values(kTokens * kWidth, 1);
  for (std::size_t i = 0; i < random.size(); ++i) {
    if (i % kWidth < kHeads * kDim) random[i] /= 8;  // 1 / sqrt(head size)
  }
  const std::vector<bf16> projected = rounded(random);
  const DeviceBuffer<QueryTile> device_tiles(tiles);
  const DeviceBuffer<KeySpan> device_spans(spans);
  const DeviceBuffer<bf16> device_projected(projected);
  AttendStep step;
  step.query = device_projected.get();
  step.key = device_projected.get() + kHeads * kDim;
  step.value = device_projected.get() + 2 * kHeads * kDim;
  step.tiles = device_tiles.get();
  step.sequences = device_spans.get();
  step.num_tiles = 3;
  step.row_step = kWidth;
  step.heads = kHeads;
  step.kv_heads = kHeads;
  step.head_dim = kDim;
  step.padded_dim = kDim;
  // part: 0 the queries, 1 the keys, 2 the values.
  const auto at = [&](std::size_t part, std::size_t head, std::size_t row, std::size_t d) {
    return static_cast<double>(
        terse::to_f32(projected[row * kWidth + (part * kHeads + head) * kDim + d]));
  };
  for (const auto& rung : ladder::kAttention) {
    const DeviceBuffer<bf16> out(kTokens * kHeads * kDim);
    step.out = out.get();
    climb(rung, step, [&] {
      const std::vector<bf16> results = out.values();
      std::size_t wrong = 0;
      for (const KeySpan& span : spans) {
        const auto begin = static_cast<std::size_t>(span.own_begin);
        const auto end = begin + static_cast<std::size_t>(span.own_length);
        for (std::size_t head = 0; head < kHeads; ++head) {
          for (std::size_t row = begin; row < end; ++row) {
            std::vector<double> exact(kDim);
            double sum = 0;
            for (std::size_t k = begin; k < end; ++k) {
              double score = 0;
              for (std::size_t d = 0; d < kDim; ++d)
                score += at(0, head, row, d) * at(1, head, k, d);
              sum += std::exp(score);
              for (std::size_t d = 0; d < kDim; ++d)
                exact[d] += std::exp(score) * at(2, head, k, d);
            }
            for (std::size_t d = 0; d < kDim; ++d) {
              wrong += !close(results[(row * kHeads + head) * kDim + d], exact[d] / sum);
            }
          }
        }
      }
      CHECK(wrong == 0);
    });
  }
}
