// The library's matrix products on layer shapes, one thread, as shares of what the core can do:
// y = x W^T + b with packed weights, y in the operands' type (of int8 products in the sensitive
// one). Rows of a table; bench/compare_gemm.sh prints oneDNN's beside them.
//
//   bench_gemm [NxK,... [M,... [f32,bf16,int8]]]     N x K of the weight
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "bench_support.h"
#include "terse/cpu.h"
#include "terse/dtype.h"
#include "terse/ops/backends.h"

namespace {

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  return parts;
}

struct Type {
  const char* name;
  terse::DType dtype;
};
constexpr Type kTypes[] = {
    {"f32", terse::DType::f32}, {"bf16", terse::DType::bf16}, {"int8", terse::DType::i8}};

// Best share of the probe, in percent.
double share(terse::DType dtype, std::int64_t rows, std::int64_t columns, std::int64_t width) {
  const terse::Backend& backend = terse::choose_backend(std::nullopt, dtype);
  terse::Context context;
  context.backend = &backend;

  const terse::Tensor weight_data = terse_bench::random_tensor({columns, width}, 0.03f, 1);
  const terse::Tensor bias = terse_bench::random_tensor({columns}, 0.1f, 2);
  const terse::LinearPart part{weight_data.view(), bias.view(), nullptr};
  const terse::Linear weight = backend.prepare_linear(terse::LinearKind::plain, {&part, 1}, dtype);

  // Operands by way of the embedding of as many tokens.
  const terse::Tensor table_data = terse_bench::random_tensor({1000, width}, 1, 3);
  const terse::Table table = backend.prepare_table(table_data.view(), nullptr);
  const terse::Batch batch = terse_bench::make_batch(1, rows);
  const terse::AlignedBuffer residual_memory(backend.residual_bytes(rows, width));
  const terse::Residual residual{residual_memory.data(), rows, width};
  const terse::AlignedBuffer in_memory(backend.operand_bytes(rows, width, dtype));
  const terse::Operand in{in_memory.data(), rows, width, dtype};
  backend.embed(context, batch, {.word = &table}, residual, nullptr, nullptr);
  backend.norm(context, residual, nullptr, in);
  const terse::AlignedBuffer out_memory(backend.operand_bytes(rows, columns, backend.sensitive));
  const terse::Operand out{out_memory.data(), rows, columns, backend.sensitive};
  const auto run = [&] {
    backend.linear_activation(context, in, weight, terse::Activation::none, out);
  };

  run();  // converts the weight
  const terse::Probe probe = terse::find_probe(dtype, backend.isa);
  const double before = terse::measure_probe(probe, 1, 20);
  const double best = terse_bench::best_seconds(run, 0.3);
  const double peak = std::max(before, terse::measure_probe(probe, 1, 20));
  return 200.0 * static_cast<double>(rows * columns) * static_cast<double>(width) / best / peak;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string shapes = argc > 1 ? argv[1]
                                      : "768x768,3072x768,768x3072,1024x1024,4096x1024,1024x4096,"
                                        "2304x2304,14336x3584";
  const std::string heights = argc > 2 ? argv[2] : "64,256,512,2048";
  const std::string types = argc > 3 ? argv[3] : "f32,bf16,int8";
  for (const std::string& shape : split(shapes)) {
    long long columns = 0, width = 0;
    if (std::sscanf(shape.c_str(), "%lldx%lld", &columns, &width) != 2 || columns < 1 ||
        width < 1) {
      std::fprintf(stderr, "bench_gemm: %s is no NxK\n", shape.c_str());
      return 2;
    }
    for (const std::string& height : split(heights)) {
      std::printf("| %s | %s |", shape.c_str(), height.c_str());
      for (const std::string& type : split(types)) {
        const auto* known = std::find_if(std::begin(kTypes), std::end(kTypes),
                                         [&](const Type& one) { return type == one.name; });
        if (known == std::end(kTypes)) {
          std::fprintf(stderr, "bench_gemm: %s is none of f32, bf16, int8\n", type.c_str());
          return 2;
        }
        std::printf(" terse %s %.0f %% |", type.c_str(),
                    share(known->dtype, std::max(1, std::atoi(height.c_str())), columns, width));
      }
      std::printf("\n");
      std::fflush(stdout);
    }
  }
}
