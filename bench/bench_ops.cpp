// Each op of the table at the shapes of bge-reranker-base (768) and -large (1024), 16 sequences of
// 128 tokens, one thread: GFLOP/s for products, GB/s of what is read and written for the rest.
//
//   bench_ops --benchmark_filter=linear --benchmark_min_time=0.2
#include <benchmark/benchmark.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench_support.h"
#include "terse/ops/backends.h"

namespace {

using terse_bench::measure;
using terse_bench::random_tensor;

// What one op needs: buffers of a forward pass filled with plausible values.
class Bench {
 public:
  Bench(terse::DType dtype, std::int64_t sequences, std::int64_t length, std::int64_t width,
        terse::AttentionShape attention)
      : backend_(terse::choose_backend(std::nullopt, dtype)),
        batch_(terse_bench::make_batch(sequences, length)),
        width_(width),
        attention_(attention),
        table_data_(random_tensor({1000, width}, 1, 1)),
        vector_data_(random_tensor({width}, 0.1f, 2)) {
    context_.backend = &backend_;
    table_ = backend_.prepare_table(table_data_.view(), nullptr);
    const terse::Handle vector = backend_.prepare_vector(vector_data_.view());
    norm_ = {terse::NormKind::layer, 1e-5f, width, vector, vector};
    context_.arena.measure();
    take();
    context_.arena.reserve();
    take();
    embed();
  }

  terse::Linear linear(terse::LinearKind kind, std::vector<std::int64_t> rows, std::int64_t width,
                       unsigned seed) {
    std::vector<terse::LinearPart> parts;
    for (const std::int64_t count : rows) {
      auto owner = std::make_shared<terse::Tensor>(random_tensor({count, width}, 0.03f, seed++));
      parts.push_back({owner->view(), {}, owner});
    }
    return backend_.prepare_linear(kind, parts, backend_.compute);
  }

  const terse::Backend& backend() const { return backend_; }
  double tokens() const { return static_cast<double>(batch_.total_tokens()); }
  double row_bytes() const { return static_cast<double>(width_) * sizeof(float); }
  terse::Operand operand(std::int64_t width, terse::DType dtype) {
    auto memory = std::make_shared<terse::AlignedBuffer>(
        backend_.operand_bytes(batch_.total_tokens(), width, dtype));
    memory_.push_back(memory);
    std::fill_n(memory->as<char>(), memory->size(), 0);
    return {memory->data(), batch_.total_tokens(), width, dtype};
  }
  terse::Operand operand(std::int64_t width) { return operand(width, backend_.compute); }

  void embed() {
    const terse::EmbedSpec spec{&table_, nullptr, nullptr, 1, &norm_};
    backend_.embed(context_, batch_, spec, residual_, nullptr, &operand_);
  }
  void norm() { backend_.norm(context_, residual_, &norm_, operand_); }
  void project(const terse::Linear& qkv) {
    const terse::ProjectSpec spec{1 / std::sqrt(static_cast<double>(attention_.head_dim))};
    backend_.project_qkv(context_, batch_, operand_, qkv, spec, inputs_);
  }
  void attend(bool causal) {
    backend_.attention(context_, batch_, inputs_, {.causal = causal}, nullptr, attended_);
  }
  void add(const terse::Operand& in, const terse::Linear& weight) {
    backend_.linear_add(context_, in, weight, {.factor = 1e-3, .sum_norm = &norm_}, residual_,
                        &operand_);
  }
  void activate(const terse::Linear& weight, terse::Activation activation, terse::Operand out) {
    backend_.linear_activation(context_, operand_, weight, activation, out);
  }
  void gate(const terse::Linear& weight, terse::Operand out) {
    backend_.linear_gated(context_, operand_, weight, terse::Activation::silu, out);
  }
  const terse::Operand& attended() const { return attended_; }

 private:
  void take() {
    const std::int64_t rows = batch_.total_tokens();
    const auto operand = [&](std::int64_t width, terse::DType dtype) {
      return terse::Operand{context_.arena.take(backend_.operand_bytes(rows, width, dtype)), rows,
                            width, dtype};
    };
    residual_ = terse::make_residual(context_, rows, width_);
    operand_ = operand(width_, backend_.compute);
    attended_ = operand(attention_.heads * attention_.head_dim, backend_.sensitive);
    inputs_ = terse::make_attention_inputs(context_, batch_, attention_);
  }

