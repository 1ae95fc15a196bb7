// Inputs, runs and comparisons for the tests of the op tables.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "terse/cpu.h"
#include "terse/ops/amx.h"
#include "terse/ops/avx2.h"
#include "terse/ops/avx512.h"
#include "terse/ops/backend.h"
#include "terse/ops/reference.h"
#ifdef TERSE_TEST_CUDA
#include "terse/ops/cuda_backend.h"
#endif

namespace terse_test {

using terse::Backend;
using terse::DType;
using Values = std::vector<double>;

inline const Backend& judge() { return terse::reference::backend(DType::f64); }

// Every table that this machine can run, the judge excepted; under TERSE_EMULATED those whose
// instructions are models, which themselves are compiled for AVX2; in tests of CUDA those of CUDA.
inline std::vector<const Backend*> all_backends() {
#if defined(TERSE_TEST_CUDA)
  return {&terse::cuda::backend(DType::f32), &terse::cuda::backend(DType::bf16),
          &terse::cuda::backend(DType::f16)};
#elif defined(TERSE_EMULATED)
  if (!terse::isa_available(terse::Isa::avx2)) return {};
  return {&terse::avx512::backend(DType::f32), &terse::avx512::widened_backend(),
          &terse::avx512::pairs::backend(), &terse::amx::backend()};
#else
  std::vector<const Backend*> backends = {&terse::reference::backend(DType::f32),
                                          &terse::reference::backend(DType::bf16),
                                          &terse::reference::backend(DType::f16)};
#if defined(__x86_64__)
  for (const DType dtype : {DType::f32, DType::bf16}) {
    if (terse::isa_available(terse::Isa::avx2)) backends.push_back(&terse::avx2::backend(dtype));
    if (terse::isa_available(terse::Isa::avx512)) {
      backends.push_back(&terse::avx512::backend(dtype));
    }
  }
  if (terse::isa_available(terse::Isa::avx512)) {
    backends.push_back(&terse::avx512::widened_backend());
  }
  if (terse::isa_available(terse::Isa::amx)) backends.push_back(&terse::amx::backend());
#endif
  return backends;
#endif
}

// The same of the int8 tables.
inline std::vector<const Backend*> int8_backends() {
#ifdef TERSE_EMULATED
  if (!terse::isa_available(terse::Isa::avx2)) return {};
  return {&terse::avx512::words_backend(), &terse::avx512::vnni_backend(),
          &terse::avx512::pairs::int8_backend(), &terse::amx::int8_backend()};
#else
  std::vector<const Backend*> backends = {&terse::reference::backend(DType::i8)};
#if defined(__x86_64__)
  if (terse::isa_available(terse::Isa::avx2)) {
    backends.push_back(&terse::avx2::backend(DType::i8));
  }
  if (terse::isa_available(terse::Isa::avx512)) {
    backends.push_back(&terse::avx512::words_backend());
    if (terse::cpu_features().avx512_vnni) backends.push_back(&terse::avx512::vnni_backend());
    if (terse::cpu_features().avx512_vnni && terse::cpu_features().avx512_bf16) {
      backends.push_back(&terse::avx512::pairs::int8_backend());
    }
  }
  if (terse::isa_available(terse::Isa::amx)) backends.push_back(&terse::amx::int8_backend());
#endif
  return backends;
#endif
}

// Both, for what holds of any table.
inline std::vector<const Backend*> all_backends_and_int8() {
  std::vector<const Backend*> backends = all_backends();
  for (const Backend* backend : int8_backends()) backends.push_back(backend);
  return backends;
}

// Numbers in [-2, 2] times scale. For backends that round operands, multiples of 1/64, which every
// type holds exactly: what is then measured is the arithmetic, not the rounding of inputs.
class Generator {
 public:
  Generator(const Backend& backend, unsigned seed)
      : coarse_(backend.compute != DType::f32), random_(seed) {}

  Values operator()(std::int64_t count, double scale = 1) {
    Values values(static_cast<std::size_t>(count));
    std::uniform_real_distribution<double> uniform(-2, 2);
    for (double& value : values) {
      value = uniform(random_);
      value = coarse_ ? std::round(value * 64) / 64 : static_cast<float>(value);
      value *= scale;
    }
    return values;
  }
  // For a weight that multiplies `width` inputs: sums stay of the order of 1.
  Values weight(std::int64_t rows, std::int64_t width) {
    return (*this)(rows * width, std::exp2(-std::round(std::log2(width) / 2)));
  }

 private:
  bool coarse_;
  std::mt19937 random_;
};

// A tensor as a file would hold it: any type, any address.
struct Stored {
  std::vector<std::byte> bytes;
  terse::TensorView view;

  Stored(const Values& values, terse::Shape shape, DType dtype = DType::f32,
         std::size_t misalignment = 0) {
    const std::size_t element_bytes = terse::dtype_size(dtype);
    bytes.resize(misalignment + values.size() * element_bytes);
    for (std::size_t i = 0; i < values.size(); ++i) {
      std::byte* to = bytes.data() + misalignment + i * element_bytes;
      const auto put = [to](auto value) { std::memcpy(to, &value, sizeof(value)); };
      const auto single = static_cast<float>(values[i]);
      if (dtype == DType::f64) put(values[i]);
      if (dtype == DType::f32) put(single);
      if (dtype == DType::bf16) put(terse::to_bf16(single));
      if (dtype == DType::f16) put(terse::to_f16(single));
    }
    view = {bytes.data() + misalignment, dtype, std::move(shape)};
  }
};

// A backend with memory to run single ops in.
class Runner {
 public:
  explicit Runner(const Backend& backend, int threads = 1) {
    context.backend = &backend;
    context.threads = threads;
    if (backend.make_state != nullptr) context.state = backend.make_state(0, 0);
  }

