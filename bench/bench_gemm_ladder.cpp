// From three plain loops to the product of the library, step by step: what each step buys, as a
// share of what the core can do, with one thread. bf16 where the processor multiplies it, else f32
// with AVX2. Every step is held to the definition in double before it is timed.
//
//   bench_gemm_ladder [ROWS COLUMNS WIDTH]     [384 3072 768: a layer of bge-reranker-base]
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <string_view>
#include <vector>

#include "bench_support.h"
#include "terse/cpu.h"
#include "terse/dtype.h"
#include "terse/ops/backends.h"
#include "terse/ops/panels.h"
#include "terse/ops/tables.h"

namespace {

using terse::Word;
using terse_bench::print_step;

template <class Product>
struct StepOf {
  std::string_view name;
  void (*run)(const Product&);
};

}  // namespace

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
namespace ladder_f32 {
namespace {
using namespace terse::avx2;
struct Product;
using Step = StepOf<Product>;
inline float multiply_word(Word a, Word b, float sum) {
  return std::fma(std::bit_cast<float>(a), std::bit_cast<float>(b), sum);
}
#include "gemm_ladder.inl"
}  // namespace
}  // namespace ladder_f32
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(                                                          \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,f16c"))), \
    apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,f16c")
#endif
namespace ladder_bf16 {
namespace {
using namespace terse::avx512;
using terse::avx512::pairs::multiply_words;
struct Product;
using Step = StepOf<Product>;
inline float multiply_word(Word a, Word b, float sum) {
  const auto half = [](Word word, int which) {
    return terse::to_f32(terse::bf16{static_cast<std::uint16_t>(word >> 16 * which)});
  };
  return std::fma(half(a, 1), half(b, 1), std::fma(half(a, 0), half(b, 0), sum));
}
#include "gemm_ladder.inl"
}  // namespace
}  // namespace ladder_bf16
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace {

// A product with its operands, the weight also in panels.
struct Data {
  std::int64_t rows, columns, width;
  terse::DType dtype;
  std::vector<Word> a, w, p;
  std::vector<float> c;
  std::vector<double> expected, bound;

  Data(std::int64_t m, std::int64_t n, std::int64_t k, terse::DType type)
      : rows(m), columns(n), width(k), dtype(type), c(static_cast<std::size_t>(m * n)) {
    const terse::Tensor left = terse_bench::random_tensor({rows, width}, 1, 1);
    const auto right =
        std::make_shared<terse::Tensor>(terse_bench::random_tensor({columns, width}, 0.03f, 2));
    a = words(left);
    w = words(*right);
    const terse::LinearPart part{right->view(), {}, right};
    const terse::PanelWeight panels(terse::LinearKind::plain, {&part, 1}, terse::dtype_size(type));
    for (std::int64_t panel = 0; panel < panels.panels(); ++panel) {
      terse::fill_panel(panels, panel, type);
      p.insert(p.end(), panels.panel(panel), panels.panel(panel) + panels.panel_words());
    }
    define();
  }

  std::int64_t words_per_row() const {
    return width * static_cast<std::int64_t>(terse::dtype_size(dtype)) / 4;
  }
  double operations() const {
    return 2.0 * static_cast<double>(rows * columns) * static_cast<double>(width);
  }

  // The definition in double of the rounded operands, and how far a sum of `width` products in f32
  // may be from it: each of its roundings is at most an epsilon of the sum of magnitudes.
  void define() {
    const std::vector<double> left = values(a), right = values(w);
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t column = 0; column < columns; ++column) {
        double sum = 0, magnitude = 0;
        for (std::int64_t k = 0; k < width; ++k) {
          const double product = left[static_cast<std::size_t>(row * width + k)] *
                                 right[static_cast<std::size_t>(column * width + k)];
          sum += product;
          magnitude += std::abs(product);
        }
        expected.push_back(sum);
        bound.push_back(static_cast<double>(width) * 0x1p-23 * magnitude);
      }
    }
  }
  bool is_right() const {
    for (std::size_t i = 0; i < c.size(); ++i) {
      if (!(std::abs(static_cast<double>(c[i]) - expected[i]) <= bound[i])) return false;
    }
    return true;
  }

 private:
  std::vector<Word> words(const terse::Tensor& tensor) const {
    const auto count = static_cast<std::size_t>(tensor.view().size());
    const float* from = tensor.data<float>();
    std::vector<Word> out;
    for (std::size_t i = 0; i < count; ++i) {
      if (dtype == terse::DType::f32) {
        out.push_back(std::bit_cast<Word>(from[i]));
      } else if (i % 2 == 0) {
        out.push_back(terse::to_bf16(from[i]).bits);
      } else {
        out.back() |= Word{terse::to_bf16(from[i]).bits} << 16;
      }
    }
    return out;
  }
  std::vector<double> values(const std::vector<Word>& from) const {
    std::vector<double> out;
    for (const Word word : from) {
      if (dtype == terse::DType::f32) {
        out.push_back(static_cast<double>(std::bit_cast<float>(word)));
      } else {
        for (const int half : {0, 1}) {
          const terse::bf16 value{static_cast<std::uint16_t>(word >> 16 * half)};
          out.push_back(static_cast<double>(terse::to_f32(value)));
        }
      }
    }
    return out;
  }
};