  const terse::Backend& backend_;
  terse::Batch batch_;
  std::int64_t width_;
  terse::AttentionShape attention_;
  terse::Tensor table_data_;
  terse::Tensor vector_data_;
  terse::Table table_;
  terse::Norm norm_;
  terse::Context context_;
  terse::Residual residual_;
  terse::Operand operand_;
  terse::Operand attended_;
  terse::AttentionInputs inputs_;
  std::vector<std::shared_ptr<terse::AlignedBuffer>> memory_;
};

terse::AttentionShape heads_of(std::int64_t width) { return {width / 64, width / 64, 64}; }

// Arguments: width. What attention has written, as in a model.
void linear_add(benchmark::State& state, terse::DType dtype) {
  const std::int64_t width = state.range(0);
  Bench bench(dtype, 16, 128, width, heads_of(width));
  const terse::Linear weight = bench.linear(terse::LinearKind::plain, {width}, width, 3);
  const terse::Operand in = bench.operand(width, bench.backend().sensitive);
  const double operations = 2.0 * bench.tokens() * static_cast<double>(width * width);
  measure(state, bench.backend(), operations, 0, [&] { bench.add(in, weight); });
}

void linear_add_down(benchmark::State& state, terse::DType dtype) {
  const std::int64_t width = state.range(0);
  Bench bench(dtype, 16, 128, width, heads_of(width));
  const terse::Linear weight = bench.linear(terse::LinearKind::plain, {width}, 4 * width, 4);
  const terse::Operand in = bench.operand(4 * width);
  const double operations = 8.0 * bench.tokens() * static_cast<double>(width * width);
  measure(state, bench.backend(), operations, 0, [&] { bench.add(in, weight); });
}

void linear_gelu(benchmark::State& state, terse::DType dtype) {
  const std::int64_t width = state.range(0);
  Bench bench(dtype, 16, 128, width, heads_of(width));
  const terse::Linear weight = bench.linear(terse::LinearKind::plain, {4 * width}, width, 5);
  const terse::Operand out = bench.operand(4 * width);
  const double operations = 8.0 * bench.tokens() * static_cast<double>(width * width);
  measure(state, bench.backend(), operations, 0,
          [&] { bench.activate(weight, terse::Activation::gelu_erf, out); });
}

void linear_gated(benchmark::State& state, terse::DType dtype) {
  const std::int64_t width = state.range(0);
  Bench bench(dtype, 16, 128, width, heads_of(width));
  const terse::Linear weight =
      bench.linear(terse::LinearKind::gated, {2 * width, 2 * width}, width, 6);
  const terse::Operand out = bench.operand(2 * width);
  const double operations = 8.0 * bench.tokens() * static_cast<double>(width * width);
  measure(state, bench.backend(), operations, 0, [&] { bench.gate(weight, out); });
}

void project_qkv(benchmark::State& state, terse::DType dtype) {
  const std::int64_t width = state.range(0);
  Bench bench(dtype, 16, 128, width, heads_of(width));
  const terse::Linear weight =
      bench.linear(terse::LinearKind::qkv, {width, width, width}, width, 7);
  const double operations = 6.0 * bench.tokens() * static_cast<double>(width * width);
  measure(state, bench.backend(), operations, 0, [&] { bench.project(weight); });
}

// Arguments: length of a sequence, head_dim, causal. 2,048 tokens, 12 heads.
void attention(benchmark::State& state, terse::DType dtype) {
  const std::int64_t length = state.range(0);
  const std::int64_t head_dim = state.range(1);
  const bool causal = state.range(2) != 0;
  const std::int64_t width = 12 * head_dim;
  Bench bench(dtype, std::max<std::int64_t>(2048 / length, 1), length, width, {12, 12, head_dim});
  const terse::Linear weight =
      bench.linear(terse::LinearKind::qkv, {width, width, width}, width, 8);
  bench.project(weight);
  const double seen = causal ? static_cast<double>(length + 1) / 2 : static_cast<double>(length);
  const double operations = 4.0 * bench.tokens() * seen * static_cast<double>(width);
  measure(state, bench.backend(), operations, 0, [&] { bench.attend(causal); });
}

void norm(benchmark::State& state, terse::DType dtype) {
  const std::int64_t width = state.range(0);
  Bench bench(dtype, 16, 128, width, heads_of(width));
  const double written = static_cast<double>(terse::dtype_size(dtype)) / sizeof(float);
  measure(state, bench.backend(), 0, bench.tokens() * bench.row_bytes() * (1 + written),
          [&] { bench.norm(); });
}

void embed(benchmark::State& state, terse::DType dtype) {
  const std::int64_t width = state.range(0);
  Bench bench(dtype, 16, 128, width, heads_of(width));
  const double written = static_cast<double>(terse::dtype_size(dtype)) / sizeof(float);
  measure(state, bench.backend(), 0, bench.tokens() * bench.row_bytes() * (2 + written),
          [&] { bench.embed(); });
}

using Run = void (*)(benchmark::State&, terse::DType);

void register_all() {
  constexpr std::pair<const char*, Run> kByWidth[] = {{"linear_add", linear_add},
                                                      {"linear_add_down", linear_add_down},
                                                      {"linear_gelu", linear_gelu},
                                                      {"linear_gated", linear_gated},
                                                      {"project_qkv", project_qkv},
                                                      {"norm", norm},
                                                      {"embed", embed}};
  for (const terse::DType dtype : {terse::DType::f32, terse::DType::bf16, terse::DType::i8}) {
    const auto add = [&](const char* name, Run run) {
      return benchmark::RegisterBenchmark(
          (std::string(name) + "/" + terse::dtype_name(dtype)).c_str(),
          [run, dtype](benchmark::State& state) { run(state, dtype); });
    };
    for (const auto& [name, run] : kByWidth) add(name, run)->Arg(768)->Arg(1024);
    add("attention", attention)
        ->Args({128, 64, 0})
        ->Args({512, 64, 0})
        ->Args({2048, 64, 0})
        ->Args({512, 128, 1})
        ->Args({512, 256, 1});
  }
}

}  // namespace

int main(int argc, char** argv) {
  register_all();
  benchmark::Initialize(&argc, argv);
  benchmark::AddCustomContext("cpu", terse::cpu_name());
  benchmark::AddCustomContext("isa", terse::isa_name(terse::best_isa()));
  benchmark::RunSpecifiedBenchmarks();
}