  terse::Residual residual(const Values& values, std::int64_t rows, std::int64_t width) {
    const terse::Residual x{memory(context.backend->residual_bytes(rows, width)), rows, width};
    if (values.empty()) return x;
    if (context.backend->device != terse::Device::cpu) {
      embed(values, x);
      return x;
    }
    if (context.backend->residual_bytes(1, 1) == sizeof(double)) {
      std::memcpy(x.data, values.data(), values.size() * sizeof(double));
    } else {
      for (std::size_t i = 0; i < values.size(); ++i) {
        static_cast<float*>(x.data)[i] = static_cast<float>(values[i]);
      }
    }
    return x;
  }
  terse::Operand operand(std::int64_t rows, std::int64_t width) {
    return operand(rows, width, context.backend->compute);
  }
  terse::Operand operand(std::int64_t rows, std::int64_t width, DType dtype) {
    return {memory(context.backend->operand_bytes(rows, width, dtype)), rows, width, dtype};
  }
  terse::Operand operand(const Values& values, std::int64_t rows, std::int64_t width) {
    const terse::Operand x = operand(rows, width);
    context.backend->norm(context, residual(values, rows, width), nullptr, x);
    return x;
  }
  terse::AttentionInputs attention_inputs(const terse::Batch& batch,
                                          const terse::AttentionShape& shape) {
    return {memory(context.backend->attention_bytes(batch, shape)), batch.total_tokens(),
            batch.total_tokens(), shape};
  }
  Values read(const terse::Residual& x) {
    Values values(static_cast<std::size_t>(x.rows * x.width));
    context.backend->read_residual(context, x, values);
    return values;
  }
  Values read(const terse::Operand& x) {
    Values values(static_cast<std::size_t>(x.rows * x.width));
    context.backend->read_operand(context, x, values);
    return values;
  }
  terse::Linear linear(terse::LinearKind kind, const std::vector<terse::LinearPart>& parts) {
    return context.backend->prepare_linear(kind, parts, context.backend->compute);
  }
  terse::Norm norm(terse::NormKind kind, const Stored& weight, const Stored& bias) {
    return {kind, 1e-5f, weight.view.shape[0], context.backend->prepare_vector(weight.view),
            context.backend->prepare_vector(bias.view)};
  }

  terse::Context context;

 private:
  // Filled with NaN, as a device's is in emulation: what an op does not write must not be read.
  void* memory(std::size_t bytes) {
    const terse::Backend& backend = *context.backend;
    memory_.push_back(backend.allocate != nullptr ? backend.allocate(context.state.get(), bytes)
                                                  : terse::Arena::heap_block(nullptr, bytes));
    if (backend.allocate == nullptr) std::memset(memory_.back().get(), 0xff, bytes);
    return memory_.back().get();
  }

  // Writes x where the host cannot: as the rows of an embedding table.
  void embed(const Values& values, const terse::Residual& x) {
    const Stored stored(values, {x.rows, x.width});
    const terse::Table table = context.backend->prepare_table(stored.view, nullptr);
    terse::Batch batch;
    batch.cu_seqlens = {0, static_cast<std::int32_t>(x.rows)};
    for (std::int32_t row = 0; row < x.rows; ++row) {
      batch.token_ids.push_back(row);
      batch.positions.push_back(row);
    }
    context.backend->embed(context, batch, {.word = &table}, x, nullptr, nullptr);
    context.backend->finish(context);
  }

  std::vector<std::shared_ptr<void>> memory_;
};

// Unit roundoff of a type.
inline double roundoff(DType dtype) {
  if (dtype == DType::bf16) return 0x1p-8;
  if (dtype == DType::f16) return 0x1p-11;
  return 0x1p-24;
}

// How often a table rounds a product before its bias and activation: on a device it lies in memory
// between cuBLAS and the kernel that goes on with it.
inline double product_roundings(const Backend& backend) {
  return backend.device == terse::Device::cuda ? 1 : 0;
}

// Root mean square and largest error. Sums of `terms` products in f32 err by the root of their
// number (signs are random; 4 for the functions around them) in units of |x| |w|, which Generator
// keeps near 1, or of the result where that is larger; results are rounded `roundings` times to the
// backend's type, and `inner_roundings` times numbers near |x| |w| that results are made of.
inline void check_close(const Backend& backend, const Values& got, const Values& want, double terms,
                        double roundings, double inner_roundings = 0) {
  REQUIRE(got.size() == want.size());
  double squares = 0, errors = 0, largest = 0, largest_error = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(got[i] - want[i]);
    squares += want[i] * want[i];
    errors += error * error;
    largest = std::max(largest, std::abs(want[i]));
    // Negated, so that a NaN counts as an error.
    if (!(error <= largest_error)) largest_error = error;
  }
  const double count = static_cast<double>(got.size());
  const double mean = std::sqrt(squares / count);
  const double sums =
      4 * std::sqrt(terms) * roundoff(DType::f32) + inner_roundings * roundoff(backend.compute);
  const double rounding = roundings * roundoff(backend.compute);
  CHECK(std::sqrt(errors / count) <= sums * std::max(mean, 1.0) + rounding * mean);
  CHECK(largest_error <= 4 * (sums * std::max(largest, 1.0) + rounding * largest));
}

}  // namespace terse_test