template <class Product, class Step, std::size_t N>
void climb(const Step (&steps)[N], Data& data, const terse::Probe& probe) {
  const Product product{data.rows,     data.columns,  data.words_per_row(), data.a.data(),
                        data.w.data(), data.p.data(), data.c.data()};
  for (const Step& step : steps) {
    std::fill(data.c.begin(), data.c.end(), 0.0f);
    step.run(product);
    print_step(step.name, data.operations(), probe, data.is_right(), [&] { step.run(product); });
  }
}

// 6. The library: panels prefetched while the one before is multiplied, rows of operands an odd
// number of cache lines apart, and the bias and GELU in the epilogue.
void climb_last(Data& data, const terse::Probe& probe) {
  const terse::Backend& backend = terse::choose_backend(std::nullopt, data.dtype);
  const auto weight = std::make_shared<terse::Tensor>(
      terse_bench::random_tensor({data.columns, data.width}, 0.03f, 2));
  const terse::LinearPart part{weight->view(), {}, weight};
  const terse::Linear linear =
      backend.prepare_linear(terse::LinearKind::plain, {&part, 1}, data.dtype);
  terse::Tensor rows = terse_bench::random_tensor({data.rows, data.width}, 1, 1);
  terse::Context context;
  context.backend = &backend;
  const terse::AlignedBuffer in(backend.operand_bytes(data.rows, data.width, data.dtype));
  const terse::AlignedBuffer out(backend.operand_bytes(data.rows, data.columns, data.dtype));
  const terse::Operand operand{in.data(), data.rows, data.width, data.dtype};
  backend.norm(context, {rows.data<float>(), data.rows, data.width}, nullptr, operand);
  const terse::Operand result{out.data(), data.rows, data.columns, data.dtype};
  const auto run = [&](terse::Activation activation) {
    backend.linear_activation(context, operand, linear, activation, result);
  };
  std::vector<double> got(data.c.size());
  run(terse::Activation::none);
  backend.read_operand(context, result, got);
  // An operand of bf16 is rounded once more.
  const double rounding = data.dtype == terse::DType::bf16 ? 0x1p-8 : 0;
  bool right = true;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double bound = data.bound[i] + rounding * std::abs(data.expected[i]);
    right = right && std::abs(got[i] - data.expected[i]) <= bound;
  }
  print_step("6 the library", data.operations(), probe, right,
             [&] { run(terse::Activation::none); });
  print_step("  with GELU", data.operations(), probe, right,
             [&] { run(terse::Activation::gelu_erf); });
}

}  // namespace

int main(int argc, char** argv) {
  const auto argument = [&](int index, std::int64_t fallback) {
    return argc > index ? std::strtoll(argv[index], nullptr, 10) : fallback;
  };
  const std::int64_t rows = argument(1, 384), columns = argument(2, 3072), width = argument(3, 768);
  if (rows < 12 || rows % 12 != 0 || columns < 32 || columns % 32 != 0 || width < 32 ||
      width % 32 != 0) {
    std::fprintf(stderr, "rows: a multiple of 12; columns and width: of 32\n");
    return 2;
  }
  if (terse::best_isa() < terse::Isa::avx2) {
    std::printf("skipped: the ladder needs AVX2\n");
    return 0;
  }
  const bool bf16 = terse::best_isa() >= terse::Isa::avx512 && terse::cpu_features().avx512_bf16;
  const terse::DType dtype = bf16 ? terse::DType::bf16 : terse::DType::f32;
  // Held against the vector units also where there are tiles, which these steps do not use.
  const terse::Probe probe = terse::find_probe(dtype, bf16 ? terse::Isa::avx512 : terse::Isa::avx2);
  Data data(rows, columns, width, dtype);
  std::printf("%s, %s, (%lld, %lld) x (%lld, %lld)^T, one thread, probe %s %.1f GFLOP/s\n\n",
              terse::cpu_name().c_str(), terse::dtype_name(dtype), static_cast<long long>(rows),
              static_cast<long long>(width), static_cast<long long>(columns),
              static_cast<long long>(width), std::string(probe.name).c_str(),
              terse::measure_probe(probe, 1) * 1e-9);
  std::printf("| step                   |  GFLOP/s |   share |\n|---|---|---|\n");
  if (bf16) {
    climb<ladder_bf16::Product>(ladder_bf16::kSteps, data, probe);
  } else {
    climb<ladder_f32::Product>(ladder_f32::kSteps, data, probe);
  }
  climb_last(data, probe);
}

#else

int main() { std::printf("skipped: the ladder is for x86-64\n"); }

#endif
