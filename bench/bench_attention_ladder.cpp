// From the definition of attention to the op of the library, step by step, as a share of what the
// core can do in f32, with one thread: bidirectional, head_dim 64. Every step is held to the
// definition in double before it is timed.
//
//   bench_attention_ladder [ROWS]     [512]
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "bench_support.h"
#include "terse/cpu.h"
#include "terse/ops/backends.h"
#include "terse/ops/tables.h"

#if defined(__x86_64__)

namespace {

constexpr std::int64_t kHeadDim = 64;

template <class Head>
struct StepOf {
  std::string_view name;
  void (*run)(const Head&);
};

}  // namespace

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
namespace ladder_avx2 {
namespace {
using namespace terse::avx2;
struct Head;
using Step = StepOf<Head>;
#include "attention_ladder.inl"
}  // namespace
}  // namespace ladder_avx2
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c")
#endif
namespace ladder_avx512 {
namespace {
using namespace terse::avx512;
struct Head;
using Step = StepOf<Head>;
#include "attention_ladder.inl"
}  // namespace
}  // namespace ladder_avx512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace {

struct Data {
  explicit Data(std::int64_t count)
      : rows(count),
        q(terse_bench::random_tensor({rows, kHeadDim}, 0.3f, 1)),
        k(terse_bench::random_tensor({rows, kHeadDim}, 1, 2)),
        v(terse_bench::random_tensor({rows, kHeadDim}, 1, 3)),
        out(static_cast<std::size_t>(rows * kHeadDim)),
        scratch(static_cast<std::size_t>(rows * rows)) {
    std::vector<double> weights(static_cast<std::size_t>(rows));
    for (std::int64_t row = 0; row < rows; ++row) {
      double most = -std::numeric_limits<double>::infinity();
      for (std::int64_t key = 0; key < rows; ++key) {
        double sum = 0;
        for (std::int64_t i = 0; i < kHeadDim; ++i) sum += at(q, row, i) * at(k, key, i);
        weights[static_cast<std::size_t>(key)] = sum;
        most = std::max(most, sum);
      }
      double total = 0;
      for (double& weight : weights) total += weight = std::exp(weight - most);
      for (std::int64_t i = 0; i < kHeadDim; ++i) {
        double sum = 0;
        for (std::int64_t key = 0; key < rows; ++key) {
          sum += weights[static_cast<std::size_t>(key)] * at(v, key, i);
        }
        expected.push_back(sum / total);
      }
    }
  }

  // A score of 64 products of about 0.3 is off by at most 64 epsilon of its magnitudes (some 20),
  // which its exponential turns into a relative error of a weight; means of weights keep it, times
  // values of up to 5; a sum of `rows` weights adds that many epsilon.
  double bound() const { return 0x1p-23 * (64 * 20 + static_cast<double>(rows)) * 5; }
  bool is_right() const {
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (!(std::abs(static_cast<double>(out[i]) - expected[i]) <= bound())) return false;
    }
    return true;
  }
  double operations() const { return 4.0 * static_cast<double>(rows * rows) * kHeadDim; }

  std::int64_t rows;
  terse::Tensor q, k, v;
  std::vector<float> out, scratch;
  std::vector<double> expected;

 private:
  static double at(const terse::Tensor& tensor, std::int64_t row, std::int64_t i) {
    return static_cast<double>(tensor.data<float>()[row * kHeadDim + i]);
  }
};

template <class Head, class Step, std::size_t N>
void climb(const Step (&steps)[N], Data& data, const terse::Probe& probe) {
  const Head head{data.rows,       data.q.data<float>(), data.k.data<float>(), data.v.data<float>(),
                  data.out.data(), data.scratch.data()};
  for (const Step& step : steps) {
    std::fill(data.out.begin(), data.out.end(), 0.0f);
    step.run(head);
    terse_bench::print_step(step.name, data.operations(), probe, data.is_right(),
                            [&] { step.run(head); });
  }
}

// 5. The library: both products by the tiles of its matrix products, on queries, keys and values
// laid out by the op before; 12 heads, whose results the tests compare with the reference table.
void climb_last(const Data& data, const terse::Probe& probe) {
  constexpr std::int64_t kHeads = 12;
  constexpr std::int64_t kWidth = kHeads * kHeadDim;
  const terse::Backend& backend = terse::choose_backend(std::nullopt, terse::DType::f32);
  terse::Context context;
  context.backend = &backend;
  const terse::Batch batch = terse_bench::make_batch(1, data.rows);
  const terse::AttentionShape shape{kHeads, kHeads, kHeadDim};
  const terse::AlignedBuffer in(backend.operand_bytes(data.rows, kWidth, terse::DType::f32));
  const terse::AlignedBuffer out(backend.operand_bytes(data.rows, kWidth, terse::DType::f32));
  const terse::AlignedBuffer inputs(backend.attention_bytes(batch, shape));
  const terse::Operand operand{in.data(), data.rows, kWidth, terse::DType::f32};
  const terse::Operand result{out.data(), data.rows, kWidth, terse::DType::f32};
  const terse::AttentionInputs qkv{inputs.data(), data.rows, data.rows, shape};
  terse::Tensor x = terse_bench::random_tensor({data.rows, kWidth}, 1, 4);
  const auto weight =
      std::make_shared<terse::Tensor>(terse_bench::random_tensor({3 * kWidth, kWidth}, 0.03f, 5));
  const terse::LinearPart part{weight->view(), {}, weight};
  const terse::Linear linear =
      backend.prepare_linear(terse::LinearKind::qkv, {&part, 1}, terse::DType::f32);
  backend.norm(context, {x.data<float>(), data.rows, kWidth}, nullptr, operand);
  backend.project_qkv(context, batch, operand, linear, {0.125}, qkv);
  const auto run = [&] { backend.attention(context, batch, qkv, {}, nullptr, result); };
  run();
  terse_bench::print_step("5 the library, 12 heads", kHeads * data.operations(), probe, true, run);
}

}  // namespace

int main(int argc, char** argv) {
  const std::int64_t rows = argc > 1 ? std::strtoll(argv[1], nullptr, 10) : 512;
  if (rows < 64 || rows % 64 != 0 || rows > 8192) {
    std::fprintf(stderr, "rows: a multiple of 64 up to 8192\n");
    return 2;
  }
  if (terse::best_isa() < terse::Isa::avx2) {
    std::printf("skipped: the ladder needs AVX2\n");
    return 0;
  }
  const bool wide = terse::best_isa() >= terse::Isa::avx512;
  const terse::Probe probe =
      terse::find_probe(terse::DType::f32, wide ? terse::Isa::avx512 : terse::Isa::avx2);
  Data data(rows);
  std::printf("%s, f32, %lld tokens, head_dim 64, one thread, probe %s %.1f GFLOP/s\n\n",
              terse::cpu_name().c_str(), static_cast<long long>(rows),
              std::string(probe.name).c_str(), terse::measure_probe(probe, 1) * 1e-9);
  std::printf("| step                   |  GFLOP/s |   share |\n|---|---|---|\n");
  if (wide) {
    climb<ladder_avx512::Head>(ladder_avx512::kSteps, data, probe);
  } else {
    climb<ladder_avx2::Head>(ladder_avx2::kSteps, data, probe);
  }
  climb_last(data, probe);
}

#else

#include <cstdio>

int main() { std::printf("skipped: the ladder is for x86-64\n"); }

#endif
