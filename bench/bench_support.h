// What the benchmarks share: made-up data, batches, and times beside what the machine can do.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terse/batch.h"
#include "terse/ops/backend.h"
#include "terse/ops/probe.h"
#include "terse/tensor.h"

namespace terse_bench {

// Normal values of the given scale, the same for the same seed.
inline terse::Tensor random_tensor(terse::Shape shape, float scale, unsigned seed) {
  terse::Tensor tensor(terse::DType::f32, std::move(shape));
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, scale);
  const auto count = static_cast<std::size_t>(tensor.view().size());
  for (std::size_t i = 0; i < count; ++i) tensor.data<float>()[i] = normal(generator);
  return tensor;
}

// Sequences of equal length.
inline terse::Batch make_batch(std::int64_t sequences, std::int64_t length) {
  terse::Batch batch;
  batch.clear();
  for (std::int64_t s = 0; s < sequences; ++s) {
    for (std::int64_t i = 0; i < length; ++i) {
      batch.token_ids.push_back(static_cast<std::int32_t>((s * 31 + i * 7) % 1000));
      batch.positions.push_back(static_cast<std::int32_t>(i));
    }
    batch.cu_seqlens.push_back(static_cast<std::int32_t>(batch.token_ids.size()));
  }
  return batch;
}

// The least processor time of a few runs, one thread: a busy machine only ever slows one down.
template <class Run>
double best_seconds(Run&& run, double at_least = 0.1) {
  double best = std::numeric_limits<double>::infinity();
  double total = 0;
  for (int round = 0; round < 3 || total < at_least; ++round) {
    const double begin = terse::thread_seconds();
    run();
    const double seconds = terse::thread_seconds() - begin;
    best = std::min(best, seconds);
    total += seconds;
  }
  return best;
}

// A row of a ladder's table: the best run beside the better of two probes around it.
template <class Run>
void print_step(std::string_view name, double operations, const terse::Probe& probe, bool right,
                Run&& run) {
  const double before = terse::measure_probe(probe, 1, 10);
  const double best = best_seconds(run);
  const double peak = std::max(before, terse::measure_probe(probe, 1, 10));
  std::printf("| %-22s | %8.1f | %5.1f %% |%s\n", std::string(name).c_str(),
              operations / best * 1e-9, 100 * operations / best / peak, right ? "" : "  WRONG");
}

// Times op() on one thread and says: its least processor time as GFLOP/s and GB/s, and, for
// operations, the share of what the better of two probes around it reached.
template <class Op>
void measure(benchmark::State& state, const terse::Backend& backend, double operations,
             double bytes, Op&& op) {
  op();  // converts weights, sizes scratch memory
  const terse::Probe probe = terse::find_probe(backend.compute, backend.isa);
  const double before = terse::measure_probe(probe, 1, 5);
  double best = std::numeric_limits<double>::infinity();
  for (auto _ : state) {
    const double begin = terse::thread_seconds();
    op();
    best = std::min(best, terse::thread_seconds() - begin);
  }
  const double peak = std::max(before, terse::measure_probe(probe, 1, 5));
  if (operations > 0) {
    state.counters["GFLOP/s"] = operations / best * 1e-9;
    state.counters["share"] = operations / best / peak;
  }
  if (bytes > 0) state.counters["GB/s"] = bytes / best * 1e-9;
}

}  // namespace terse_bench
